"""Why a stage is to be run: what differs from the nearest stage that has been."""

from dataclasses import dataclass
from typing import Any

from tlkit.errors import UserError
from tlkit.paths import flatten
from tlkit.study.plan import Planned
from tlkit.study.planned import PlannedStage
from tlkit.study.state import Found, with_again

NOT_IDENTITY = (
    "name", "runs", "ckpt_path", "config", "pretrain", "trainer.logger", "trainer.enable_progress_bar",
    "trainer.enable_model_summary", "trainer.log_every_n_steps", "trainer.default_root_dir", "trainer.profiler",
    "trainer.num_sanity_val_steps",
)  # fmt: skip
REMEDY = {
    "failed": "it failed, and is tried again",
    "damaged": "its result is not to be trusted",
    "cut off": "it was cut off, and goes on from its last checkpoint",
    "running": "it runs just now",
    "again": "it is to be run again: its weights are deleted, and a stage to do starts from them",
}


@dataclass(frozen=True)
class _Neighbour:
    stage: PlannedStage
    changes: list[str]


def explain(planned: Planned, found: dict[str, Found], id_: str) -> list[str]:
    """Returns why a stage is to be run, or where it is done, one line each.

    Args:
        planned: the study.
        found: id -> what has become of a stage, of the plan's and of earlier ones.
        id_: identity of the stage, or its first characters; as the name of a run directory, ``transfer-8d6c1f8c``, too.

    Raises:
        UserError: no stage, or several, begin so.
    """
    beginning = id_.removeprefix("pretrain-").removeprefix("transfer-")
    named = [stage for stage in planned.plan.stages.values() if stage.id.startswith(beginning)]
    if len(named) != 1:
        some = ", ".join(f"{stage.stage}-{stage.id[:8]}" for stage in (named or list(planned.plan.stages.values()))[:8])
        got = f"{len(named)} ids begin" if named else "no id begins"
        raise UserError(
            f"--explain: expected the beginning of one stage's id, got '{id_}', with which {got}; such as {some}; "
            f"tlkit study table {planned.study.path} lists all"
        )
    return _explain(planned, with_again(found, planned.plan.pretrains), named[0])


def _explain(planned: Planned, found: dict[str, Found], stage: PlannedStage) -> list[str]:
    state = found[stage.id]
    name = f"{stage.stage}-{stage.id[:8]}"
    if state.state == "done":
        return [f"{name} is done: {state.path}"]
    if state.state != "to do":
        return [f"{name}: {REMEDY[state.state]}{f' ({state.path})' if state.path else ''}"]
    nearest = _nearest(planned, found, stage)
    if nearest is None:
        return [f"{name} is to be run: no {stage.stage} stage of this study has been"]
    path = found[nearest.stage.id].path
    lines = [f"{name} is to be run. It differs from the nearest that is done, {path}, in:"]
    lines += [f"  {change}" for change in nearest.changes]
    if stage.pretrain and stage.pretrain != nearest.stage.pretrain:
        before = planned.plan.stages[stage.pretrain]
        why = [f"    {line}" for line in _explain(planned, found, before)]
        lines += [f"  pretrain: {before.stage}-{before.id[:8]} is another", *why]
    return lines


def _nearest(planned: Planned, found: dict[str, Found], stage: PlannedStage) -> _Neighbour | None:
    others = [*planned.plan.stages.values(), *planned.earlier.values()]
    done = [other for other in others if other.stage == stage.stage and found[other.id].state in ("done", "again")]
    mine = _facts(stage, planned.parts[stage.id])
    best: _Neighbour | None = None
    for other in done:
        changes = _changes(_facts(other, planned.parts[other.id]), mine)
        changes += [] if stage.pretrain == other.pretrain else [""]  # counts as one
        if best is None or len(changes) < len(best.changes):
            best = _Neighbour(other, changes)
    return _Neighbour(best.stage, [change for change in best.changes if change]) if best else None


def _facts(stage: PlannedStage, parts: dict[str, Any]) -> dict[str, Any]:
    """Returns what an identity depends on, by path; its pretrain aside."""
    unimportant = tuple(f".{name}" for name in parts["not_identity"])
    kept = {
        path: value
        for path, value in flatten(stage.config).items()
        if not any(path == name or path.startswith(f"{name}.") for name in NOT_IDENTITY)
        and not (path.startswith("data.") and path.endswith(unimportant))
    }
    source = parts["pretrain"] or {"layers": 0}
    kept["pretrain.layers"] = source["layers"]
    if "sha256" in source:
        kept["content of pretrain.checkpoint"] = source["sha256"]
    sources = {f"source of {name}": digest[:12] for name, digest in parts["sources"].items()}
    others = {"content of the data": "data", "results version": "results_version", "threads": "threads"}
    return kept | sources | {name: parts[key] for name, key in others.items()}


def _changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    missing = object()
    paths = dict.fromkeys([*now, *before])
    return [
        f"{path}: {_show(before, path)} -> {_show(now, path)}"
        for path in paths
        if str(before.get(path, missing)) != str(now.get(path, missing))
    ]


def _show(facts: dict[str, Any], path: str) -> str:
    return f"{facts[path]}" if path in facts else "—"
