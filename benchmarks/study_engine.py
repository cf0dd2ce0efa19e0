"""What the engine adds to the stages of a study, and for how long its workers idle.

    make bench        # 13 minutes on an idle machine; writes benchmarks/results/study_engine.md

**Overhead.** Trivial stages, each a real training: a tiny network, one epoch of one step, validation, test, checkpoints
and everything else that a stage leaves. `tlkit study run` carries them out on two workers, beside
``concurrent.futures.ProcessPoolExecutor`` with two processes that do the same with each stage
(`tlkit.study.worker.work_in_pool`). Overhead per stage is

    (seconds from handing out the first stage to the return of the last × workers − seconds at stages) / stages

where a worker is at a stage from taking it to being done with it. Importing torch, which is part of a worker's first
stage, is overhead too: the median of the other stages stands for the first. That much of the overhead is shown as
start-up, with the time until a worker takes its first stage. Jobs are calls of the provider's `submit`; imports of
torch are stages before which it had not been imported in their worker.

**Idleness.** Stages of which every fourth is ten times longer than the others (it sleeps). A worker idles when it is at
no stage, between the first stage's beginning and the moment at which the last one is taken: until then the queue is not
empty. Beside it the same engine that hands out two stages when the last two are both done, as proposals in batches do.

Arms are processes of their own; who begins alternates from round to round, and a ratio is within a round. Results and
weights of all arms must be equal to the last bit, or there is no table.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

from study_clock import WORKERS
from study_common import MALLOC, goal, header, keep, spread, write_engine
from study_race import Arm, race

OVERHEAD, JOBS, IMPORTS, IDLE = 0.1, 4, WORKERS, 0.05  # goals: seconds per stage, -, -, share
LONG_EVERY = 4
SHORT_NAP, LONG_NAP = 0.1, 5.0  # seconds; a stage does about 0.4 s of work besides


def main() -> None:
    """Measures both, prints the tables and keeps them if asked to."""
    arguments = parsed()
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        engine = write_engine(Path(folder))
        trivial = race(Path(folder) / "trivial", engine, [0.0] * arguments.stages, ("engine", "pool"), arguments.rounds)
        naps = [LONG_NAP if is_long(number) else SHORT_NAP for number in range(arguments.tasks)]
        uneven = race(Path(folder) / "uneven", engine, naps, ("engine", "batches"), arguments.rounds)
    remark = (
        f"Results and weights of all arms are equal. Medians over the rounds, in parentheses the extremes. {MALLOC}"
    )
    text = [header("Studies: overhead of the engine, idle workers", time.perf_counter() - start, remark)]
    keep("\n".join([*text, overhead_section(trivial), idle_section(uneven)]), arguments.output)


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=500, help="trivial stages")
    parser.add_argument("--tasks", type=int, default=80, help="stages of which every fourth is long")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path, help="Markdown file to be written")
    return parser.parse_args()


def overhead_section(rounds: list[dict[str, Arm]]) -> str:
    """Returns the tables of trivial stages."""
    stages = len(rounds[0]["engine"].laps)
    lines = [
        f"## {stages} trivial stages on {WORKERS} workers\n",
        "| arm | seconds in all | from the first stage to the last | seconds per stage | overhead per stage | "
        "of it start-up | jobs | workers | torch imported |",
        "|" + "---|" * 9,
    ]
    for arm in rounds[0]:
        values = [one[arm] for one in rounds]
        cells = [spread([v.seconds for v in values], 1), spread([v.window for v in values], 1)]
        cells += [spread([1000 * x for x in some], 1, " ms") for some in zip(*map(per_stage, values), strict=True)]
        cells += [" ".join(str(n) for n in dict.fromkeys(some)) for some in zip(*map(counts, values), strict=True)]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    engine, pool = ([one[arm] for one in rounds] for arm in ("engine", "pool"))
    ratios = [a.window / b.window for a, b in zip(engine, pool, strict=True)]
    lines += [f"\nengine / pool, from the first stage to the last: {spread(ratios, 3)}.\n"]
    lines += ["| goal | measured | |", "|---|---|---|"]
    lines += [goal("overhead per stage, s", median(v.overhead for v in engine), OVERHEAD, digits=3)]
    lines += [goal("jobs", max(v.jobs for v in engine), JOBS, digits=0)]
    lines += [goal(f"imports of torch, {WORKERS} workers", max(v.imports for v in engine), IMPORTS, digits=0), ""]
    return "\n".join(lines)


def per_stage(arm: Arm) -> tuple[float, float, float]:
    """Returns seconds per stage: of work, of overhead, of start-up."""
    return arm.work / len(arm.laps), arm.overhead, arm.start_up


def counts(arm: Arm) -> tuple[int, int, int]:
    """Returns jobs, workers, imports of torch."""
    return arm.jobs, len(arm.workers), arm.imports


def idle_section(rounds: list[dict[str, Arm]]) -> str:
    """Returns the tables of stages that are not equally long."""
    engine = [one["engine"] for one in rounds]
    short, long = (
        median(lap["end"] - lap["begin"] for arm in engine for n, lap in enumerate(arm.laps) if is_long(n) == wanted)
        for wanted in (False, True)
    )
    lines = [
        f"## {len(engine[0].laps)} stages on {WORKERS} workers, every {LONG_EVERY}th {long / short:.1f} times longer\n",
        f"A short stage takes {short:.2f} s, a long one {long:.2f} s.\n",
        "| arm | from the first stage to the last, s | idle until the queue is empty, percent |",
        "|---|---|---|",
    ]
    for arm in rounds[0]:
        values = [one[arm] for one in rounds]
        cells = [spread([v.window for v in values], 1), spread([100 * v.idle for v in values], 1)]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    ratios = [one["batches"].window / one["engine"].window for one in rounds]
    lines += [f"\nbatches / engine, from the first stage to the last: {spread(ratios, 2)}.\n"]
    lines += ["| goal | measured | |", "|---|---|---|"]
    lines += [goal("idle until the queue is empty", median(v.idle for v in engine), IDLE, digits=3), ""]
    return "\n".join(lines)


def is_long(number: int) -> bool:
    """Tells whether a stage is one of the long ones, by its place in the study."""
    return number % LONG_EVERY == 0


if __name__ == "__main__":
    main()
