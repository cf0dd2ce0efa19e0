"""A tiny study, planned by hand or from a file: pretrains, and transfers that start from them."""

import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import yaml
from conftest import toy_experiment

from tlkit.study.plan import Planned, plan_study
from tlkit.study.planned import PlannedStage, StudyPlan


def toy_study(tmp_path: Path, variants: list[dict[str, Any]], threads: int = 1) -> StudyPlan:
    """Returns the stages of the tiny experiment under each set of overrides, equal ones once."""
    import torch

    from tlkit.experiment import plan
    from tlkit.paths import override
    from tlkit.stage_cli import parse

    stages: dict[str, PlannedStage] = {}
    base = parse(toy_experiment(tmp_path)) | {"name": "toys"}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for changes in variants:
            for stage in plan(override(base, changes)).chain():
                source = stage.pretrain.id if stage.pretrain else None
                stages.setdefault(stage.id, PlannedStage(stage.id, stage.name, stage.config, source))
    finally:
        torch.set_num_threads(before)
    return StudyPlan("toys", tmp_path / "runs", stages, threads)


def written_study(tmp_path: Path, seeds: int, changes: dict[str, Any]) -> Planned:
    """Returns the study of a file: for each seed a pretrain and a transfer of the tiny experiment, with changes."""
    from tlkit.paths import override

    study = {
        "name": "toys",
        "goal": "Is it the same everywhere?",
        "base": "toy.yaml",
        "scientific": {"pretrain.layers": [2]},
        "replicates": {"seed_everything": [*range(seeds)]},
        "metric": {"name": "test/accuracy", "mode": "max"},
    }
    tmp_path.mkdir(exist_ok=True)
    for name, content in (("toy", override(toy_experiment(tmp_path), changes)), ("study", study)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return plan_study(tmp_path / "study.yaml")


if __name__ == "__main__":  # a driver of its own: python studies.py PLAN ENGINE
    from tlkit.study.engine import carry_out

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored
    study, engine = pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2]
    outcome = carry_out(study, None if engine == "default" else engine if engine == "inline" else Path(engine))
    sys.exit(1 if outcome.failed else 0)
