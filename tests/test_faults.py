"""Every kind of fault: where it is, what it is called, what may have been meant; and nothing else is a fault."""

import importlib
from abc import ABC, abstractmethod
from argparse import ArgumentError
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import torch
from jsonargparse import ActionConfigFile
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, OptimizerCallable
from torch import nn

from tlkit.faults import find_faults, report
from tlkit.faults_cli import cli_fault, schema_of
from tlkit.yaml_lines import Fault, read

# The walk looks at signatures and builds nothing.


class ToyNetwork(nn.Module, ABC):
    def __init__(self, width: float = 1.0, image_size: int = 64): ...

    @abstractmethod
    def run(self) -> None: ...


class ToyConv(ToyNetwork):
    def __init__(self, fc_width: int, init: Literal["torch", "he"] = "torch", dropout: float = 0.5, **kwargs: Any):
        super().__init__(**kwargs)

    def run(self) -> None: ...


class ToyUNet(ToyNetwork):
    def __init__(self, depth: int = 4, **kwargs: Any):
        super().__init__(**kwargs)

    def run(self) -> None: ...


class ToyPlain(nn.Module):
    def __init__(self, width: int | float = 1): ...


class Colour(Enum):
    red = 1
    green = 2


@dataclass
class ToyScale:
    mean: list[float]
    std: list[float]


class ToyRange(NamedTuple):
    low: int
    high: int = 10


class ToyModel(LightningModule):
    def __init__(
        self,
        network: ToyNetwork | nn.Module,
        optimizer: OptimizerCallable = lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        lr_scale: dict[str, float] | None = None,
        scale: ToyScale | None = None,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ): ...


class ToyImages:
    def __init__(self, size: "int" = 3): ...


class ToyBase(LightningDataModule, ABC):
    def __init__(self, batch_size: int = 64, stage: Literal["pretrain", "transfer"] = "transfer"): ...


class ToyFolder(ToyBase):
    def __init__(
        self,
        examples_per_class: int,
        images: str | ToyImages = "digits",
        augment: list[ToyNetwork] | None = None,
        crop: tuple[int, int] = (1, 1),
        colour: Colour = Colour.red,
        limits: ToyRange | None = None,
        free=None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)


def toy_data(examples: int) -> ToyFolder:
    return ToyFolder(examples)


class ToyFreezing(Callback):
    def __init__(self, layers: int | str | list[int | str], norm: Literal["eval", "train"] = "eval"): ...


@dataclass
class ToyWait:
    metric: str
    patience: int = 5


@dataclass
class ToyPhase:
    layers: int | str | list[str]
    epoch: int | None = None
    wait: ToyWait | None = None
    when: Literal["any", "all"] = "any"


class ToyThaw(Callback):
    def __init__(self, phases: list[ToyPhase] | None = None): ...


class ToyDecay(Callback):
    def __init__(self, every: int, factor: float = 0.1): ...


PRETRAIN = {
    "layers": int | str | list[int | str],
    "checkpoint": str | None,
    "reuse": bool,
    "with": dict[str, Any] | None,
}
SCHEMA = {
    "seed_everything": bool | int,
    "name": str | None,
    "model": LightningModule,
    "data": LightningDataModule,
    "trainer": Trainer,
    "pretrain": PRETRAIN,
}

