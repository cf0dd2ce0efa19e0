"""An experiment as a chain of stages: what each is, what it starts from, what it is called."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from tlkit.complete import complete, data_facts
from tlkit.errors import UserError
from tlkit.identity import canonical_hash, file_hash, ingredients
from tlkit.paths import Config, override, spelled_out
from tlkit.stage_cli import parse
from tlkit.weights import checkpoint_file

NO_PRETRAIN: Config = {"layers": 0, "checkpoint": None, "reuse": True, "with": None}

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """One stage, resolved.

    Attributes:
        name: ``pretrain`` or ``transfer``; what its directory is called.
        config: the whole configuration, with what the data dictate to the network filled in.
        pretrain: the stage whose layers it starts from; None if there is none or the weights come from a file.
        checkpoint: file of external weights; None if there is none.
        id: identity, sha256 in hex.
        parts: what its identity depends on beside configuration and seed, by name; and, as ``not_identity``, the
            arguments of the data that it does not depend on.
    """

    name: str
    config: Config
    pretrain: "Stage | None"
    checkpoint: Path | None
    id: str
    parts: Mapping[str, Any]

    @property
    def experiment(self) -> str:
        """Name of the experiment it belongs to."""
        return str(self.config["name"] or "experiment")

    @property
    def root(self) -> Path:
        """Directory of all runs."""
        return Path(self.config["runs"])

    @property
    def seed(self) -> int:
        """What everything random starts from."""
        return int(self.config["seed_everything"])

    @property
    def layers(self) -> Any:
        """What is copied from the pretrain, as written; 0 for nothing."""
        return self.config["pretrain"]["layers"]

    def chain(self) -> list["Stage"]:
        """Returns this stage and those before it, the first one first."""
        return [*(self.pretrain.chain() if self.pretrain else []), self]


def plan(config: Config, name: str = "transfer") -> Stage:
    """Returns the stage that a resolved configuration describes, with the stages it starts from.

    Raises:
        UserError: an override that leads nowhere, a pretrain without a source, or data that are not there.
    """
    return Planner().stage(config, name)


@dataclass
class Planner:
    """Plans stages, and remembers what it has worked out.

    A stage takes 0.1 s by itself. The sections of a configuration (model, data, trainer, pretrain) are parsed
    independently of each other, and what data dictate to a network depends on these two alone; so few things differ
    between the stages of a study, and each is worked out once.
    """

    _parsed: dict[tuple[str, str], Any] = field(default_factory=dict)
    _completed: dict[str, Config] = field(default_factory=dict)
    _data: dict[str, tuple[str | None, tuple[str, ...]]] = field(default_factory=dict)
    _checkpoints: dict[str, str] = field(default_factory=dict)
    _stages: dict[str, Stage] = field(default_factory=dict)

    def stage(self, config: Config, name: str = "transfer") -> Stage:
        """Returns the stage of a resolved configuration; the same object for the same configuration.

        Raises:
            UserError: see `plan`.
        """
        seed = config["seed_everything"]
        if isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise UserError(
                "seed_everything: expected a number from 0 to 4294967295, so that the run can be repeated, got "
                f"{seed}; 0 is the default"
            )
        config = self._complete(config)
        return _once(self._stages, name + _key(config), lambda: self._stage(config, name))

    def anew(self) -> "Planner":
        """Returns one that remembers what configurations mean, but looks at data and checkpoint files again."""
        return Planner(self._parsed, self._completed)

    def parse(self, config: Config) -> Config:
        """Returns a configuration with overrides checked and defaults filled in, section by section."""
        keys = {section: (section, _key(value)) for section, value in config.items()}
        if any(key not in self._parsed for key in keys.values()):
            for section, value in parse(config).items():
                self._parsed[section, _key(config.get(section))] = value
        return {section: self._parsed[key] for section, key in keys.items()}

    def _complete(self, config: Config) -> Config:
        model = config["model"].get("init_args")
        concerned = {name: model[name] for name in ("network", "optimizer") if name in (model or {})}
        if concerned.get("optimizer") is not None:
            del concerned["optimizer"]
        narrow = {"model": {**config["model"], "init_args": concerned}, "data": config.get("data")}
        done = _once(self._completed, _key(narrow), lambda: complete(narrow))
        filled = {**config["model"], "init_args": model | done["model"]["init_args"]} if model else config["model"]
        return {**config, "model": filled, "data": done["data"]} if "data" in config else {**config, "model": filled}

    def _stage(self, config: Config, name: str) -> Stage:
        section = config["pretrain"]
        wanted = section["layers"] not in (0, [], "0")
        checkpoint = checkpoint_file(Path(section["checkpoint"])) if wanted and section["checkpoint"] else None
        pretrain = self.stage(self._pretrain(config), "pretrain") if wanted and not checkpoint else None
        source: dict[str, Any] | None = None
        if pretrain:
            source = {"layers": section["layers"], "id": pretrain.id}
        elif checkpoint:
            digest = _once(self._checkpoints, str(checkpoint), lambda: file_hash(checkpoint))
            source = {"layers": section["layers"], "sha256": digest}
        fingerprint, not_identity = _once(self._data, _key(config.get("data")), lambda: data_facts(config))
        counted = ingredients(
            config,
            data_fingerprint=fingerprint,
            data_not_identity=not_identity,
            pretrain=source,
            seed=int(config["seed_everything"]),
        )
        parts = {key: value for key, value in counted.items() if key not in ("config", "seed")}
        parts["not_identity"] = sorted(not_identity)
        return Stage(name, config, pretrain, checkpoint, canonical_hash(counted), parts)

    def _pretrain(self, config: Config) -> Config:
        changes = config["pretrain"]["with"]
        if not changes:
            raise UserError(
                f"pretrain.layers is {config['pretrain']['layers']}: expected pretrain.with (what differs in the "
                "pretrain stage) or pretrain.checkpoint (weights from elsewhere), got neither; pretrain.layers: 0 "
                "trains from scratch"
            )
        base = {**config, "pretrain": dict(NO_PRETRAIN), "ckpt_path": None}
        base["trainer"] = {**config["trainer"], "callbacks": []}
        try:
            return self.parse(override(base, spelled_out(base, changes)))
        except UserError as error:
            raise UserError(f"pretrain.with: {error}") from error


def config_yaml(stage: Stage) -> str:
    """Returns the stage's resolved configuration as YAML; ``tlkit fit --config`` on it repeats the run."""
    config = {key: value for key, value in stage.config.items() if key != "ckpt_path"}
    header = f"# {stage.name} stage {stage.id[:8]}, all defaults filled in\n"
    return header + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _once(known: dict[str, T], key: str, make: Callable[[], T]) -> T:
    if key not in known:
        known[key] = make()
    return known[key]


def _key(value: Any) -> str:
    return json.dumps(value)
