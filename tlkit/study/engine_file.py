"""The file of an engine: ``parsl`` (a Parsl configuration by class path), ``runs_per_worker`` and ``worker_gib``."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse._util import import_object

from tlkit.errors import UserError
from tlkit.study.accelerators import visible

DEFAULTS: dict[str, Any] = {"runs_per_worker": 500, "worker_gib": None}
"""Limits of the workers where no file says otherwise."""
EXAMPLES = Path(__file__).parents[2] / "configs" / "engines"
"""Come with the sources, not with an installed package."""
GIB_PER_WORKER = 2.0  # torch, a small network and its data


def read(engine: Path) -> tuple[Any, dict[str, Any]]:
    """Returns the Parsl configuration of an engine's YAML, and the limits of its workers.

    Raises:
        UserError: what is wrong with the file.
    """
    from parsl.config import Config

    try:
        content = yaml.safe_load(engine.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "parsl" not in content or content.keys() - {"parsl", *DEFAULTS}:
            got = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"expected the keys parsl, {', '.join(DEFAULTS)}, got {got}")
        limits = {key: content.get(key, DEFAULTS[key]) for key in DEFAULTS}
        for key, limit in limits.items():
            if limit is not None and (type(limit) not in (int, float) or not limit > 0):
                raise ValueError(f"{key}: expected a number above 0, or null for no limit, got {limit!r}")
        config = _build(content["parsl"], "parsl")
        if not isinstance(config, Config):
            raise ValueError(f"parsl: expected class_path: parsl.config.Config, with init_args, got {config!r:.80}")
        return config, limits
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        examples = ", ".join(map(str, sorted(EXAMPLES.glob("*.yaml")))) or "configs/engines in the sources of tlkit"
        raise UserError(f"{engine}: {error}; examples: {examples}") from error


def this_machine(accelerated: bool) -> Any:
    """Returns the configuration that takes of this machine what there is, GPUs if some stage may use one."""
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor
    from parsl.providers import LocalProvider

    executor = HighThroughputExecutor(
        label="local",
        address="127.0.0.1",
        mem_per_worker=GIB_PER_WORKER,
        available_accelerators=len(visible()) if accelerated else 0,
        provider=LocalProvider(),  # type: ignore[no-untyped-call]
    )
    return Config(executors=[executor])


def _build(node: Any, where: str) -> Any:
    """Makes objects of mappings with a ``class_path``; not with jsonargparse, as Parsl does not type its launchers."""
    if isinstance(node, list):
        return [_build(item, f"{where}[{n}]") for n, item in enumerate(node)]
    if not isinstance(node, dict) or "class_path" not in node:
        return node
    given = node.get("init_args") or {}
    if node.keys() - {"class_path", "init_args"} or not isinstance(given, dict):
        raise ValueError(f"{where}: expected class_path and init_args, a mapping of all its options, got {node}")
    arguments = {key: _build(value, f"{where}.{key}") for key, value in given.items()}
    try:
        return import_object(node["class_path"])(**arguments)
    except Exception as error:  # typeguard's, an import's, whatever a constructor raises
        raise ValueError(f"{where}: {node['class_path']} cannot be made: {error}") from error