VALID = """\
name: toy
seed_everything: 3
model:
  class_path: ToyModel
  init_args:
    network: {class_path: ToyConv, init_args: {fc_width: 256, width: 5e-1, init: he}}
    optimizer: {class_path: SGD, init_args: {lr: 1e-3, momentum: 0.9}}
    lr_scale: {fc8: 1.0, layer1.0: 1e-3}
    scale: {mean: [0.5], std: [1]}
data:
  class_path: test_faults.ToyFolder
  init_args:
    examples_per_class: 10
    images: {class_path: test_faults.ToyImages, init_args: {size: 4}}
    augment: [ToyUNet, {class_path: ToyUNet, init_args: {depth: 3}}]
    crop: [2, 3]
    colour: green
    limits: {low: 3}
    batch_size: '32'
    free: {anything: [1, goes]}
pretrain:
  layers: [0, conv*]
  checkpoint:
  with:
    data.stage: pretrain
    data.batch_size: 16
    model.network.width: 0.25
    trainer.max_epochs: 2
    trainer.callbacks: [{class_path: ToyDecay, init_args: {every: 4}}]
    callbacks.ToyDecay.factor: 0.5
trainer:
  max_epochs: 40
  precision: bf16-mixed
  logger: false
  callbacks:
    - {class_path: ToyFreezing, init_args: {layers: 1}}
    - {class_path: ToyDecay, init_args: {every: 30}}
    - {class_path: EarlyStopping, init_args: {monitor: val/loss, patience: 3}}
    - class_path: ModelCheckpoint
      init_args: {train_time_interval: '01:00:00'}
    - class_path: ToyThaw
      init_args:
        phases:
          - {layers: [fc]}
          - {layers: rest, epoch: 9, wait: {metric: f1}, when: all}
"""


@pytest.fixture(scope="module")
def parser() -> LightningArgumentParser:
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_argument("-c", "--config", action=ActionConfigFile)
    parser.add_argument("--seed_everything", type=bool | int, default=0)
    parser.add_argument("--name", type=str | None)
    parser.add_lightning_class_args(Trainer, "trainer")
    parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
    parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    for key, hint in PRETRAIN.items():
        parser.add_argument(f"--pretrain.{key}", type=hint, default=True if key == "reuse" else None)
    return parser


def faults_of(text: str) -> list[Fault]:
    return find_faults(text, SCHEMA, "toy.yaml", required=("model", "data"))


def changed(old: str, new: str) -> str:
    """VALID with one piece of text replaced."""
    assert VALID.count(old) == 1
    return VALID.replace(old, new)


def line_of(text: str, piece: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if piece in line)


def test_a_valid_file_has_no_faults(parser: LightningArgumentParser) -> None:
    parser.parse_string(VALID)
    assert faults_of(VALID) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("limits: {low: 3}", "limits: [3, 4]"),
        (
            "scale: {mean: [0.5], std: [1]}",
            "scale: {class_path: test_faults.ToyScale, init_args: {mean: [1], std: []}}",
        ),
        ("optimizer: {class_path: SGD, init_args: {lr: 1e-3, momentum: 0.9}}", "optimizer: Adam"),
        ("optimizer: {class_path: SGD, init_args: {lr: 1e-3, momentum: 0.9}}", "optimizer: {lr: 0.5, nesterov: true}"),
        ("optimizer: {class_path: SGD, init_args: {lr: 1e-3, momentum: 0.9}}", "optimizer: {init_args: {lr: 0.5}}"),
        ("class_path: ToyConv, init_args: {fc_width: 256, width: 5e-1, init: he}", "class_path: ToyPlain"),
        ("{class_path: ToyConv, init_args: {fc_width: 256, width: 5e-1, init: he}}", "ToyUNet"),
        ("lr_scale: {fc8: 1.0, layer1.0: 1e-3}", "loss: torch.nn.functional.mse_loss"),
        ("images: {class_path: test_faults.ToyImages, init_args: {size: 4}}", "images: letters"),
        (
            "test_faults.ToyFolder\n  init_args:\n    examples_per_class",
            "test_faults.toy_data\n  init_args:\n    examples",
        ),
        ("layers: [0, conv*]", "layers: all"),
        ("seed_everything: 3", "seed_everything: true"),
        ("max_epochs: 40", "max_time: {hours: 3}"),
        ("max_epochs: 40", "max_time: 00:12:00:00"),
        ("max_epochs: 40", "max_epochs:"),
        ("trainer:\n", "ignored: &anchor {max_epochs: 3}\ntrainer:\n  <<: *anchor\n"),
        ("init_args: {layers: 1}", "init_args: {layers: 1}, dict_kwargs: {norm: eval}"),
    ],
)
def test_whatever_the_parser_takes_is_no_fault(parser: LightningArgumentParser, old: str, new: str) -> None:
    text = changed(old, new)
    if "toy_data" in new:  # a function in place of the class: fewer arguments
        text = "".join(line for line in text.splitlines(True) if not line.startswith("    ") or "data." not in line)
        start, end = text.index("    images:"), text.index("pretrain:\n")
        text = text[:start] + text[end:]
    plain = text.replace("ignored: &anchor {max_epochs: 3}\n", "").replace("<<: *anchor", "max_epochs: 3")
    parser.parse_string(plain)
    faults = faults_of(text)
    assert [fault for fault in faults if fault.path != "ignored"] == []


