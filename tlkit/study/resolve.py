"""Combinations to stages, as `tlkit.experiment.plan` does it, each section of a configuration resolved once.

A stage takes 0.1 s to resolve by itself. The sections of a configuration (model, data, trainer, pretrain) are parsed
independently of each other, and what data dictate to a network depends on these two alone; so few things differ
between the stages of a study, and each is worked out once. `tests/study/test_study_plan.py` holds it to `tlkit fit`.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from tlkit.errors import UserError
from tlkit.experiment import NO_PRETRAIN, _complete, _data_module, _fingerprint, _with_seed
from tlkit.identity import NOT_IDENTITY, RESULTS_VERSION, file_hash, identity, sources
from tlkit.paths import Config, override, spelled_out
from tlkit.stage_cli import parse
from tlkit.weights import checkpoint_file

T = TypeVar("T")


@dataclass(frozen=True)
class Resolved:
    """A stage and the one it starts from.

    Attributes:
        id: identity, sha256 in hex.
        stage: ``pretrain`` or ``transfer``.
        config: the whole configuration, as in the run directory.
        pretrain: the stage it starts from; None if there is none.
        parts: what its identity depends on beside the configuration, by name.
    """

    id: str
    stage: str
    config: Config
    pretrain: "Resolved | None"
    parts: dict[str, Any]


@dataclass
class Resolver:
    """Remembers what it has worked out."""

    _parsed: dict[tuple[str, str], Any] = field(default_factory=dict)
    _completed: dict[str, Config] = field(default_factory=dict)
    _data: dict[str, tuple[str | None, tuple[str, ...]]] = field(default_factory=dict)
    _checkpoints: dict[str, str] = field(default_factory=dict)
    _stages: dict[str, Resolved] = field(default_factory=dict)

    def stage(self, config: Config, name: str = "transfer") -> Resolved:
        """Returns the stage of a resolved configuration; the same object for the same configuration.

        Raises:
            UserError: see `tlkit.experiment.plan`.
        """
        config = self.complete(_with_seed(config))
        key = name + _key(config)
        if key not in self._stages:
            self._stages[key] = self._resolve(config, name)
        return self._stages[key]

    def parse(self, config: Config) -> Config:
        """Returns a configuration with overrides checked and defaults filled in, section by section."""
        keys = {section: (section, _key(value)) for section, value in config.items()}
        if any(key not in self._parsed for key in keys.values()):
            for section, value in parse(config).items():
                self._parsed[section, _key(config.get(section))] = value
        return {section: self._parsed[key] for section, key in keys.items()}

    def complete(self, config: Config) -> Config:
        """Returns a configuration with what network and data must agree on filled in."""
        model = config["model"].get("init_args")
        concerned = {name: model[name] for name in ("network", "optimizer") if name in (model or {})}
        if concerned.get("optimizer") is not None:
            del concerned["optimizer"]
        narrow = {"model": {**config["model"], "init_args": concerned}, "data": config.get("data")}
        done = _memo(self._completed, _key(narrow), lambda: _complete(narrow))
        filled = {**config["model"], "init_args": model | done["model"]["init_args"]} if model else config["model"]
        return {**config, "model": filled, "data": done["data"]} if "data" in config else {**config, "model": filled}

    def _resolve(self, config: Config, name: str) -> Resolved:
        section = config["pretrain"]
        wanted = section["layers"] not in (0, [], "0")
        checkpoint = section["checkpoint"] if wanted else None
        before = self.stage(self._pretrain(config), "pretrain") if wanted and not checkpoint else None
        source = None
        if before:
            source = {"layers": section["layers"], "id": before.id}
        elif checkpoint:
            file = checkpoint_file(Path(checkpoint))
            digest = _memo(self._checkpoints, str(file), lambda: file_hash(file))
            source = {"layers": section["layers"], "sha256": digest}
        fingerprint, not_identity = _memo(self._data, _key(config.get("data")), lambda: _facts(config))
        id_ = identity(
            config,
            data_fingerprint=fingerprint,
            data_not_identity=not_identity,
            pretrain=source,
            seed=int(config["seed_everything"]),
        )
        counted = {key: value for key, value in config.items() if key not in NOT_IDENTITY[""]}
        counted["trainer"] = {k: v for k, v in config["trainer"].items() if k not in NOT_IDENTITY["trainer"]}
        parts = {
            "data": fingerprint,
            "sources": sources(counted),
            "results_version": RESULTS_VERSION,
            "pretrain": source,
            "threads": torch.get_num_threads(),
            "not_identity": sorted(not_identity),
        }
        return Resolved(id_, name, config, before, parts)

    def _pretrain(self, config: Config) -> Config:
        changes = config["pretrain"]["with"]
        if not changes:
            raise UserError(
                f"pretrain.layers is {config['pretrain']['layers']}: expected pretrain.with (what differs in the "
                "pretrain stage) or pretrain.checkpoint (weights from elsewhere) in the base, got neither"
            )
        base = {**config, "pretrain": dict(NO_PRETRAIN), "ckpt_path": None}
        base["trainer"] = {**config["trainer"], "callbacks": []}
        try:
            return self.parse(override(base, spelled_out(base, changes)))
        except UserError as error:
            raise UserError(f"pretrain.with: {error}") from error


def _memo(known: dict[str, T], key: str, make: Callable[[], T]) -> T:
    if key not in known:
        known[key] = make()
    return known[key]


def _facts(config: Config) -> tuple[str | None, tuple[str, ...]]:
    data = _data_module(config)
    return _fingerprint(data), tuple(getattr(data, "not_identity", ()))


def _key(value: Any) -> str:
    return json.dumps(value, default=str)
