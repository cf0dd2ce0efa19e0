"""A tiny study, planned by hand: pretrains, and transfers that start from them."""

import sys
from pathlib import Path
from typing import Any

from conftest import toy_experiment

from tlkit.experiment import Stage, plan
from tlkit.paths import override
from tlkit.stage_cli import parse
from tlkit.study.planned import PlannedStage, StudyPlan


def toy_study(tmp_path: Path, variants: list[dict[str, Any]]) -> StudyPlan:
    """Returns the stages of the tiny experiment under each set of overrides, equal ones once."""
    stages: dict[str, PlannedStage] = {}
    base = parse(toy_experiment(tmp_path)) | {"name": "toys"}
    for changes in variants:
        chain = plan(override(base, changes)).chain()
        for stage in chain:
            stages.setdefault(stage.id, _planned(stage))
    return StudyPlan("toys", tmp_path / "runs", stages, threads=1)


def _planned(stage: Stage) -> PlannedStage:
    return PlannedStage(stage.id, stage.name, stage.config, stage.pretrain.id if stage.pretrain else None)


if __name__ == "__main__":  # a driver of its own: python studies.py DIR ENGINE SEEDS
    from tlkit.study.engine import carry_out

    directory, engine, seeds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    study = toy_study(directory, [{"seed_everything": seed} for seed in range(seeds)])
    outcome = carry_out(study, None if engine == "default" else engine if engine == "inline" else Path(engine))
    sys.exit(1 if outcome.failed else 0)
