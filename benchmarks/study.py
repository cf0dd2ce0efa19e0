"""A whole study by ``tlkit study run``, beside three ways of doing without.

    make bench        # 35 minutes on an idle machine; writes benchmarks/results/study.md

The study is ``configs/studies/alexnet_3_1_small.yaml``: layers transferred × images per class × splits of the classes,
with one pretrain per split. Each arm does all of it, from the start of its first process to the end of its last:

- ``engine``: ``tlkit study run``: plan, two workers, table;
- ``process_and_pretrain``: a fresh ``tlkit fit`` per run that trains its pretrain too, two at a time;
- ``process``: a fresh ``tlkit fit`` per run that finds the pretrain, two at a time;
- ``two_loops``: a loop in plain torch (``study_loop.py``) that keeps the pretrain in memory, in two processes, each
  with half of the splits; it writes no logs, curves or checkpoints but the best weights of each run;
- ``one_loop``: the same in one process, as such scripts are usually written.

A round is two splits in each arm (``--at-once``), and who begins moves on by one; a ratio is within a round. What
trains each pretrain anew takes 20 minutes and is part of the first round only. All
processes have one thread and keep the memory that they have freed (`relay.ENVIRONMENT` says why). Images are packed
beforehand. Every arm begins without any run. Test accuracy and weights of all runs must be equal to the last bit, or
there is no table.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import yaml
from study_arms import ARMS, Left, Work, left
from study_common import MALLOC, ROOT, equal, goal, header, keep, spread, write_engine
from study_parts import parts_of, parts_section, total_section

from tlkit.stage_cli import StageCLI
from tlkit.study.plan import plan_study

STUDY = ROOT / "configs" / "studies" / "alexnet_3_1_small.yaml"
GOALS = [  # arm above, arm below, bound of the ratio, whether it is a lower one
    ("process_and_pretrain", "engine", 8.0, True),
    ("process", "engine", 2.0, True),
    ("engine", "one_loop", 1.0, False),
    ("engine", "two_loops", 1.0, False),
]
SMOKE = {  # what makes it short enough for a trial
    "scientific": {"pretrain.layers": [0, 7], "data.examples_per_class": [10]},
    "fixed": {
        "trainer.max_epochs": 3,
        "pretrain.with.trainer.max_epochs": 1,
        "pretrain.with.data.examples_per_class": 60,
    },
}

ONCE = "process_and_pretrain"

Seconds = dict[str, float]


def main() -> None:
    """Measures all arms, prints the tables and keeps them if asked to."""
    arguments = parsed()
    start, rounds, parts = time.perf_counter(), [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.splits // arguments.at_once):
            splits = range(number * arguments.at_once, (number + 1) * arguments.at_once)
            work = prepared(Path(folder) / str(number), list(splits), arguments.smoke)
            rounds.append(race(work, number, [arm for arm in arguments.arms if number == 0 or arm != ONCE]))
            parts.append({arm: parts_of(work, arm) for arm in ("engine", "two_loops") if arm in arguments.arms})
    remark = (
        f"Weights and test accuracies of all arms are equal to the last bit. {arguments.splits} splits of 8. {MALLOC}"
    )
    text = [header("A whole study", time.perf_counter() - start, remark), arms_section(rounds, work)]
    if parts[0]:
        text += [total_section(rounds, parts), parts_section(parts)]
    keep("\n".join(text), arguments.output)


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=4, choices=(2, 4, 8), help="of the study's 8, the first ones")
    parser.add_argument("--at-once", type=int, default=2, choices=(2, 4, 8), help="splits per round")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS), metavar="ARM", help="only these")
    parser.add_argument("--smoke", action="store_true", help="few runs of few epochs, to try the script")
    parser.add_argument("--output", type=Path, help="Markdown file to be written")
    arguments = parser.parse_args()
    if arguments.at_once > arguments.splits:
        parser.error(f"expected at most {arguments.splits} splits at once, got {arguments.at_once}")
    return arguments


def prepared(folder: Path, splits: list[int], smoke: bool) -> Work:
    """Writes the study of one round, and packs its images if they are not.

    Args:
        folder: to be made.
        splits: of the classes.
        smoke: whether it is to be short.
    """
    folder.mkdir()
    content = yaml.safe_load(STUDY.read_text())
    content["base"] = str((STUDY.parent / content["base"]).resolve())
    content["replicates"]["data.split"] = splits
    if smoke:
        content["scientific"] = SMOKE["scientific"]
        content["fixed"] |= SMOKE["fixed"]
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(content))
    plan = plan_study(study, folder / "planned").plan
    cli = StageCLI(next(iter(plan.stages.values())).config)
    cli.build()
    cli.datamodule.prepare_data()
    return Work(folder, study, write_engine(folder), plan)


def race(work: Work, number: int, arms: Sequence[str]) -> Seconds:
    """Does the runs of a round in all ways; refuses arms that did not do the same."""
    shift = number % len(arms)
    seconds: Seconds = {}
    for arm in [*arms[shift:], *arms[:shift]]:
        seconds[arm] = ARMS[arm](work)
        print(f"round {number + 1}: {arm}: {seconds[arm]:.1f} s", flush=True)
    found = {arm: left(work, arm) for arm in arms}
    for arm, runs in found.items():
        check(arms[0], found[arms[0]], arm, runs, [stage.id for stage in work.transfers])
    return {arm: seconds[arm] for arm in arms}


def check(one: str, first: Left, other: str, second: Left, wanted: list[str]) -> None:
    """Refuses an arm that has not the same runs, accuracies and weights as another."""
    for id_ in wanted:
        assert id_ in second, f"{other} has no run {id_[:8]}"
        assert first[id_][0] == second[id_][0], f"{one} and {other} have other accuracies of {id_[:8]}"
        assert equal(first[id_][1], second[id_][1]), f"{one} and {other} have other weights of {id_[:8]}"


def arms_section(rounds: list[Seconds], work: Work) -> str:
    """Returns the tables of all arms."""
    runs, stages = len(work.transfers), len(work.plan.stages)
    lines = [
        f"## {runs} runs and {stages - runs} pretrains per round, {len(rounds)} round(s)\n",
        "| arm | seconds per round | / engine | / two_loops |",
        "|---|---|---|---|",
    ]
    for arm in rounds[0]:
        cells = [spread([one[arm] for one in rounds if arm in one], 1)]
        for other in ("engine", "two_loops"):
            cells.append(spread(ratios(rounds, arm, other), 2) if other in rounds[0] else "")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    lines += ["", "| goal | measured | |", "|---|---|---|"]
    for above, below, bound, at_least in GOALS:
        if above in rounds[0] and below in rounds[0]:
            lines.append(goal(f"{above} / {below}", median(ratios(rounds, above, below)), bound, at_least))
    return "\n".join([*lines, ""])


def ratios(rounds: list[Seconds], above: str, below: str) -> list[float]:
    """Returns the ratio of two arms' seconds in each round that has both."""
    return [one[above] / one[below] for one in rounds if above in one and below in one]


if __name__ == "__main__":
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)  # says each seed
    main()
