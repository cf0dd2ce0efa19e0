"""Every shipped configuration: its header, what it names, and that it runs."""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_fit import newest, quiet, rows  # noqa: F401  the fixture applies here too

from tlkit.cli import main
from tlkit.commands import load_experiment
from tlkit.experiment import plan
from tlkit.paths import flatten, lookup
from tlkit.runs import read_result

ROOT = Path(__file__).parents[1]
FOLDERS = ("", "protocols", "compute", "table2")
"""Of experiments, below configs."""
NAMES = [
    str(path.relative_to(ROOT / "configs").with_suffix(""))
    for folder in FOLDERS
    for path in sorted((ROOT / "configs" / folder).glob("*.yaml"))
]
SIZES = {"10": (6, 10, 6), "25": (6, 5, 5), "50": (6, 3, 5), "100": (6, 3, 1), "250": (6, 3, 1), "500": (6, 0, 0)}
TABLE_2 = {f"table2/alexnet_{size}": row for size, row in (SIZES | {"all": (5, 30, 0)}).items()}
"""Layers to transfer, initial decay epochs, layers to freeze."""
NEED_A_FOLDER = ("alexnet_folder", *TABLE_2)
SYNSETS = ("n01440764", "n01443537", "n02119789", "n02119790")
FASHION_FILES = {
    "train-images-idx3": 2051,
    "train-labels-idx1": 2049,
    "t10k-images-idx3": 2051,
    "t10k-labels-idx1": 2049,
}


def picture(path: Path, label: int, number: int, size: int = 80) -> None:
    """Writes stripes whose direction is the class and whose phase is the image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:size, :size]
    wave = np.sin((x * np.cos(label) + y * np.sin(label)) / 3 + number)
    Image.fromarray((127 + 100 * wave[..., None] * np.array([1, 0.6, 0.2])).astype(np.uint8)).save(path)


def image_folder(root: Path, classes: int = 4, images: int = 26) -> Path:
    for label in range(classes):
        for number in range(images):
            picture(root / f"class {label}" / f"{number}.png", label, number)
    return root


def ilsvrc2012(root: Path, images: int = 8) -> Path:
    """Writes the layout of Kaggle's distribution: flat validation images and their listing."""
    lines = ["ImageId,PredictionString"]
    for label, synset in enumerate(SYNSETS):
        for number in range(images):
            picture(root / "Data/CLS-LOC/train" / synset / f"{synset}_{number}.JPEG", label, number)
        for number in range(2):
            name = f"ILSVRC2012_val_{2 * label + number + 1:08}"
            picture(root / "Data/CLS-LOC/val" / f"{name}.JPEG", label, 100 + number)
            lines.append(f"{name},{synset} 1 2 3 4")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines) + "\n")
    return root


def fashion_mnist(root: Path, per_class: int = 6) -> Path:
    """Writes the four IDX files with a few images of noise."""
    root.mkdir(parents=True)
    random = np.random.default_rng(0)
    n = 10 * per_class
    for name, magic in FASHION_FILES.items():
        shape = (n, 28, 28) if "images" in name else (n,)
        values = random.integers(0, 256, shape) if "images" in name else np.arange(n) % 10
        header = struct.pack(f">I{len(shape)}I", magic, *shape)
        (root / f"{name}-ubyte").write_bytes(header + values.astype(np.uint8).tobytes())
    return root


def data_of(name: str, folder: Path) -> list[str]:
    """Returns the options that give a configuration data of its kind, small and made here."""
    if name == "alexnet_folder":
        return ["--data.dataset.root", str(image_folder(folder / "images"))]
    if name in TABLE_2:
        return ["--data.dataset.root", str(ilsvrc2012(folder / "ilsvrc"))]
    if name.startswith(("alexnet_fashion", "protocols/")):
        return ["--data.dataset", "FashionMNIST", "--data.dataset.root", str(fashion_mnist(folder / "idx"))]
    return []


def header(name: str) -> str:
    """Returns the comment at the top of a configuration, without the comment signs."""
    text = (ROOT / "configs" / f"{name}.yaml").read_text()
    lines = text[: text.index("\nmodel:")].splitlines()
    assert all(line.startswith("#") for line in lines)
    return "\n".join(line[1:].removeprefix(" ") for line in lines)


def commands(name: str) -> list[list[str]]:
    """Returns the words of each command in the header."""
    found = re.findall(r"^ +tlkit (\w+ .*)$", header(name), re.MULTILINE)
    return [re.sub(r"\s{2,}#.*", "", line).split() for line in found]


