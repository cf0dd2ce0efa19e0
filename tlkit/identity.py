"""Run identity: what a stage's result depends on, as one hash."""

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from jsonargparse._util import import_object

from tlkit.paths import Config

RESULTS_VERSION = 1
"""Raised when the same experiment gives other numbers than before, not with each release."""

OWN = ("tlkit", "tlkit_callbacks", "torch", "torchvision", "lightning", "pytorch_lightning", "builtins")

NOT_IDENTITY = {
    "": ("name", "runs", "ckpt_path", "config", "seed_everything", "pretrain"),
    "trainer": (
        "logger",
        "enable_progress_bar",
        "enable_model_summary",
        "log_every_n_steps",
        "default_root_dir",
        "profiler",
        "num_sanity_val_steps",
    ),
}
"""What cannot change the result; seed and pretrain count in a form of their own."""


def ingredients(
    config: Config,
    *,
    data_fingerprint: str | None,
    data_not_identity: Iterable[str],
    pretrain: Mapping[str, Any] | None,
    seed: int,
) -> dict[str, Any]:
    """Returns all that a stage's result depends on, by name; its canonical hash is the stage's identity.

    Args:
        config: the stage's resolved configuration.
        data_fingerprint: hash of the data's content; None: unknown.
        data_not_identity: arguments of the data module that cannot change the result, such as paths.
        pretrain: identity or content hash of the pretrain and the layers taken from it; None: from scratch.
        seed: of the stage.
    """
    kept = {key: value for key, value in config.items() if key not in NOT_IDENTITY[""]}
    kept["trainer"] = {k: v for k, v in kept.get("trainer", {}).items() if k not in NOT_IDENTITY["trainer"]}
    return {
        "config": _without(kept, frozenset(data_not_identity)),
        "data": data_fingerprint,
        "sources": sources(kept),
        "results_version": RESULTS_VERSION,
        "pretrain": pretrain,
        "seed": seed,
        "threads": torch.get_num_threads(),
    }


def canonical_hash(value: Any) -> str:
    """Returns the sha256 (hex) of canonical JSON: sorted keys, no white space."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Returns the sha256 (hex) of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sources(config: Any) -> dict[str, str]:
    """Returns class path -> hash of its source file, for each class named that is no one's but the user's."""
    found: dict[str, str] = {}
    for class_path in sorted(set(class_paths(config))):
        if class_path.partition(".")[0] in OWN:
            continue
        try:
            source = inspect.getsourcefile(import_object(class_path))
        except TypeError:  # a class of a compiled module
            source = None
        found[class_path] = file_hash(Path(source)) if source else "no source"
    return found


def _without(config: Config, data_arguments: frozenset[str]) -> Config:
    """Drops arguments of the data module, and of the data set it names, that cannot change the result."""
    data = config.get("data")
    if not isinstance(data, dict):
        return config
    return config | {"data": _drop(data, data_arguments)}


def _drop(node: Any, names: frozenset[str]) -> Any:
    if isinstance(node, dict):
        return {key: _drop(value, names) for key, value in node.items() if key not in names}
    return [_drop(item, names) for item in node] if isinstance(node, list) else node


def class_paths(node: Any) -> Iterable[str]:
    """Yields the classes that are named in a configuration."""
    if isinstance(node, dict):
        if isinstance(node.get("class_path"), str):
            yield node["class_path"]
        for value in node.values():
            yield from class_paths(value)
    elif isinstance(node, list):
        for item in node:
            yield from class_paths(item)