@pytest.mark.parametrize(
    ("old", "new", "path", "message"),
    [
        # unknown keys
        ("name: toy", "nmae: toy", "nmae", "unknown key; did you mean 'name'? valid: seed_everything, name"),
        ("width: 5e-1", "widht: 5e-1", "model.network.widht", "unknown key; did you mean 'width'? valid: fc_width"),
        ("batch_size: '32'", "bacth_size: 32", "data.bacth_size", "unknown key; did you mean 'batch_size'?"),
        ("max_epochs: 40", "max_epoch: 40", "trainer.max_epoch", "unknown key; did you mean 'max_epochs'?"),
        ("{layers: 1}", "{layers: 1, nrom: eval}", "trainer.callbacks.ToyFreezing.nrom", "did you mean 'norm'?"),
        ("mean: [0.5]", "mean: [0.5], sdt: 2", "model.scale.sdt", "unknown key; did you mean 'std'? valid: mean, std"),
        (
            "momentum: 0.9",
            "momentm: 0.9",
            "model.optimizer.momentm",
            "unknown key; did you mean 'momentum'? valid: lr,",
        ),
        ("  layers: [0", "  reus: true\n  layers: [0", "pretrain.reus", "unknown key; did you mean 'reuse'?"),
        # beside class_path
        ("ToyConv, init_args", "ToyConv, init_arg", "model.network.init_arg", "unknown key; did you mean 'init_args'?"),
        ("{class_path: ToyFreezing,", "{class_pth: ToyFreezing,", "trainer.callbacks[0].class_pth", "'class_path'"),
        ("class_path: SGD,", "class_path: SGD, lr: 1,", "model.optimizer.lr", "it belongs under init_args"),
        # class names
        ("path: ToyFreezing", "path: ToyFreezin", "trainer.callbacks[0].class_path", "no class 'ToyFreezin'"),
        ("path: ToyFreezing", "path: ToyFreezin", "trainer.callbacks[0].class_path", "; did you mean 'ToyFreezing'?"),
        (
            "path: ToyConv",
            "path: Toyconv",
            "model.network.class_path",
            "(expected ToyNetwork); did you mean 'ToyConv'?",
        ),
        ("path: ToyConv", "path: Zzz", "model.network.class_path", "(expected ToyNetwork); valid: ToyConv, ToyUNet"),
        ("path: ToyConv", "path: ToyNetwork", "model.network.class_path", "'ToyNetwork' is abstract"),
        ("path: ToyModel", "path: ToyFolder", "model.class_path", "no class 'ToyFolder' (expected LightningModule)"),
        (
            "path: SGD",
            "path: sgd",
            "model.optimizer.class_path",
            "no class 'sgd' (expected Optimizer); did you mean 'SGD'?",
        ),
        ("path: SGD", "path: 7", "model.optimizer.class_path", "expected a class name (Optimizer), got 7"),
        ("test_faults.ToyFolder", "test_fault.ToyFolder", "data.class_path", "there is no module 'test_fault'"),
        ("test_faults.ToyFolder", "test_faults.ToyFoldre", "data.class_path", "did you mean 'test_faults.ToyFolder'?"),
        (
            "test_faults.ToyFolder",
            "torch.nn.Linear",
            "data.class_path",
            "'torch.nn.Linear' is no LightningDataModule; valid",
        ),
        # leaves
        ("fc_width: 256", "fc_width: many", "model.network.fc_width", "expected int, got 'many'"),
        ("fc_width: 256", "fc_width: 2.5", "model.network.fc_width", "expected int, got 2.5"),
        ("fc_width: 256", "fc_width: yes", "model.network.fc_width", "expected int, got true"),
        ("max_epochs: 40", "max_epochs: abc", "trainer.max_epochs", "expected int | null, got 'abc'"),
        ("init: he", "init: hee", "model.network.init", "expected 'torch' | 'he', got 'hee'; did you mean 'he'?"),
        ("colour: green", "colour: gren", "data.colour", "expected red | green, got 'gren'; did you mean 'green'?"),
        ("bf16-mixed", "bf16-mixd", "trainer.precision", "got 'bf16-mixd'; did you mean 'bf16-mixed'?"),
        (
            "logger: false",
            "logger: tensorbord",
            "trainer.logger",
            "expected Logger | iterable[Logger] | bool | null, got",
        ),
        ("fc8: 1.0", "fc8: fast", "model.lr_scale.fc8", "expected float, got 'fast'"),
        ("crop: [2, 3]", "crop: [2, x]", "data.crop[1]", "expected int, got 'x'"),
        ("crop: [2, 3]", "crop: [2]", "data.crop", "expected tuple[int, int], got a list of 1"),
        ("[0, conv*]", "1.5", "pretrain.layers", "expected int | str | list[int | str], got 1.5"),
        ("seed_everything: 3", "seed_everything: x", "seed_everything", "expected bool | int, got 'x'"),
        ("limits: {low: 3}", "limits: {low: x}", "data.limits.low", "expected int, got 'x'"),
        # dataclasses in a list
        ("epoch: 9", "epochs: 9", "trainer.callbacks.ToyThaw.phases[1].epochs", "unknown key; did you mean 'epoch'?"),
        (
            "{layers: rest,",
            "{",
            "trainer.callbacks.ToyThaw.phases[1].layers",
            "missing; expected int | str | list[str]",
        ),
        ("epoch: 9", "epoch: soon", "trainer.callbacks.ToyThaw.phases[1].epoch", "expected int | null, got 'soon'"),
        (
            "metric: f1",
            "metric: f1, wait: 3",
            "trainer.callbacks.ToyThaw.phases[1].wait.wait",
            "valid: metric, patience",
        ),
        ("when: all", "when: al", "trainer.callbacks.ToyThaw.phases[1].when", "got 'al'; did you mean 'all'?"),
        ("- {layers: [fc]}", "- fc", "trainer.callbacks.ToyThaw.phases[0]", "expected mapping of ToyPhase, got 'fc'"),
        # shapes
        (
            "lr_scale: {fc8: 1.0, layer1.0: 1e-3}",
            "lr_scale: 3",
            "model.lr_scale",
            "expected dict[str, float] | null, got 3",
        ),
        (
            "{fc_width: 256, width: 5e-1, init: he}",
            "[1]",
            "model.network",
            "expected a mapping as init_args, got a list",
        ),
        (
            "init_args: {every: 30}",
            "init_args: null",
            "trainer.callbacks.ToyDecay",
            "expected a mapping as init_args, got null",
        ),
        (
            "fc_width: 256",
            "fc_width: {class_path: ToyConv}",
            "model.network.fc_width",
            "expected int, got a class_path",
        ),
        (
            "max_epochs: 40",
            "class_path: Trainer",
            "trainer.class_path",
            "class_path is not allowed here; give the arguments",
        ),
        ("[ToyUNet,", "[7,", "data.augment[0]", "expected ToyNetwork, got 7"),
        # missing
        ("fc_width: 256, ", "", "model.network.fc_width", "missing; expected int"),
        ("{layers: 1}", "{norm: eval}", "trainer.callbacks.ToyFreezing.layers", "missing; expected int | str | list["),
        (", init_args: {every: 30}", "", "trainer.callbacks.ToyDecay.every", "missing; expected int"),
        ("mean: [0.5], ", "", "model.scale.mean", "missing; expected list[float]"),
        ("monitor: val/loss, ", "", "trainer.callbacks.EarlyStopping.monitor", "missing; expected str"),
        (
            "class_path: ToyUNet, ",
            "",
            "data.augment[1]",
            "missing class_path; expected ToyNetwork; valid: ToyConv, ToyUNet",
        ),
    ],
)
def test_one_fault(parser: LightningArgumentParser, old: str, new: str, path: str, message: str) -> None:
    text = changed(old, new)
    with pytest.raises(ArgumentError):
        parser.parse_string(text)
    (fault,) = faults_of(text)
    assert fault.path == path
    assert message in fault.message
    assert "\n" not in fault.message


