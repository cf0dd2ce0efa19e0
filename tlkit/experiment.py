"""An experiment as a chain of stages: what each is, what it starts from, what it is called."""

import inspect
import logging
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from jsonargparse._util import import_object
from lightning.pytorch import LightningDataModule

from tlkit.errors import UserError
from tlkit.identity import file_hash, identity
from tlkit.paths import Config, override, spelled_out
from tlkit.stage_cli import parse
from tlkit.weights import checkpoint_file

log = logging.getLogger("tlkit")

NO_PRETRAIN: Config = {"layers": 0, "checkpoint": None, "reuse": True, "with": None}


@dataclass(frozen=True)
class Stage:
    """One stage, resolved.

    Attributes:
        name: ``pretrain`` or ``transfer``; what its directory is called.
        config: the whole configuration, with what the data dictate to the network filled in.
        pretrain: the stage whose layers it starts from; None if there is none or the weights come from a file.
        checkpoint: file of external weights; None if there is none.
        id: identity, sha256 in hex.
    """

    name: str
    config: Config
    pretrain: "Stage | None"
    checkpoint: Path | None
    id: str

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
    config = _with_seed(_complete(config))
    section = config["pretrain"]
    wanted = section["layers"] not in (0, [], "0")
    checkpoint = checkpoint_file(Path(section["checkpoint"])) if wanted and section["checkpoint"] else None
    pretrain = plan(_pretrain_config(config), "pretrain") if wanted and not checkpoint else None
    source: Mapping[str, Any] | None = None
    if pretrain:
        source = {"layers": section["layers"], "id": pretrain.id}
    elif checkpoint:
        source = {"layers": section["layers"], "sha256": file_hash(checkpoint)}
    data = _data_module(config)
    return Stage(
        name=name,
        config=config,
        pretrain=pretrain,
        checkpoint=checkpoint,
        id=identity(
            config,
            data_fingerprint=_fingerprint(data),
            data_not_identity=getattr(data, "not_identity", ()),
            pretrain=source,
            seed=int(config["seed_everything"]),
        ),
    )


def config_yaml(stage: Stage) -> str:
    """Returns the stage's resolved configuration as YAML; ``tlkit fit --config`` on it repeats the run."""
    config = {key: value for key, value in stage.config.items() if key != "ckpt_path"}
    header = f"# {stage.name} stage {stage.id[:8]}, all defaults filled in\n"
    return header + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def _with_seed(config: Config) -> Config:
    seed = config["seed_everything"]
    if isinstance(seed, bool):
        raise UserError(
            f"seed_everything: expected a number, so that the run can be repeated, got {seed}; 0 is the default"
        )
    return config


def _pretrain_config(config: Config) -> Config:
    changes = config["pretrain"]["with"]
    if not changes:
        raise UserError(
            f"pretrain.layers is {config['pretrain']['layers']}: expected pretrain.with (what differs in the pretrain "
            "stage) or pretrain.checkpoint (weights from elsewhere), got neither; pretrain.layers: 0 trains from "
            "scratch"
        )
    base = deepcopy(config)
    base["pretrain"], base["ckpt_path"] = dict(NO_PRETRAIN), None
    base["trainer"]["callbacks"] = []
    try:
        return parse(override(base, spelled_out(base, changes)))
    except UserError as error:
        raise UserError(f"pretrain.with: {error}") from error


def _complete(config: Config) -> Config:
    """Fills in the task's optimizer, and what network and data must agree on: image size, channels, classes."""
    config = deepcopy(config)
    model = config["model"].get("init_args") or {}
    if "optimizer" in model and model["optimizer"] is None:
        model["optimizer"] = deepcopy(getattr(import_object(config["model"]["class_path"]), "default_optimizer", None))
    network = _network_section(config)
    data = config.get("data")
    if network and data and "image_size" in network["init_args"]:
        arguments = data.setdefault("init_args", {})
        if "image_size" in arguments and arguments["image_size"] is None:
            arguments["image_size"] = network["init_args"]["image_size"]
    module = _data_module(config)
    dictated: Mapping[str, Any] = getattr(module, "network_arguments", dict)()
    if network:
        accepted = inspect.signature(import_object(network["class_path"])).parameters
        for key, value in dictated.items():
            if key in accepted and network["init_args"].get(key) != value:
                log.debug("network.%s: %s, as the data have it", key, value)
                network["init_args"][key] = value
    return config


def _network_section(config: Config) -> Config | None:
    section = (config["model"].get("init_args") or {}).get("network")
    if not isinstance(section, dict) or "class_path" not in section:
        return None
    section.setdefault("init_args", {})
    return section


def _data_module(config: Config) -> LightningDataModule | None:
    if not config.get("data"):
        return None
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--data", type=LightningDataModule)
    module: LightningDataModule = parser.instantiate(parser.parse_object({"data": config["data"]})).data
    return module


def _fingerprint(data: LightningDataModule | None) -> str | None:
    if data is None or not hasattr(data, "fingerprint"):
        log.warning("these data have no fingerprint: a finished run is found again even if their files have changed")
        return None
    fingerprint: str = data.fingerprint()
    return fingerprint
