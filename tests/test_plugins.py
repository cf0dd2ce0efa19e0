"""Callback packages of others: found by their entry points, named when they fail or clash; what imports what."""

import ast
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

from conftest import Write

ROOT = Path(__file__).parents[1]
TESTS = Path(__file__).parent
SCRIPT = Path(sys.executable).parent / "tlkit"


def install(site: Path, distribution: str, **modules: str) -> None:
    """Lays modules out as an installed distribution that announces the first of them."""
    info = site / f"{distribution.replace('-', '_')}-0.3.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 0.3\n")
    (info / "entry_points.txt").write_text(f"[tlkit.callbacks]\nmine = {next(iter(modules))}\n")
    for name, code in modules.items():
        (site / f"{name}.py").write_text(dedent(code))


def environment(site: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(site)])}


def commands(site: Path, *lines: list[str]) -> list[tuple[int, str]]:
    """Runs several commands in one process; returns exit code and what was said for each."""
    driver = f"from tlkit.cli import main\nfor line in {list(lines)}:\n    print('code', main(line), flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", driver],
        cwd=site,
        env=environment(site),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    *said, rest = done.stdout.split("code ")
    assert done.returncode == 0, done.stdout
    codes = [int(text.split("\n")[0]) for text in [*said[1:], rest]]
    texts = [said[0], *(text.partition("\n")[2] for text in said[1:])]
    return list(zip(codes, texts, strict=True))


SHOUT = """
    from lightning.pytorch import Callback

    class Shout(Callback):
        def __init__(self, word: str = "hey"):
            self.word = word

        def on_train_start(self, trainer, pl_module):
            print(self.word)
"""
SAME = """
    from lightning.pytorch import Callback

    class Same(Callback):
        \"\"\"Is called as another one.\"\"\"
"""


def test_the_console_script_finds_classes_of_distributions_and_of_the_directory_and_skips_broken_ones(
    write: Write, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    install(site, "tlkit-shout", shout=SHOUT)
    install(site, "tlkit-broken", broken="import a_module_that_is_not_there")
    install(site, "tlkit-exits", exits="raise SystemExit('no licence')")
    (tmp_path / "mine.py").write_text(dedent(SHOUT).replace("Shout", "Mutter"))
    callbacks = [{"class_path": "Shout", "init_args": {"word": "heard"}}, {"class_path": "mine.Mutter"}]
    path = write(**{"trainer.callbacks": callbacks, "pretrain.layers": 0, "trainer.max_epochs": 1})
    command = [str(SCRIPT), "fit", "--config", str(path)]
    fit = subprocess.run(command, cwd=tmp_path, env=environment(site), capture_output=True, text=True)
    assert fit.returncode == 0, fit.stderr
    assert "heard\nhey" in fit.stdout
    assert "plugin tlkit-broken 0.3 (broken) is skipped: ModuleNotFoundError" in fit.stdout
    assert "plugin tlkit-exits 0.3 (exits) is skipped: SystemExit: no licence" in fit.stdout
    typo = write("typo.yaml", **{"trainer.callbacks": [{"class_path": "Whisper"}]})
    (code, listed), (refused, message) = commands(site, ["plugins"], ["fit", "--config", str(typo)])
    assert (code, refused) == (0, 2)
    assert "tlkit-shout 0.3  (shout)\n\n  Shout" in listed
    assert "tlkit-broken 0.3  (broken)\n  not loaded: ModuleNotFoundError" in listed
    assert "LayerFreezing" in listed
    assert "no class 'Whisper'" in message
    assert "the name may be theirs: tlkit-broken 0.3 (ModuleNotFoundError" in message


def test_a_name_that_two_define_is_reported_refused_and_decided_by_the_full_path(write: Write, tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "tlkit-one", one=SAME)
    install(site, "tlkit-two", two=SAME)
    install(site, "tlkit-shout", shout=SHOUT)
    entries = next(site.glob("tlkit_shout*")) / "entry_points.txt"
    entries.write_text("[tlkit.callbacks]\nmine = shout\nagain = shout\n")  # the same class twice is no clash
    install(site, "tlkit-three", three=SAME.replace("Same", "EarlyStopping"))

    def words(name: str) -> list[str]:
        return ["config", "--config", str(write(f"{name}.yaml", **{"trainer.callbacks": [{"class_path": name}]}))]

    plugins, same, stopping, full = commands(
        site, ["plugins"], words("Same"), words("EarlyStopping"), words("two.Same")
    )
    assert "the name Same is defined by one.Same (tlkit-one 0.3) and by two.Same (tlkit-two 0.3)" in plugins[1]
    assert "EarlyStopping is defined by lightning.pytorch.callbacks.EarlyStopping and by three.Early" in plugins[1]
    assert plugins[1].count("is defined by") == 2
    assert (same[0], stopping[0], full[0]) == (2, 2, 0)
    assert "'Same' names several classes, give the full path: one.Same, two.Same" in same[1]
    assert "lightning.pytorch.callbacks.EarlyStopping, three.EarlyStopping" in stopping[1]
    assert "class_path: two.Same" in full[1]


def imported(path: Path) -> set[str]:
    """Returns the packages that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def test_the_framework_imports_no_callback_package() -> None:
    files = list((ROOT / "tlkit").rglob("*.py"))
    assert len(files) > 30
    assert not [file for file in files if {"tlkit_callbacks", "callbacks"} & imported(file)]


def test_layers_optim_and_schedules_import_no_lightning() -> None:
    code = "import sys, tlkit.layers, tlkit.optim, tlkit.schedules; print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "'torch'" in loaded
    assert "'lightning'" not in loaded and "'lightning.pytorch'" not in loaded