def test_below_a_mistyped_class_the_arguments_are_those_of_the_class_that_was_meant() -> None:
    text = changed("path: ToyFreezing, init_args: {layers: 1}", "path: ToyFreezin, init_args: {layer: 1, norm: evil}")
    assert [(fault.path, fault.message.partition(";")[0]) for fault in faults_of(text)] == [
        ("trainer.callbacks[0].class_path", "no class 'ToyFreezin' (expected Callback)"),
        ("trainer.callbacks[0].layer", "unknown key"),
        ("trainer.callbacks[0].layers", "missing"),
        ("trainer.callbacks[0].norm", "expected 'eval' | 'train', got 'evil'"),
    ]


def test_a_mistyped_class_with_the_right_arguments_is_one_fault() -> None:
    (fault,) = faults_of(changed("path: SGD", "path: SDG"))
    assert "did you mean 'SGD'" in fault.message


def test_the_line_is_that_of_the_key() -> None:
    for piece, path in [("batch_size: '32'", "data.batch_size"), ("examples_per_class: 10", "data.examples_per_class")]:
        (fault,) = faults_of(changed(piece, piece.split(":")[0] + ": many"))
        assert (fault.line, fault.path) == (line_of(VALID, piece), path)
    (fault,) = faults_of(changed("{layers: 1}", "{layers: 1.5}"))
    assert (fault.line, fault.path) == (line_of(VALID, "ToyFreezing"), "trainer.callbacks.ToyFreezing.layers")


