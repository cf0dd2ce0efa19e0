"""What a study is carried out from: stages that are fully described, and what each starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlkit.paths import Config


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a study; equal stages are one.

    Attributes:
        id: identity, sha256 in hex, as in the run directory's ``result.json``.
        stage: ``pretrain`` or ``transfer``.
        config: the whole resolved configuration; `tlkit.experiment.plan` makes the same stage of it.
        pretrain: id of the stage that it starts from; None if there is none.
        cells: the combinations of levels and replicates that it serves, path or name of a factor -> level.
    """

    id: str
    stage: str
    config: Config
    pretrain: str | None
    cells: tuple[dict[str, Any], ...] = ()

    @property
    def shared(self) -> dict[str, Any]:
        """What all its combinations have in common, path or name of a factor -> level."""
        first, *others = self.cells or ({},)
        return {column: value for column, value in first.items() if all(cell.get(column) == value for cell in others)}


@dataclass(frozen=True)
class StudyPlan:
    """All stages of a study.

    Attributes:
        name: of the study, and of its directory below `root`.
        root: directory of all runs.
        stages: id -> stage; a pretrain comes before what starts from it.
        threads: per process that trains a stage; identities hold for this number.
    """

    name: str
    root: Path
    stages: dict[str, PlannedStage]
    threads: int = 1

    @property
    def pretrains(self) -> dict[str, str | None]:
        """Id of a stage -> that of the stage that it starts from."""
        return {id_: stage.pretrain for id_, stage in self.stages.items()}
