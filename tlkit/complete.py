"""What an experiment's YAML leaves open, and what its data say of themselves."""

import inspect
import logging
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from jsonargparse import ArgumentParser
from jsonargparse._util import import_object
from lightning.pytorch import LightningDataModule

from tlkit.paths import Config

log = logging.getLogger("tlkit")


def complete(config: Config) -> Config:
    """Returns a configuration with the task's optimizer and what network and data must agree on filled in.

    That is image size, channels and classes.
    """
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


def data_facts(config: Config) -> tuple[str | None, tuple[str, ...]]:
    """Returns the hash of the data's content (None: unknown) and the arguments that cannot change a result."""
    data = _data_module(config)
    not_identity = tuple(getattr(data, "not_identity", ()))
    if data is None or not hasattr(data, "fingerprint"):
        log.warning("these data have no fingerprint: a finished run is found again even if their files have changed")
        return None, not_identity
    return data.fingerprint(), not_identity


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
    module: LightningDataModule = parser.instantiate(parser.parse_object(deepcopy({"data": config["data"]}))).data
    return module