def test_what_is_missing_is_reported_where_its_class_stands() -> None:
    (fault,) = faults_of(changed("    examples_per_class: 10\n", ""))
    assert fault == Fault(line_of(VALID, "test_faults.ToyFolder"), "data.examples_per_class", "missing; expected int")
    assert faults_of("trainer: {max_epochs: 3}\n") == [
        Fault(1, "data", "missing; expected LightningDataModule"),
        Fault(1, "model", "missing; expected LightningModule"),
    ]


def test_of_several_callbacks_of_one_class_the_index_tells_which() -> None:
    text = changed(
        "{class_path: ToyDecay, init_args: {every: 30}}", "{class_path: ToyFreezing, init_args: {layerz: 2}}"
    )
    assert [fault.path for fault in faults_of(text)] == ["trainer.callbacks[1].layers", "trainer.callbacks[1].layerz"]


def test_a_short_name_of_several_classes_asks_for_the_full_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in ("toy_left", "toy_right"):
        (tmp_path / f"{module}.py").write_text("import lightning.pytorch as pl\nclass ToyTwin(pl.Callback): ...\n")
        importlib.import_module(module)
    (fault,) = faults_of(changed("{class_path: ToyDecay, init_args: {every: 30}}", "ToyTwin"))
    assert fault.path == "trainer.callbacks[1]"
    assert fault.message == "'ToyTwin' names several classes, give the full path: toy_left.ToyTwin, toy_right.ToyTwin"


