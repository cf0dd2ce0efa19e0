r"""What does a protocol gain over training from scratch? All tuned alike, over seeds and splits, with intervals.

    python benchmarks/replicates.py configs/alexnet_fashion.yaml --splits 0 1 2 3 --rates 0.001 0.003 0.01
    python benchmarks/replicates.py configs/protocols/common_practice.yaml --output protocols --splits 0 1 \
        --rates 0.003 0.01 --protocol "EMA=--config configs/protocols/ema.yaml"
    python benchmarks/replicates.py configs/hrtem_restoration.yaml --seeds 0 1 2 3 --rates 0.001 0.003 0.01

Every rate is tried for each protocol; of those at which no run diverges, the one with the best mean validation metric
is taken, and its test metrics are compared in pairs of one seed and split. More protocols:
``--protocol "frozen 5=--trainer.callbacks [...]"``.
Finished runs are found by identity and not run again, so the script can be interrupted.
The tables go to benchmarks/results/<config>.md.
"""

import argparse
import datetime
import itertools
import platform
import shlex
import sys
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from scipy import stats

from tlkit import runs
from tlkit.commands import load_experiment
from tlkit.errors import NonFinite
from tlkit.experiment import plan
from tlkit.stage_run import run

RESULTS = Path(__file__).parent / "results"
Key = tuple[str, float | None, int, int | None]  # protocol, rate, seed, split
Table = dict[Key, dict[str, Any]]
DIVERGED: dict[str, Any] = {}
SCRATCH, TRANSFER = "from scratch", "transferred"


def main() -> None:
    """Runs what is missing and writes the tables."""
    arguments = parsed()
    protocols = {SCRATCH: ["--pretrain.layers", "0"], TRANSFER: []}
    protocols |= {name: shlex.split(words) for name, _, words in (text.partition("=") for text in arguments.protocol)}
    table: Table = {}
    factors = (arguments.seeds, arguments.splits or [None], arguments.rates or [None], protocols)
    for seed, split, rate, protocol in itertools.product(*factors):
        try:
            table[protocol, rate, seed, split] = result(arguments, protocols[protocol], rate, seed, split)
        except NonFinite:
            table[protocol, rate, seed, split] = DIVERGED
    text = report(arguments, protocols, table)
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{arguments.output or arguments.config.stem}.md").write_text(text)


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--splits", type=int, nargs="+")
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--protocol", action="append", default=[], help="NAME=OPTIONS of tlkit fit")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--output", help="name of the table; that of the configuration by default")
    return parser.parse_args()


def result(
    arguments: argparse.Namespace, options: list[str], rate: float | None, seed: int, split: int | None
) -> dict[str, Any]:
    """Returns the result of one run, found or trained."""
    words = ["--config", str(arguments.config), "--runs", arguments.runs, "--seed_everything", str(seed)]
    words += ["--name", f"{arguments.config.stem}-replicates", *options]
    words += ["--data.split", str(split)] if split is not None else []
    words += ["--model.optimizer.lr", str(rate)] if rate is not None else []
    stage = plan(load_experiment(words))
    return (runs.find_finished(stage.root, stage.name, stage.id) or run(stage)).result()


def report(arguments: argparse.Namespace, protocols: dict[str, list[str]], table: Table) -> str:
    """Returns the comparison as Markdown."""
    name = next(entry for entry in table.values() if entry)["metric"]["name"].partition("/")[2]
    best = {protocol: tuned(table, protocol) for protocol in protocols}
    chosen = {protocol: pairs(table, protocol, best[protocol], f"test/{name}") for protocol in protocols}
    lines = [
        f"# {arguments.config.name}: protocols against training from scratch",
        "",
        f"    python benchmarks/replicates.py {shlex.join(sys.argv[1:])}",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {torch.get_num_threads()} thread(s), no GPU. Test {name}; the "
        "rate of each protocol is the one with the best mean validation metric; gains are paired by seed and split.",
        "",
        f"| protocol | options | rate | test {name} | gain over scratch |",
        "|---|---|---|---|---|",
    ]
    for protocol, options in protocols.items():
        gain = [value - chosen[SCRATCH][key] for key, value in chosen[protocol].items()]
        shown = "—" if protocol == SCRATCH else interval(gain)
        values = interval(list(chosen[protocol].values()))
        lines.append(
            f"| {protocol} | `{' '.join(options)}` | {best[protocol] or 'as configured'} | {values} | {shown} |"
        )
    if arguments.splits:
        gain = split_means(chosen[TRANSFER], chosen[SCRATCH])
        lines += ["", f"Gain of {TRANSFER} with the split as the unit: {interval(gain)}."]
    lines += ["", f"| seed | split | {' | '.join(protocols)} |", "|---" * (2 + len(protocols)) + "|"]
    for seed, split in chosen[SCRATCH]:
        values = " | ".join(f"{chosen[protocol][seed, split]:.3f}" for protocol in protocols)
        lines.append(f"| {seed} | {'—' if split is None else split} | {values} |")
    return "\n".join([*lines, *domains(table, best[TRANSFER], name), ""])


def pairs(table: Table, protocol: str, rate: float | None, metric: str) -> dict[tuple[int, int | None], float]:
    """Returns (seed, split) -> metric of a protocol at a rate."""
    return {key[2:]: entry["metrics"][metric] for key, entry in table.items() if key[:2] == (protocol, rate)}


def split_means(one: dict[tuple[int, int | None], float], other: dict[tuple[int, int | None], float]) -> list[float]:
    """Returns the mean difference of each split."""
    splits = dict.fromkeys(split for _, split in one)
    return [mean(one[key] - other[key] for key in one if key[1] == split) for split in splits]


def tuned(table: Table, protocol: str) -> float | None:
    """Returns the rate with the best mean validation metric, of those at which no run diverged."""
    scores: dict[float | None, list[float]] = {}
    bad = {rate for (kind, rate, *_), entry in table.items() if kind == protocol and not entry}
    for (kind, rate, *_), entry in table.items():
        if kind == protocol and rate not in bad:
            sign = 1 if entry["metric"]["mode"] == "max" else -1
            scores.setdefault(rate, []).append(sign * entry["metric"]["best"])
    return max(scores, key=lambda rate: mean(scores[rate]))


def domains(table: Table, rate: float | None, name: str) -> list[str]:
    """Returns a table of every domain before and after the transfer, where there are several."""
    metrics = [entry["metrics"] for key, entry in table.items() if key[:2] == (TRANSFER, rate)]
    names = [key.removeprefix(f"test/{name}/") for key in metrics[0] if key.startswith(f"test/{name}/")]
    rows = ["", f"| domain | {name} before the transfer | after | change |", "|---|---|---|---|"] if names else []
    for domain in names:
        before = [one[f"before/{name}/{domain}"] for one in metrics]
        after = [one[f"test/{name}/{domain}"] for one in metrics]
        change = [b - a for a, b in zip(before, after, strict=True)]
        rows.append(f"| {domain} | {interval(before)} | {interval(after)} | {interval(change)} |")
    return rows


def interval(values: list[float]) -> str:
    """Returns the mean and the half width of its 95 % t-interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values) if len(values) > 1 else float("nan")
    return f"{mean(values):.3f} ± {half:.3f} (n = {len(values)})"


if __name__ == "__main__":
    main()
