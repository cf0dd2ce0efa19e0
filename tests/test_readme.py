"""What the documents show is run."""

import re
from pathlib import Path

import pytest
import torch
import yaml
from conftest import Write
from test_fit import fit, quiet, rows, weights  # noqa: F401

from tlkit import plugins
from tlkit.study.cells import cells
from tlkit.study.check import level_faults
from tlkit.study.spec_file import read_study

ROOT = Path(__file__).parents[1]


def block(document: str, language: str, containing: str) -> str:
    text = (ROOT / document).read_text()
    blocks = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return next(block for block in blocks if containing in block)


def test_the_protocol_of_the_callbacks_document_runs_in_twelve_lines(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = block("callbacks/README.md", "python", "class WarmStart")
    body = code[code.index("class WarmStart") :]
    assert len(body.strip().splitlines()) <= 12
    (tmp_path / "warm_start.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    callbacks = yaml.safe_load(block("callbacks/README.md", "yaml", "warm_start.WarmStart"))["trainer"]["callbacks"]
    callbacks[0]["init_args"] = {"head": "fc", "epochs": 2}
    path = write(**{"trainer.callbacks": callbacks})
    held, thawed = (weights(fit(path, "--trainer.max_epochs", str(epochs))) for epochs in (2, 3))
    start = weights(fit(path, "--trainer.max_epochs", "1"))
    assert torch.equal(held["network.conv2.weight"], start["network.conv2.weight"])
    assert not torch.equal(held["network.fc.weight"], start["network.fc.weight"])
    assert not torch.equal(thawed["network.conv2.weight"], held["network.conv2.weight"])


def test_the_protocol_of_the_front_page_runs(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = block("README.md", "python", "class ")
    assert len(code[code.index("class ") :].strip().splitlines()) <= 12
    (tmp_path / "warmup.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    callbacks = yaml.safe_load(block("README.md", "yaml", "warmup."))["trainer"]["callbacks"]
    callbacks[0]["init_args"] = {"epochs": 2}
    run = fit(write(**{"trainer.callbacks": callbacks}))
    assert [row["lr/fc"] for row in rows(run)] == pytest.approx([0.025, 0.05, 0.05])


def test_the_schedule_of_the_front_page_multiplies_with_one_for_the_whole_run(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "warmup.py").write_text(block("README.md", "python", "class "))
    monkeypatch.syspath_prepend(tmp_path)
    warmup = {"class_path": "warmup.LinearWarmup", "init_args": {"epochs": 2}}
    steps = {"class_path": "StepDecay", "init_args": {"every": 2}}
    run = fit(write(**{"trainer.callbacks": [warmup, steps]}))
    assert [row["lr/fc"] for row in rows(run)] == pytest.approx([0.025, 0.05, 0.005])
    path = write(**{"trainer.callbacks": [warmup, {"class_path": "LinearDecay"}], "trainer.limit_train_batches": 1})
    assert [row["lr/fc"] for row in rows(fit(path))] == pytest.approx([0.025, 0.025, 0.0])  # 1/2 × 1, 1 × 1/2, 1 × 0


def test_a_layer_of_the_callbacks_document_has_the_parameters_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = block("callbacks/README.md", "python", "layers_of(network)")
    exec(code, {})
    said = re.findall(r"^print.*  # (.*)", code, re.M)
    assert len(said) == 2 and capsys.readouterr().out.splitlines() == said


def test_initial_decay_epochs_are_expressible_as_documented(write: Write) -> None:
    text = block("callbacks/README.md", "yaml", "InitialDecay").replace("epochs: 10", "epochs: 1").replace("fc8", "fc")
    callbacks = yaml.safe_load(text.replace("every: 30", "every: 2"))["callbacks"]
    run = fit(write(**{"trainer.callbacks": callbacks}))
    assert [row["lr/fc"] for row in rows(run)] == pytest.approx([0.05, 0.005, 0.0005])
    assert [row["lr/conv1"] for row in rows(run)] == pytest.approx([0.05, 0.05, 0.005])


def example(name: str, module: str, folder: Path) -> None:
    """Saves the class of the callbacks document as a file of the user."""
    code = block("callbacks/README.md", "python", f"class {name}")
    assert len(code[code.index("class ") :].strip().splitlines()) <= 15
    (folder / f"{module}.py").write_text(code)


def test_a_schedule_of_fifteen_lines_runs_over_the_updates(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example("Trapezoid", "trapezoid", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    callbacks = [{"class_path": "trapezoid.Trapezoid", "init_args": {"rise": 0.5, "fall": 0.5}}]
    run = fit(write(**{"trainer.callbacks": callbacks, "trainer.limit_train_batches": 1}))  # 3 updates
    assert [row["lr/fc"] for row in rows(run)] == pytest.approx([0.025, 0.05, 0.025])


def test_a_trigger_of_fifteen_lines_thaws_and_a_resume_keeps_what_it_decided(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example("ThawWhenFitted", "thaw_when_fitted", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = block("callbacks/README.md", "yaml", "thaw_when_fitted").replace("fc8", "fc")
    callbacks = yaml.safe_load(text)["callbacks"]
    start = weights(fit(write("start.yaml", **{"trainer.callbacks": callbacks, "trainer.max_epochs": 1})))
    for limit, thawed in ((100.0, True), (0.0, False)):
        callbacks[0]["init_args"]["losses"] = [limit]
        path = write(f"{limit}.yaml", **{"trainer.callbacks": callbacks, "trainer.max_epochs": 3})
        end = weights(fit(path))
        assert torch.equal(end["network.conv2.weight"], start["network.conv2.weight"]) != thawed
        assert not torch.equal(end["network.fc.weight"], start["network.fc.weight"])


def test_the_thawing_of_the_callbacks_document_is_taken_as_it_stands(write: Write) -> None:
    text = block("callbacks/README.md", "yaml", "when: all").replace("fc8", "fc").replace("[fc6, fc7]", "conv2")
    callbacks = yaml.safe_load(text.replace("epoch: 10", "epoch: 1"))["callbacks"]
    run = fit(write(**{"trainer.callbacks": callbacks}))
    assert [row["lr/conv2"] for row in rows(run)] == pytest.approx([0.005] * 3)


def test_every_command_of_the_front_page_exists() -> None:
    from tlkit.cli import COMMANDS

    used = set(re.findall(r"^tlkit ([\w-]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert used and used <= set(COMMANDS)


def test_every_file_the_documents_name_exists() -> None:
    for document in ("README.md", "callbacks/README.md"):
        text = (ROOT / document).read_text()
        for path in re.findall(r"(?<![\w/.])(?:configs|docs|benchmarks|callbacks)/[\w./-]+\.\w+", text):
            assert (ROOT / path).exists(), path


DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", "callbacks/*.md", "benchmarks/**/*.md", "configs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_of_a_document_leads_to_a_file(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", document.read_text())
    inside = [link for link in links if not link.startswith(("https://", "http://", "mailto:"))]
    assert [link for link in inside if not (document.parent / link).exists()] == []


@pytest.mark.parametrize(("document", "folder"), [("README.md", "."), ("docs/study.md", "configs/studies")])
def test_the_studies_of_the_documents_are_read(document: str, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(block(document, "yaml", "replicates:").replace("base: ", f"base: {ROOT / folder}/"))
    study, faults = read_study(path)
    assert study and faults == []
    plugins.load()
    assert level_faults(study, cells(study)) == []


def test_the_number_of_stages_on_the_front_page_is_right() -> None:
    study = yaml.safe_load(block("README.md", "yaml", "replicates:"))
    layers, sizes = study["scientific"]["pretrain.layers"], study["scientific"]["data.examples_per_class"]
    splits = study["replicates"]["data.split"]
    shared = len([k for k in layers if k]) * len(sizes) * len(splits)
    stages = len(splits) + len(layers) * len(sizes) * len(splits)
    assert (
        f"{stages} stages: {len(splits)} pretrains are shared by the {shared} runs" in (ROOT / "README.md").read_text()
    )
