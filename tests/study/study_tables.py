"""Tables of made-up runs with known effects, shaped like the restoration and the classification study."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

SIZE = {64: 0.0020, 128: 0.0008, 256: 0.0, 512: -0.0009}
FREEZE = {"none": 0.0, "decoder": 0.0003, "encoder": 0.0015}
RATES = {("1e-4", "1e-5"): 0.0020, ("1e-4", "1e-4"): 0.0007, ("1e-3", "1e-5"): 0.0002, ("1e-3", "1e-4"): -0.0017}

RESTORATION = {
    "goal": "How do target images, freezing and rates decide the loss in a new defocus domain?",
    "metric": {"column": "loss", "mode": "min", "label": "best validation loss in the target domain (MSE)"},
    "factors": {
        "pretrain_rate": "pretrain rate",
        "transfer_rate": "transfer rate",
        "source": "source defocus (Å)",
        "target": "target defocus (Å)",
        "images": "transfer images",
        "frozen": "frozen part",
    },
    "replicate": "seed",
    "where": "target != 0",
    "pairs": [["pretrain_rate", "transfer_rate"]],
    "fixed": {"network": "U-Net", "epochs per stage": 10, "batch size": 16},
    "columns": {
        "size": "images",
        "over": ["frozen"],
        "source": "source",
        "target": "target",
        "before": "loss_before",
        "source_before": "source_loss_before",
        "source_after": "source_loss_after",
        "seconds": "seconds",
        "joules": "joules",
        "memory": "memory",
        "epochs": "epochs",
        "freeze": "frozen",
        "best_epoch_fraction": "best_epoch_fraction",
    },
}


def restoration(seed: int = 0, seeds: int = 3) -> pd.DataFrame:
    """Returns 2,400 configurations × seeds: additive effects, a domain gap and right-skewed noise."""
    rng = np.random.default_rng(seed)
    targets = [10 * d for d in range(-25, 30, 5)]
    rows = [
        (p, t, source, target, images, frozen, s)
        for (p, t), source, target, images, frozen, s in product(
            RATES, targets[3:8], targets, SIZE, FREEZE, range(seeds)
        )
        if source != target
    ]
    names = ["pretrain_rate", "transfer_rate", "source", "target", "images", "frozen", "seed"]
    table = pd.DataFrame(rows, columns=names)
    gap = (table["source"] - table["target"]).abs() / 350
    small = 1 + 3 * (table["images"] == 64)
    table["loss"] = (
        0.0140
        + table["images"].map(SIZE)
        + table["frozen"].map(FREEZE)
        + [RATES[pair] for pair in zip(table["pretrain_rate"], table["transfer_rate"], strict=True)]
        + 0.002 * gap
        + 0.0002 * (table["seed"] - 1)
        + rng.gamma(1.5, 0.0004 * small)
    )
    table["loss_before"] = table["loss"] + 0.02 * gap + rng.normal(0, 0.0005, len(table))
    table["source_loss_before"] = 0.0125 + rng.normal(0, 0.0003, len(table))
    forgotten = 0.006 * gap * (table["frozen"] != "encoder") + rng.normal(0.0005, 0.0003, len(table))
    table["source_loss_after"] = table["source_loss_before"] + forgotten
    table["epochs"] = 10
    table["seconds"] = 10 * table["frozen"].map({"none": 8.0, "decoder": 6.85, "encoder": 5.9}) + rng.normal(
        0, 1, len(table)
    )
    table["joules"] = table["seconds"] * rng.normal(250, 4, len(table))
    table["memory"] = table["frozen"].map({"none": 6.1e9, "decoder": 5.2e9, "encoder": 4.4e9})
    table["best_epoch_fraction"] = rng.choice([0.7, 0.8, 0.9, 1.0], len(table), p=[0.1, 0.2, 0.3, 0.4])
    table["run"] = [f"transfer-{number:08x}" for number in range(len(table))]
    return table


CLASSIFICATION = {
    "goal": "How many layers to transfer, for which number of examples per class?",
    "metric": {"column": "accuracy", "mode": "max", "label": "test accuracy (%)"},
    "factors": {
        "layers": "layers transferred",
        "decay": "initial decay epochs",
        "examples": "examples per class",
        "protocol": "protocol",
    },
    "replicate": "split",
    "answer": "layers",
    "columns": {
        "size": "examples",
        "over": ["layers", "decay"],
        "panel": "decay",
        "protocol": "protocol",
        "train_loss": "train_loss",
        "val_loss": "val_loss",
        "best_epoch_fraction": "fraction",
        "run": "run",
    },
    "curves": "curves.csv",
}


def classification(seed: int = 0) -> pd.DataFrame:
    """Returns layers × decay epochs × sizes × protocols × 4 splits: more layers overfit where examples are few."""
    rng = np.random.default_rng(seed)
    base = {"10": 20.0, "25": 29.0, "50": 36.0, "100": 43.0, "250": 50.0, "all": 61.0}
    rows = list(product(["4", "5", "6", "7"], ["5", "30"], base, ["best", "common", "none"], "ABCD"))
    table = pd.DataFrame(rows, columns=["layers", "decay", "examples", "protocol", "split"])
    layers, few = table["layers"].astype(int), table["examples"].isin(["10", "25", "50"])
    split = table["split"].map({"A": -0.8, "B": -0.1, "C": 0.3, "D": 0.6})
    table["accuracy"] = (
        table["examples"].map(base)
        + np.where(few & (table["decay"] == "30"), -1.2 * (layers - 5), 0.6 * (layers - 5))
        + table["protocol"].map({"best": 4.0, "common": 0.0, "none": -6.0})
        + split
        + rng.normal(0, 0.4, len(table))
    )
    table["train_loss"] = 3.2 - 0.4 * layers + rng.normal(0, 0.02, len(table))
    table["val_loss"] = 3.0 + 0.3 * layers + few + rng.normal(0, 0.02, len(table))
    table["fraction"] = rng.uniform(0.05, 0.2, len(table)).round(3)
    table["run"] = [f"run-{number}" for number in range(len(table))]
    return table


def curves(table: pd.DataFrame, epochs: int = 12) -> pd.DataFrame:
    """Returns run, epoch, value: every run of a classification table approaches its accuracy."""
    runs = table.loc[table.index.repeat(epochs), ["run", "accuracy"]].reset_index(drop=True)
    runs["epoch"] = np.tile(np.arange(1, epochs + 1), len(table))
    runs["value"] = runs["accuracy"] * (1 - np.exp(-runs["epoch"] / 3))
    return runs[["run", "epoch", "value"]]


def save(folder: Path, table: pd.DataFrame, mapping: dict[str, object]) -> tuple[Path, Path]:
    """Writes table.csv and mapping.yaml and returns their paths."""
    table.to_csv(folder / "table.csv", index=False)
    (folder / "mapping.yaml").write_text(yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True))
    return folder / "table.csv", folder / "mapping.yaml"


COMPUTE = {
    "goal": "What does freezing save, at which precision, cap and batch size?",
    "metric": {"column": "seconds", "mode": "min", "label": "seconds per run"},
    "factors": {"frozen": "frozen part", "precision": "precision", "cap": "power cap", "batch": "batch size"},
    "replicate": "repeat",
    "columns": {
        "freeze": "frozen",
        "precision": "precision",
        "cap": "cap",
        "batch_size": "batch",
        "seconds": "seconds",
        "joules": "joules",
        "memory": "memory",
        "epochs": "epochs",
    },
}


def compute(seed: int = 0) -> pd.DataFrame:
    """Returns freeze × precision × cap × batch size × 3 repeats: the published seconds per epoch at batch size 16."""
    rng = np.random.default_rng(seed)
    fp32 = {"none": (8.0, 8.75), "decoder": (6.85, 7.4), "encoder": (5.9, 6.5)}
    amp = {"none": (6.65, 7.05), "decoder": (5.9, 6.2), "encoder": (5.0, 5.2)}
    rows = list(product(fp32, ["fp32", "AMP"], ["none", "200 W"], [4, 8, 16, 32, 64], range(3)))
    table = pd.DataFrame(rows, columns=["frozen", "precision", "cap", "batch", "repeat"])
    at_16 = [(fp32 if p == "fp32" else amp)[f][c != "none"] for f, p, c in table.iloc[:, :3].itertuples(index=False)]
    table["epochs"] = 10
    table["seconds"] = 10 * np.array(at_16) * (0.7 + 4.8 / table["batch"]) * rng.normal(1, 0.01, len(table))
    table["joules"] = table["seconds"] * np.where(table["cap"] == "none", 290, 195)
    table["memory"] = 1e9 + 2.4e8 * table["batch"] * table["frozen"].map({"none": 1.0, "decoder": 0.8, "encoder": 0.6})
    return table


SCALING = {
    "goal": "How many workers, with how many threads each?",
    "metric": {"column": "wall", "mode": "min", "label": "execution time of the study (s)"},
    "factors": {"workers": "workers", "threads": "threads per worker"},
    "replicate": "repeat",
    "columns": {"workers": "workers", "threads": "threads", "wall_seconds": "wall", "utilisation": "busy"},
}


def scaling() -> pd.DataFrame:
    """Returns workers × threads × 2 repeats: 1,000 s of which 5 % do not scale with workers."""
    rows = list(product([1, 2, 4, 8], [1, 2], range(2)))
    table = pd.DataFrame(rows, columns=["workers", "threads", "repeat"])
    table["wall"] = (50 + 950 / table["workers"]) / table["threads"] ** 0.8 + table["repeat"]
    table["busy"] = 0.99 - 0.01 * table["workers"]
    return table