def test_a_module_that_cannot_be_imported_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy_broken.py").write_text("raise RuntimeError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    (fault,) = faults_of(changed("test_faults.ToyFolder", "toy_broken.ToyFolder"))
    assert "importing it fails: RuntimeError: no licence" in fault.message


def test_a_file_in_place_of_a_class_is_left_to_the_parser(tmp_path: Path) -> None:
    (tmp_path / "callback.yaml").write_text("class_path: ToyDecay\n")
    text = changed("{class_path: ToyDecay, init_args: {every: 30}}", "callback.yaml")
    assert find_faults(text, SCHEMA, str(tmp_path / "toy.yaml")) == []
    (fault,) = find_faults(text, SCHEMA, "toy.yaml")
    assert fault.path == "trainer.callbacks[1]"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("model: [1,\ndata: 3\n}", 3, "column 1: not YAML: did not find expected ',' or ']'"),
        ("model: a: b\n", 1, "column 9: not YAML: mapping values are not allowed in this context; is this line"),
        ("model: x\ndata:1\nruns: y\n", 3, "begins in line 2; a key needs a space after its colon"),
        ("model:\n  x: 1\n   y: 2\n", 3, "is this line indented as its neighbours are?"),
        ("model:\n\tx: 1\n", 2, "a tab stands here, indent with spaces"),
        ("model: 'x\n\n", 3, "found unexpected end of stream, while scanning a quoted scalar that begins in line 1"),
        ("model: *nobody\n", 1, "column 8: not YAML: found undefined alias"),
        ("model: \x01\n", 1, "not YAML: unacceptable character #x0001"),
        ("model: 1\n--- 2\n", 2, "found another document, expected a single document"),
        ("[" * 20000 + "]" * 20000, 1, "nested too deeply"),
    ],
)
def test_what_is_no_yaml_has_a_line_and_a_column(text: str, line: int, message: str) -> None:
    (fault,) = faults_of(text)
    assert (fault.line, fault.path) == (line, "")
    assert message in fault.message
    assert "\n" not in fault.message


def test_faults_of_the_text_stand_beside_those_of_its_content() -> None:
    text = """\
trainer:
  max_epochs: 3
  max_epochs: 4
  callbacks: &all
    - *all
  logger: !!python/name:os.system x
  devices: many of them
  min_epochs: x
? [1]
: 2
"""
    assert find_faults(text, {"trainer": Trainer}, "toy.yaml") == [
        Fault(3, "trainer.max_epochs", "given twice; first in line 2"),
        Fault(4, "trainer.callbacks[0]", "refers to itself (the anchor in line 4)"),
        Fault(6, "trainer.logger", "expected plain data, got tag:yaml.org,2002:python/name:os.system"),
        Fault(8, "trainer.min_epochs", "expected int | null, got 'x'"),
        Fault(9, "", "expected a name as key, got a list or a mapping"),
    ]
    assert find_faults("- 1\n", SCHEMA, "toy.yaml") == [Fault(1, "", "expected a mapping, got a list")]
    assert find_faults("", SCHEMA, "toy.yaml") == []


def test_an_alias_is_read_where_it_stands_and_numbers_as_the_parser_reads_them() -> None:
    root, faults = read("a: &x {lr: 1e-3, day: 2020-01-01}\nb:\n  c: *x\n  d: {<<: *x, lr: 2}\n")
    assert faults == []
    assert root.value == {
        "a": {"lr": 0.001, "day": "2020-01-01"},
        "b": {"c": {"lr": 0.001, "day": "2020-01-01"}, "d": {"lr": 2, "day": "2020-01-01"}},
    }
    assert isinstance(root.children, dict) and isinstance(root.children["b"].children, dict)
    assert [node.line for node in root.children["b"].children.values()] == [3, 4]


