"""Tables for the terminal: finished runs, layers, plugins."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlkit.errors import UserError
from tlkit.experiment import Stage
from tlkit.layers import groups_of, is_frozen, layers_of, network_of, parameter_count, select
from tlkit.result import draw_curves
from tlkit.runs import RESULT, read_result
from tlkit.stage_check import check
from tlkit.stage_cli import StageCLI


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints columns, the first flush left, the others flush right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    for number, row in enumerate(table):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("  ".join("-" * width for width in widths))


def print_runs(paths: Sequence[Path]) -> None:
    """Prints one row per finished run: what it started from, the test metric, seconds, trainable parameters."""
    results = [read_result(path) for path in paths]
    names = list(dict.fromkeys(result["metric"]["name"].partition("/")[2] for result in results))
    rows = []
    for path, result in zip(paths, results, strict=True):
        metrics = result["metrics"]
        values = [_number(metrics.get(f"{part}/{name}")) for name in names for part in ("val", "test")]
        seconds = f"{result['seconds']['fit']:.0f}"
        rows.append([_label(result), *values, seconds, f"{result['parameters']['trainable']:,}", str(path)])
    header = ["", *(f"{part}/{name}" for name in names for part in ("val", "test")), "seconds", "trainable", "run"]
    print()
    print_table(header, rows)


def compare_runs(args: Sequence[str]) -> None:
    """Prints finished runs as one table and draws their curves into ``compare.png`` beside the last of them.

    Args:
        args: run directories.

    Raises:
        UserError: no directory, or none with a finished run; unfinished ones are named and left out.
    """
    if not args:
        raise UserError("compare: expected one or more run directories: tlkit compare runs/x/transfer-0a1b2c3d …")
    given = [Path(arg) for arg in args]
    paths = [path for path in given if (path / RESULT).exists()]
    for path in given:
        if path not in paths:
            print(f"left out, there is no finished run in it: {path}")
    if not paths:
        raise UserError("compare: expected at least one finished run, got none")
    print_runs(paths)
    histories: dict[str, list[dict[str, float]]] = {}
    for path in paths:
        label = _label(read_result(path))
        histories[label if label not in histories else f"{label} ({path.name})"] = _history(path)
    picture = paths[-1] / "compare.png"
    draw_curves(picture, histories, read_result(paths[-1])["metric"]["name"])
    print(f"\ncurves: {picture}")


def print_layers(stage: Stage) -> None:
    """Prints a network's layers in order: parameters, output, what is transferred and frozen, at which rate."""
    check(stage, with_data=False)
    cli = StageCLI(stage.config)
    cli.build()
    network = network_of(cli.model)
    transferred = set(select(network, stage.layers))
    frozen = {name for callback in cli.callbacks for name in getattr(callback, "frozen", lambda _: ())(cli.model)}
    shapes = _output_shapes(network, cli.datamodule)
    rates = _rates(cli)
    rows = [
        [
            name,
            f"{parameter_count(network, layer):,}",
            shapes.get(name, "?"),
            "yes" if name in transferred else "",
            "yes" if name in frozen or is_frozen(network, layer) else "",
            "0" if name in frozen else rates.get(name, "?"),
        ]
        for name, layer in layers_of(network).items()
    ]
    print_table(["layer", "parameters", "output", "transferred", "frozen", "rate"], rows)
    total = sum(p.numel() for p in network.parameters())
    print(f"\n{len(rows)} layers, {total:,} parameters; groups: {', '.join(groups_of(network)) or 'none'}")


def _label(result: dict[str, Any]) -> str:
    if result["stage"] == "pretrain":
        return "pretrain"
    return f"transferred, {len(result['pretrain']['layers'])} layers" if result["pretrain"] else "from scratch"


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


def _history(path: Path) -> list[dict[str, float]]:
    with (path / "metrics.csv").open(newline="") as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def _output_shapes(network: nn.Module, data: Any) -> dict[str, str]:
    """Returns layer -> shape of its output for one image, in evaluation mode."""
    shapes: dict[str, str] = {}
    handles = []
    for name, layer in layers_of(network).items():

        def keep(module: nn.Module, inputs: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor):
                shapes[name] = "×".join(map(str, output.shape[1:]))

        handles += [network.get_submodule(path).register_forward_hook(keep) for path in layer.modules]
    try:
        with torch.no_grad():
            network.eval()(_example(network, data))
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _example(network: nn.Module, data: Any) -> Tensor:
    """Returns one input: zeros where the size is known, else the first test image."""
    size = getattr(network, "image_size", None) or getattr(data, "image_size", None)
    if size:
        return torch.zeros(1, data.network_arguments()["in_channels"], size, size)
    example: Tensor = data.convert(data.read(next(iter(data.rows("test").values()))[:1])).input
    return example


def _rates(cli: StageCLI) -> dict[str, str]:
    optimizer = cli.model.configure_optimizers()
    groups = getattr(optimizer, "param_groups", [])
    return {group["layer"]: f"{group['lr']:g}" for group in groups if "layer" in group}
