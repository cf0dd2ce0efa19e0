"""What can go of a study's run directories: all that neither its table nor a stage still to run needs."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tlkit.errors import UserError
from tlkit.runs import RESULT, identity_of, is_running
from tlkit.study.estimate import directory_size
from tlkit.study.plan import FILE, Planned, load, stages_of
from tlkit.study.state import FAILED, RUN, states

HALF_DELETED = ".deleted-"


@dataclass
class Kind:
    """Files and directories that can go for the same reason.

    Attributes:
        what: they are, as it is told.
        paths: in the order in which they are to be deleted.
    """

    what: str
    paths: list[Path] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that it frees."""
        return sum(path.lstat().st_size if path.is_file() else directory_size(path) for path in self.paths)


class Survey:
    """What can go of a study; what other experiments and studies have made is not looked at.

    Left alone are runs whose lock is held, runs that any study names as ``pretrain.checkpoint``, and finished runs that
    no plan of this study knows. Of a run that another study's plan has, only ``last.ckpt`` can go.

    Args:
        planned: the study.

    Attributes:
        safe: what serves nothing any more, by kind.
        weights: checkpoints of finished stages: nothing to do needs them, but somebody may want to predict with them.
        former: finished runs of former plans: after an edit that is taken back, they are the study's again.
    """

    def __init__(self, planned: Planned) -> None:
        """Looks through the directory of the study."""
        self.temporary = Kind("temporary files of processes that were killed")
        self.last = Kind("last.ckpt of finished runs, beside their best.ckpt")
        self.damaged = Kind("damaged runs that were set aside")
        self.former = Kind("finished runs of former plans that are not in the study any more")
        self.cut_off = Kind("runs that were cut off and that no stage goes on with")
        self.failed = Kind("records of failures that have been mended or are not in the study any more")
        self.engine = Kind("logs of an engine that did not end in order")
        self.weights = Kind("checkpoints of finished stages that no stage to do starts from")
        self.safe = [
            self.temporary, self.last, self.damaged, self.cut_off, self.failed, self.engine,
        ]  # fmt: skip
        root, name, self._stages = planned.plan.root, planned.plan.name, planned.plan.stages
        states_ = states(root, name, [(stage.stage, stage.id) for stage in self._stages.values()])
        self._earlier = planned.earlier
        self._todo = {id_ for id_, one in states_.items() if one.state != "done"}
        self._elsewhere, self._named = _others(root, name)
        self._needed = {*self._elsewhere, *(self._stages[id_].pretrain for id_ in self._todo)}
        for path in sorted((root / name).iterdir()):
            if path.is_symlink() or any(file.is_relative_to(path.resolve()) for file in self._named):
                continue
            if path.is_dir():
                self._directory(path)
            elif _is_temporary(path.name):
                self.temporary.paths.append(path)

    def _directory(self, path: Path) -> None:
        if path.name.startswith(HALF_DELETED):
            self.temporary.paths.append(path)
        elif path.name.startswith("damaged-"):
            self.damaged.paths.append(path)
        elif path.name == ".engine":
            self.engine.paths.append(path)
        elif path.name == FAILED:
            pending = {id_[:8] for id_ in self._todo}
            self.failed.paths += sorted(record for record in path.iterdir() if record.name not in pending)
        elif not RUN.fullmatch(path.name):
            self.temporary.paths += _temporary(path)
        elif not is_running(path) and not _is_foreign(path):
            self._run(path, identity_of(path), finished=(path / RESULT).exists())

    def _run(self, path: Path, id_: str | None, finished: bool) -> None:
        known = id_ in self._stages or id_ in self._elsewhere
        if finished and id_ in self._earlier and not known:
            self.former.paths.append(path)
        elif not finished and (not known or (id_ in self._stages and id_ not in self._todo | self._elsewhere)):
            self.cut_off.paths.append(path)
        elif known:
            self.temporary.paths += _temporary(path)
            if finished:
                self._checkpoints(path / "checkpoints", id_)

    def _checkpoints(self, directory: Path, id_: str | None) -> None:
        best, last = directory / "best.ckpt", directory / "last.ckpt"
        beside = [last] if best.exists() and last.exists() else []
        self.last.paths += beside
        if id_ in self._stages and id_ not in self._needed and directory.is_dir():
            rest = [file for file in directory.iterdir() if file not in beside and not _is_temporary(file.name)]
            # The best goes last: where there is none, the last one is taken for it.
            self.weights.paths += sorted(rest, key=lambda file: (file == best, file.name))


def delete(kinds: list[Kind]) -> None:
    """Deletes files and directories; a run that has been started meanwhile stays.

    Raises:
        UserError: something cannot be deleted.
    """
    try:
        for path in (path for kind in kinds for path in kind.paths):
            if not path.is_dir():
                path.unlink(missing_ok=True)
            elif path.name.startswith(HALF_DELETED):
                shutil.rmtree(path)
            elif not is_running(path):
                # Nobody takes a half-deleted run for one that was cut off.
                shutil.rmtree(path.rename(path.with_name(f"{HALF_DELETED}{os.getpid()}-{path.name}")))
    except OSError as error:
        raise UserError(
            f"cannot delete {error.filename}: {error.strerror}; what was listed before it is gone. Mend that, then "
            "clean again"
        ) from error


def _temporary(directory: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(directory):
        yield from (Path(folder, name) for name in names if _is_temporary(name))


def _is_temporary(name: str) -> bool:
    """Tells whether a file is one that its writer renames when it is complete."""
    return name.startswith(".") and (name.endswith(".tmp") or name == ".curves.png")


def _is_foreign(directory: Path) -> bool:
    """Tells whether a directory with the name of a run is none: a run's first file is its identity."""
    return identity_of(directory) is None and any(not _is_temporary(file.name) for file in directory.iterdir())


def _others(root: Path, name: str) -> tuple[set[str], set[Path]]:
    """Returns the ids in the plans of other studies, and what any study names as ``pretrain.checkpoint``.

    Raises:
        UserError: a plan cannot be read: nobody knows what that study needs.
    """
    ids: set[str] = set()
    named: set[Path] = set()
    for directory in sorted(file.parent for file in root.glob(f"*/{FILE}")):
        stored = load(directory)
        if stored is None:
            raise UserError(
                f"expected to learn from {directory / FILE} which runs that study needs, got a file that this version "
                "cannot read; plan that study again, or delete its plan"
            )
        stages = stages_of(stored)
        ids |= stages.keys() if directory.name != name else set()
        for stage in stages.values():
            section: dict[str, Any] = stage.config["pretrain"]
            if section["checkpoint"]:
                named.add(Path(stored["key"]["folder"], section["checkpoint"]).resolve())
    return ids, named