@pytest.mark.parametrize(
    ("override", "path", "message"),
    [
        ("data.stag: pretrain", "data.stag", "unknown key; did you mean 'stage'?"),
        (
            "data.stage: pretrian",
            "data.stage",
            "got 'pretrian'; did you mean 'pretrain'?",
        ),
        ("modle.network.width: 1", "modle", "unknown key; did you mean 'model'?"),
        ("model.network.widht: 1", "model.network.widht", "unknown key; did you mean 'width'?"),
        ("model.optimizer.lr: fast", "model.optimizer.lr", "expected float | Tensor, got 'fast'"),
        ("model.lr_scale.fc8: x", "model.lr_scale.fc8", "expected float, got 'x'"),
        ("trainer.max_epochs: many", "trainer.max_epochs", "expected int | null, got 'many'"),
        ("trainer.max_epochs.x: 1", "trainer.max_epochs.x", "expected a class or a mapping to set 'x' in, got 2"),
        ("callbacks.ToyDecay.evry: 3", "trainer.callbacks.ToyDecay.evry", "unknown key; did you mean 'every'?"),
        ("callbacks.ToyFreezing.layers: 3", "callbacks.ToyFreezing.layers", "got 0; the stage has: ToyDecay"),
        ("model.network.class_path: ToyUNett", "model.network.class_path", "did you mean 'ToyUNet'?"),
        (
            "data: {class_path: test_faults.ToyFoldre, init_args: {examples_per_class: 3}}",
            "data.class_path",
            "did you mean 'test_faults.ToyFolder'?",
        ),
        ("model.network.class_path: ToyConv", "model.network.fc_width", "missing; expected int"),
    ],
)
def test_overrides_of_the_pretrain_stage_are_checked_against_the_file(override: str, path: str, message: str) -> None:
    before, block = VALID.split("  with:\n")
    kept = [line for line in block.splitlines(True) if override.split(":")[0] + ":" not in line]
    text = f"{before}  with:\n    {override}\n{''.join(kept)}"
    (fault,) = faults_of(text)
    assert (fault.line, fault.path) == (line_of(text, override), f"pretrain.with.{path}")
    assert message in fault.message


def test_overrides_that_fit_are_no_faults() -> None:
    text = changed("data.batch_size: 16", "model.network.class_path: ToyUNet\n    model.network.depth: 3")
    assert faults_of(text) == []
    assert faults_of(changed("data.batch_size: 16", "model.scale.mean: [1]\n    trainer.min_epochs: 3")) == []
    # What is wrong in the file is not told again for the pretrain stage.
    assert [fault.path for fault in faults_of(changed("crop: [2, 3]", "corp: [2, 3]"))] == ["data.corp"]


def test_a_chain_of_pretrains_is_checked_to_its_end() -> None:
    text = changed("data.batch_size: 16", "pretrain: {layers: 3, with: {data.stage: x, trainer.max_epochs: 1}}")
    (fault,) = faults_of(text)
    assert fault.path == "pretrain.with.pretrain.with.data.stage"


TWELVE = """\
nmae: toy
seed_everything: x
model:
  class_path: ToyModel
  init_args:
    network: {class_path: ToyConf, init_args: {fc_width: 256}}
    optimizer: {class_path: SGD, init_args: {lr: 1e-3, momentm: 0.9}}
    lr_scale: [1]
data:
  class_path: ToyFolder
  init_args:
    stage: transfre
    batch_size: many
    batch_size: 3
trainer:
  max_epoch: 40
  precision: 32
  callbacks:
    - {class_path: ToyFreezing, init_args: {layers: 1, nrom: eval}}
    - {class_path: ToyDecay}
    - {class_path: EarlyStopping, init_args: [monitor]}
pretrain:
  layers: 5
  with: {}
"""


