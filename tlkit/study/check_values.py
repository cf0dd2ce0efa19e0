"""What the classes that an experiment names refuse in a study's levels: each is tried beside what is accepted."""

import random
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlkit.errors import Unavailable, UserError, behind, mistake_behind
from tlkit.experiment import Planner, Stage
from tlkit.identity import class_paths
from tlkit.paths import Config, with_overrides
from tlkit.stage_check import check
from tlkit.study.cells import Cell, has, with_context, without
from tlkit.study.check import Told, told_of
from tlkit.study.spec import Factor, Level, Study
from tlkit.yaml_lines import Fault

SAMPLE = 20
"""Combinations of which one is expected to be accepted."""


def value_faults(study: Study, cells: list[Cell], base: Config, planner: Planner, exact: bool = True) -> Told:
    """Returns what the classes themselves refuse in a level.

    Each level is tried beside levels that are accepted, so that a fault is told where it is: within the combination
    nearest to one of the study's that nothing refuses.

    Args:
        study: as written, without the levels that are known to be faulty.
        cells: its combinations.
        base: the experiment.
        planner: of its stages.
        exact: whether the study has all these combinations; if not, a level is told only if nothing accepts it.
    """
    if not cells:
        return []
    trial = _Trial(base, planner)
    some = [*cells[:1], *random.Random(0).sample(cells, min(SAMPLE, len(cells)))]
    accepted = next((cell for cell in some if not trial.refusal(cell)), None)
    if accepted is None:
        always, others = _always_refused(study, some[0], trial)
        more = bool(always) and bool(others.factors)  # none: a path is set twice, which has been told
        return always + (value_faults(others, without(cells, others), base, planner, exact) if more else [])
    found: Told = []
    told: list[Factor] = []
    refused: list[Level] = []
    for factor, level, cell in with_context(study, cells, accepted):
        if factor in told or any(has(cell, other) for other in refused):
            continue
        if refusal := trial.refusal(cell, built=factor.role != "replicates"):  # seeds and splits make no other network
            if not exact and any(not trial.refusal(other) for other in _some(cells, level)):
                continue
            found += told_of(factor, level, refusal, level.line)
            told += [factor] * bool(factor.ranges)
            refused.append(level)
    return found


def _some(cells: list[Cell], level: Level) -> list[Cell]:
    having = [cell for cell in cells if has(cell, level)]
    return random.Random(0).sample(having, min(SAMPLE, len(having)))


class _Trial:
    """Tries combinations, each network once."""

    def __init__(self, base: Config, planner: Planner) -> None:
        self.base, self.planner = base, planner
        self.refusals: dict[str, str] = {}

    def refusal(self, cell: Cell, built: bool = True) -> str:
        """Returns why a combination is refused; empty: it is not."""
        try:
            stage = resolve(self.base, cell, self.planner)
        except Unavailable:
            return ""  # a login node has no GPU; the machine that trains is asked again
        except UserError as error:
            return str(error)
        both = (stage, *([stage.pretrain] if stage.pretrain else [])) if built else ()
        return next((refusal for one in both if (refusal := self._built(one))), "")

    def _built(self, stage: Stage) -> str:
        if stage.id not in self.refusals:
            self.refusals[stage.id] = ""
            try:
                _build(stage)
            except Unavailable:
                pass
            except UserError as error:
                self.refusals[stage.id] = str(error)
        return self.refusals[stage.id]


def _always_refused(study: Study, cell: Cell, trial: _Trial) -> tuple[Told, Study]:
    """Returns the faults of factors at which a combination begins to be refused, and the study without them.

    They are added one by one, those that are the same in all runs first.
    """
    found: Told = []
    kept: list[Factor] = []
    overrides: dict[str, Any] = {}
    if refusal := trial.refusal(Cell({}, {})):  # the base as parsed has words and numbers that are fixed in it
        fixed = [factor.levels[0] for factor in study.factors if factor.role == "fixed"]
        where = Fault(fixed[0].line, "base, fixed", refusal) if fixed else Fault(1, "base", refusal)
        levels = [level for factor in study.factors for level in factor.levels]
        return [(level, where) for level in levels or [Level({}, {})]], replace(study, factors=())
    for factor in sorted(study.factors, key=lambda factor: factor.role != "fixed"):
        mine = [level for level in factor.levels if level.overrides.items() <= cell.overrides.items()]
        added = {path: value for level in mine for path, value in level.overrides.items()}
        if not trial.refusal(Cell({}, overrides | added)):
            overrides |= added
            kept.append(factor)
            continue
        for level in mine if factor.ranges else factor.levels:
            if refusal := trial.refusal(Cell({}, overrides | level.overrides)):
                found += told_of(factor, level, refusal, level.line)
    return found, replace(study, factors=tuple(kept))


def _build(stage: Stage) -> None:
    """Builds network and callbacks of a stage, without its data: do the layers that it names exist?"""
    with _mistakes_of_classes(stage.config):
        check(replace(stage, pretrain=None, checkpoint=None), with_data=False)


def resolve(base: Config, cell: Cell, planner: Planner) -> Stage:
    """Returns the stage of a combination.

    Raises:
        UserError: what it is refused for, whoever refuses it.
    """
    config = with_overrides(base, cell.overrides)
    with _mistakes_of_classes(config):
        return planner.stage(planner.parse(config))


@contextmanager
def _mistakes_of_classes(config: Config) -> Iterator[None]:
    """Makes a `UserError` of what the constructor of a class that a configuration names raises, whatever that is."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        mistake = mistake_behind(error) or _constructors(error, config)
        if mistake is None:
            raise
        raise mistake from error


def _constructors(error: Exception, config: Config) -> UserError | None:
    """Returns what is to be told of an error in the constructor of a class that a configuration names."""
    names = {path.rpartition(".")[2] for path in class_paths(config)}
    for one in behind(error):
        for frame, line in reversed(list(traceback.walk_tb(one.__traceback__))):
            name = type(frame.f_locals.get("self")).__name__
            if frame.f_code.co_name == "__init__" and name in names:
                what = "".join(traceback.format_exception_only(one)).strip()
                return UserError(f"{name} cannot be made: {what} ({Path(frame.f_code.co_filename).name}, line {line})")
    return None
