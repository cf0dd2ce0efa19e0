"""Is the transfer better than training from scratch? Both tuned alike, over seeds and splits, with an interval.

    python benchmarks/replicates.py configs/alexnet_fashion.yaml --seeds 0 1 2 --splits 0 1 2 3 --rates 0.003 0.01 0.03
    python benchmarks/replicates.py configs/hrtem_restoration.yaml --seeds 0 1 2

Every rate is tried for both; the one with the best mean validation metric is taken, and its test metrics are compared
in pairs of one seed and split. Finished runs are found by identity and not run again, so the script can be interrupted.
The table goes to benchmarks/results/<config>.md.
"""

import argparse
import datetime
import itertools
import os
import platform
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from scipy import stats

from tlkit import runs
from tlkit.commands import load_experiment
from tlkit.experiment import plan
from tlkit.stage_run import run

RESULTS = Path(__file__).parent / "results"
Key = tuple[str, float, int, int | None]


def main() -> None:
    """Runs what is missing and writes the table."""
    arguments = parsed()
    table: dict[Key, dict[str, Any]] = {}
    splits = arguments.splits or [None]
    for seed, split, rate, variant in itertools.product(
        arguments.seeds, splits, arguments.rates or [None], ("transfer", "scratch")
    ):
        table[variant, rate, seed, split] = result(arguments, variant, rate, seed, split)
    text = report(arguments, table)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.config.stem}.md").write_text(text)


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--splits", type=int, nargs="+")
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--runs", default="runs")
    return parser.parse_args()


def result(
    arguments: argparse.Namespace, variant: str, rate: float | None, seed: int, split: int | None
) -> dict[str, Any]:
    """Returns the result of one run, found or trained."""
    words = ["--config", str(arguments.config), "--runs", arguments.runs, "--seed_everything", str(seed)]
    words += ["--name", f"{arguments.config.stem}-replicates"]
    words += ["--data.split", str(split)] if split is not None else []
    words += ["--model.optimizer.lr", str(rate)] if rate is not None else []
    words += ["--pretrain.layers", "0"] if variant == "scratch" else []
    stage = plan(load_experiment(words))
    found = runs.find_finished(stage.root, stage.name, stage.id) or run(stage)
    return found.result()


def report(arguments: argparse.Namespace, table: dict[Key, dict[str, Any]]) -> str:
    """Returns the comparison as Markdown."""
    name = next(iter(table.values()))["metric"]["name"].partition("/")[2]
    best = {variant: tuned(table, variant) for variant in ("scratch", "transfer")}
    lines = [
        f"# {arguments.config.name}: transferred against from scratch",
        "",
        f"`python benchmarks/replicates.py {arguments.config} {words(arguments)}`",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, CPU; test {name}",
        "",
        *(f"{variant}: rate {rate or 'as configured'}, chosen by validation" for variant, rate in best.items()),
        "",
        "| seed | split | before | scratch | transferred | gain |",
        "|---|---|---|---|---|---|",
    ]
    gains: dict[int | None, list[float]] = {}
    columns: dict[str, list[float]] = {"scratch": [], "transfer": [], "before": []}
    for _, rate, seed, split in (key for key in table if key[:2] == ("transfer", best["transfer"])):
        scratch = table["scratch", best["scratch"], seed, split]["metrics"][f"test/{name}"]
        metrics = table["transfer", rate, seed, split]["metrics"]
        transfer, before = metrics[f"test/{name}"], metrics.get(f"before/{name}")
        gains.setdefault(split, []).append(transfer - scratch)
        for column, value in (("scratch", scratch), ("transfer", transfer), ("before", before)):
            columns[column] += [] if value is None else [value]
        shown = "—" if before is None else f"{before:.3f}"
        lines.append(f"| {seed} | {split} | {shown} | {scratch:.3f} | {transfer:.3f} | {transfer - scratch:+.3f} |")
    lines += ["", *(f"{column}: {interval(values)}" for column, values in columns.items() if values)]
    lines += [f"gain over scratch, in pairs: {interval(list(itertools.chain(*gains.values())))}"]
    if columns["before"]:
        after_before = [b - a for a, b in zip(columns["before"], columns["transfer"], strict=True)]
        lines += [f"gain over before the transfer, in pairs: {interval(after_before)}"]
    if len(gains) > 1:
        lines += [f"gain with the split as the unit: {interval([mean(values) for values in gains.values()])}"]
    return "\n".join([*lines, *forgetting(table, best["transfer"], name), ""])


def tuned(table: dict[Key, dict[str, Any]], variant: str) -> float:
    """Returns the rate with the best mean validation metric."""
    scores: dict[float, list[float]] = {}
    for (kind, rate, *_), entry in table.items():
        if kind == variant:
            sign = 1 if entry["metric"]["mode"] == "max" else -1
            scores.setdefault(rate, []).append(sign * entry["metric"]["best"])
    return max(scores, key=lambda rate: mean(scores[rate]))


def forgetting(table: dict[Key, dict[str, Any]], rate: float, name: str) -> list[str]:
    """Returns a table of every domain before and after the transfer, where there are several."""
    chosen = [entry["metrics"] for key, entry in table.items() if key[:2] == ("transfer", rate)]
    domains = [key.removeprefix(f"test/{name}/") for key in chosen[0] if key.startswith(f"test/{name}/")]
    rows = ["", f"| domain | {name} before | after | change |", "|---|---|---|---|"] if domains else []
    for domain in domains:
        before = np.array([metrics[f"before/{name}/{domain}"] for metrics in chosen])
        after = np.array([metrics[f"test/{name}/{domain}"] for metrics in chosen])
        rows.append(f"| {domain} | {before.mean():.2f} | {after.mean():.2f} | {interval(list(after - before))} |")
    return rows


def interval(values: list[float]) -> str:
    """Returns the mean with its 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else float("nan")
    return (
        f"{mean(values):.3f}, 95 % interval {mean(values) - half:.3f} … {mean(values) + half:.3f} (n = {len(values)})"
    )


def words(arguments: argparse.Namespace) -> str:
    """Returns the options as they were given."""
    pairs = (("seeds", arguments.seeds), ("splits", arguments.splits), ("rates", arguments.rates))
    return " ".join(f"--{name} {' '.join(map(str, values))}" for name, values in pairs if values)


if __name__ == "__main__":
    main()