def test_twelve_faults_are_twelve_lines() -> None:
    lines = report(faults_of(TWELVE), "configs/toy.yaml").splitlines()
    assert lines[0] == "configs/toy.yaml: 12 faults"
    places = [line.split(": ")[0] for line in lines[1:]]
    assert places == [
        "  line 1   nmae",
        "  line 2   seed_everything",
        "  line 6   model.network.class_path",
        "  line 7   model.optimizer.momentm",
        "  line 8   model.lr_scale",
        "  line 10  data.examples_per_class",
        "  line 12  data.stage",
        "  line 14  data.batch_size",
        "  line 16  trainer.max_epoch",
        "  line 19  trainer.callbacks.ToyFreezing.nrom",
        "  line 20  trainer.callbacks.ToyDecay.every",
        "  line 21  trainer.callbacks.EarlyStopping",
    ]
    assert all("subtype" not in line.lower() and len(line) < 240 for line in lines)


def test_a_report_names_file_line_and_path() -> None:
    faults = [Fault(3, "", "column 4: not YAML"), Fault(12, "data.batch_size", "expected int, got 'many'")]
    assert report(faults, "x.yaml") == (
        "x.yaml: 2 faults\n  line 3   column 4: not YAML\n  line 12  data.batch_size: expected int, got 'many'"
    )
    assert report(faults[:1], "x.yaml").startswith("x.yaml: 1 fault\n  line 3  column")


def test_the_schema_of_a_parser_is_that_of_its_files(parser: LightningArgumentParser) -> None:
    schema = schema_of(parser)
    assert set(schema) == set(SCHEMA)
    assert set(schema["pretrain"]) == set(PRETRAIN)
    assert find_faults(VALID, schema, "toy.yaml") == []
    paths = [fault.path for fault in find_faults(TWELVE, schema, "toy.yaml")]
    assert paths == [fault.path for fault in find_faults(TWELVE, SCHEMA, "toy.yaml")]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--data.examples_per_klass 3", "--data.examples_per_klass: unknown key; did you mean 'examples_per_class'?"),
        ("--data.examples_per_class=abc", "--data.examples_per_class: expected int, got 'abc'"),
        ("--trainer.max_epochs abc", "--trainer.max_epochs: expected int | null, got 'abc'"),
        ("--trainr.max_epochs 3", "--trainr.max_epochs: unknown option; did you mean 'trainer.max_epochs'?"),
        ("--lr 0.1", "--lr: unknown option; did you mean '--model.optimizer.lr'?"),
        ("--layers 1", "--layers: unknown option; did you mean '--pretrain.layers' or '--trainer.callbacks.ToyF"),
        ("--model.network.widht 2", "--model.network.widht: unknown key; did you mean 'width'?"),
        (
            "--model.network ToyConf",
            "--model.network: no class 'ToyConf' (expected ToyNetwork); did you",
        ),
        ("--data.init_args.stage pretrian", "--data.stage: expected 'pretrain' | 'transfer', got 'pretrian'; did you"),
        (
            "--trainer.callbacks+=ToyFreezin",
            "--trainer.callbacks[5]: no class 'ToyFreezin' (expected Callback)",
        ),
        ("--trainer.callbacks+=ToyFreezing", "trainer.callbacks: the following arguments are required: layers"),
        ("--pretrain.layrs 1", "--pretrain.layrs: unknown key; did you mean 'layers'? valid: layers, checkpoint"),
        ("--pretrain.reuse maybe", "--pretrain.reuse: expected bool, got 'maybe'"),
        ("--data.batch_size", "argument --data: expected one argument"),
        ("stray", "unrecognized arguments: stray"),
    ],
)
def test_a_command_line_fault_is_one_line(
    parser: LightningArgumentParser, tmp_path: Path, words: str, line: str
) -> None:
    (tmp_path / "toy.yaml").write_text(VALID)
    args = ["--config", str(tmp_path / "toy.yaml"), "--seed_everything", "4", *words.split()]
    with pytest.raises(ArgumentError) as error:
        parser.parse_args(args)
    said = cli_fault(parser, str(error.value), args)
    assert said.startswith(line)
    assert "\n" not in said and "ubtype" not in said