@pytest.mark.parametrize("name", NAMES)
def test_the_header_says_question_command_expected_metric_and_time(name: str) -> None:
    text = header(name)
    assert "?" in text.splitlines()[0]
    assert ["fit", "--config", f"configs/{name}.yaml"] in [command[:3] for command in commands(name)]
    assert re.search(r"[Aa]ccuracy|PSNR", text)
    assert re.search(r"\d ± \d|not measured", text)
    assert re.search(r"minute|Minutes|seconds|hours", text)
    assert re.search(r"core|GPU|CPU", text)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_header_names_is_there(name: str) -> None:
    for path in re.findall(r"\b(?:configs|benchmarks|docs|callbacks|tlkit)/[\w./-]+\.\w+", header(name)):
        assert (ROOT / path).is_file(), path
    words = [word for pair in re.findall(r"(--\S+\.class_path) (\w+)", header(name)) for word in pair]
    if words or name in NEED_A_FOLDER:
        words += ["--data.dataset.root", "x"]
    defaults = load_experiment(["--config", str(ROOT / "configs" / f"{name}.yaml"), *words])
    for option in re.findall(r"--((?:data|trainer|pretrain|model)\.[\w.]*\w)", header(name)):
        section, _, inner = option.partition("with.")
        lookup(defaults, inner or section)


@pytest.mark.parametrize("name", NAMES)
def test_it_parses_as_two_stages_and_its_commands_too(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(ROOT)
    data = [*data_of(name, tmp_path), "--data.cache_dir", str(tmp_path / "cache")]
    for command in [["fit", "--config", f"configs/{name}.yaml"], *commands(name)]:
        words = command[command.index("--config") :]
        if "PATH" in words:
            del words[words.index("PATH") - 1 : words.index("PATH") + 1]
        stage = plan(load_experiment([*words, *data]))
        assert stage.name == "transfer" and stage.config["data"]["init_args"]["stage"] == "transfer"
        if stage.pretrain:
            assert stage.pretrain.config["data"]["init_args"]["stage"] == "pretrain"


@pytest.mark.parametrize("name", NEED_A_FOLDER)
def test_without_its_folder_one_message_says_how_to_name_it(
    name: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", str(ROOT / "configs" / f"{name}.yaml")]) == 2
    message = capsys.readouterr().err
    assert "data.dataset.root: missing; expected str" in message and "--data.dataset.root" in message
    assert len(message.splitlines()) == 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", TABLE_2)
def test_the_study_of_classes_has_the_settings_of_its_table(name: str, tmp_path: Path) -> None:
    layers, initial, frozen = TABLE_2[name]
    words = ["--config", str(ROOT / "configs" / f"{name}.yaml"), *data_of(name, tmp_path)]
    words += ["--data.validation_per_class", "1", "--data.cache_dir", str(tmp_path / "cache")]
    transfer = plan(load_experiment([*words, "--data.examples_per_class", "2"]))
    assert transfer.pretrain is not None
    for stage, callbacks in (
        (transfer, ["LayerFreezing", "InitialDecay", "StepDecay", "EnergyMonitor"]),
        (transfer.pretrain, ["StepDecay", "EnergyMonitor"]),
    ):
        names = [item["class_path"].rpartition(".")[2] for item in stage.config["trainer"]["callbacks"]]
        assert names == callbacks
        assert lookup(stage.config, "model.optimizer.lr") == 0.01
    assert lookup(transfer.config, "callbacks.LayerFreezing.layers") == frozen
    assert lookup(transfer.config, "callbacks.InitialDecay.epochs") == initial
    assert transfer.layers == layers
    assert lookup(transfer.pretrain.config, "model.lr_scale") is None
    assert lookup(transfer.pretrain.config, "model.network.width") == 1.0


@pytest.mark.parametrize("name", [name for name in NAMES if name != "alexnet_fashion_small"])  # its runs take seconds
def test_what_it_costs_is_measured_in_both_stages(name: str, tmp_path: Path) -> None:
    words = ["--config", str(ROOT / "configs" / f"{name}.yaml"), *data_of(name, tmp_path)]
    for stage in plan(load_experiment([*words, "--data.cache_dir", str(tmp_path / "cache")])).chain():
        names = [item["class_path"].rpartition(".")[2] for item in stage.config["trainer"]["callbacks"]]
        assert names.count("EnergyMonitor") == 1


def test_an_option_of_the_pretrain_changes_that_alone(tmp_path: Path) -> None:
    words = ["--config", str(ROOT / "configs" / "hrtem_restoration.yaml"), "--trainer.log_every_n_steps", "7"]
    pretrains = [
        plan(load_experiment([*words, "--data.cache_dir", str(tmp_path), *more])).pretrain
        for more in ([], ["--pretrain.with.trainer.max_epochs", "3", "--pretrain.with.data.train_structures", "4"])
    ]
    before, after = (flatten(stage.config) for stage in pretrains if stage)
    changed = {path: value for path, value in after.items() if value != before[path]}
    assert changed == {"trainer.max_epochs": 3, "data.train_structures": 4}
    assert after["trainer.log_every_n_steps"] == 7


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where simulated structures are kept that several configurations train on."""
    return tmp_path_factory.mktemp("cache")


def run(name: str, tmp_path: Path, cache: Path, *args: str) -> Path:
    """Runs a configuration with options that make it small; returns its run directory."""
    words = ["fit", "--config", str(ROOT / "configs" / f"{name}.yaml"), *data_of(name, tmp_path), *args]
    words += ["--data.cache_dir", str(cache), "--runs", str(tmp_path / "runs")]
    assert main([*words, "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]) == 0
    return newest(tmp_path / "runs" / Path(name).stem, "transfer")


SMALL = {
    "alexnet_split": (
        *("--data.dataset.classes", "4", "--data.dataset.images_per_class", "20"),
        *("--data.dataset.test_images_per_class", "4", "--data.validation_per_class", "4"),
        *("--trainer.max_epochs", "2", "--pretrain.with.trainer.max_epochs", "1"),
    ),
    "alexnet_fashion": (
        *("--data.validation_per_class", "2", "--data.examples_per_class", "2", "--data.test_per_class", "2"),
        *("--pretrain.with.data.examples_per_class", "4", "--trainer.max_epochs", "2"),
        *("--pretrain.with.trainer.max_epochs", "1"),
    ),
    "alexnet_folder": ("--trainer.max_epochs", "2", "--pretrain.with.trainer.max_epochs", "1"),
    "hrtem_restoration": (
        *("--data.image_size", "64", "--data.train_structures", "4", "--pretrain.with.data.train_structures", "4"),
        *("--data.validation_structures", "2", "--data.test_structures", "2", "--data.domains", "[0, 10]"),
        *("--trainer.max_epochs", "2", "--pretrain.with.trainer.max_epochs", "1"),
    ),
    "hrtem_study_unet": (
        *("--data.image_size", "64", "--data.train_structures", "4", "--pretrain.with.data.train_structures", "4"),
        *("--data.validation_structures", "2", "--data.test_structures", "2", "--data.domains", "[-10, 10]"),
        *("--model.network.width", "8"),
        *("--trainer.max_epochs", "2", "--pretrain.with.trainer.max_epochs", "1"),
    ),
}


SMALL["alexnet_fashion_small"] = SMALL["alexnet_fashion"]
SMALL |= {  # long enough for all phases
    name: (*SMALL["alexnet_fashion"], "--trainer.max_epochs", "22") for name in NAMES if name.startswith("protocols/")
}
SMALL |= {name: SMALL["hrtem_restoration"] for name in NAMES if name.startswith("compute/")}
SMALL |= {
    name: (
        *("--data.validation_per_class", "2", "--data.examples_per_class", "4", "--data.num_workers", "2"),
        *("--model.network.width", "0.25", "--model.network.fc_width", "64", "--data.memory_map_budget_gb", "0"),
        *("--trainer.max_epochs", "12", "--pretrain.with.trainer.max_epochs", "1"),
    )
    for name in TABLE_2
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_runs_from_end_to_end(name: str, tmp_path: Path, cache: Path) -> None:
    directory = run(name, tmp_path, cache, *SMALL[name])
    result = read_result(directory)
    assert result["pretrain"]["layers"]
    assert any(key.startswith("test/") for key in result["metrics"])
    assert len(list(directory.parent.glob("pretrain-*/result.json"))) == 1
    if name == "table2/alexnet_10":
        epochs = rows(directory)
        assert [row["lr/fc8"] for row in epochs] == pytest.approx([0.01] * 10 + [0.001] * 2)
        assert [row["lr/fc7"] for row in epochs] == pytest.approx([0.001] * 12)
    if name == "hrtem_study_unet":
        assert [row["lr/head"] for row in rows(directory)] == pytest.approx([1e-4, 0.99e-4])
