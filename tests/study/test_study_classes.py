"""What the constructor of a user's class raises is a fault of the level that it gets, not a traceback."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import Write

from tlkit.cli import main

CLASSES = """\
import toy
from lightning.pytorch import Callback


class Net(toy.ToyNet):
    def __init__(self, num_classes: int = 10, in_channels: int = 3, kind: str = "good"):
        if kind == "value":
            raise ValueError("kind must be good")
        if kind == "key":
            {"good": 1}[kind]
        if kind == "assert":
            assert kind == "good"
        if kind == "torch":
            toy.nn.Conv2d(in_channels, 4, 3, groups=7)
        super().__init__(num_classes, in_channels)


class Watch(Callback):
    def __init__(self, every: int = 1):
        if every < 1:
            raise TypeError("every must be above 0")


class Data(toy.ToyData):
    def __init__(self, cache_dir: str = "~/.cache/tlkit", part: int = 0):
        super().__init__(cache_dir=cache_dir)
        self.part = [0, 1][part]
"""
STUDY = """\
name: toys
goal: What is refused?
base: toy.yaml
scientific:
  model.network.kind:
    - good
    - value
    - key
    - assert
    - torch
  protocol:
    none: {callbacks.Watch.every: 1}
    often: {callbacks.Watch.every: 0}
replicates:
  data.part: [0, 5]
metric: {name: test/accuracy, mode: max}
"""
EXPECTED = {
    7: "Net cannot be made: ValueError: kind must be good (classes_of_a_user.py, line 8)",
    8: "Net cannot be made: KeyError: 'key' (classes_of_a_user.py, line 10)",
    9: "Net cannot be made: AssertionError (classes_of_a_user.py, line 12)",
    10: "Net cannot be made: ValueError: in_channels must be divisible by groups (classes_of_a_user.py, line 14)",
    13: "Watch cannot be made: TypeError: every must be above 0 (classes_of_a_user.py, line 21)",
    15: "Data cannot be made: IndexError: list index out of range (classes_of_a_user.py, line 27)",
}


def test_all_are_told_at_once_with_their_lines(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "classes_of_a_user.py").write_text(dedent(CLASSES))
    write(
        **{
            "model.init_args.network.class_path": "classes_of_a_user.Net",
            "data.class_path": "classes_of_a_user.Data",
            "pretrain": {"layers": 0},
            "trainer.callbacks": [{"class_path": "classes_of_a_user.Watch"}],
        }
    )
    (tmp_path / "study.yaml").write_text(STUDY)
    assert main(["study", "plan", str(tmp_path / "study.yaml")]) == 2
    said = capsys.readouterr().err
    found = {int(match[1]): match[2] for match in re.finditer(r"line (\d+)  [\w.]+: (.+)", said)}
    assert found == EXPECTED
    assert "6 faults" in said and "Traceback" not in said


def test_a_bug_elsewhere_keeps_its_traceback(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from toy import ToyData

    write()
    path = write().with_name("study.yaml")
    text = "name: s\ngoal: Which?\nbase: toy.yaml\nscientific: {pretrain.layers: [0, 2]}\n"
    path.write_text(text + "metric: {name: test/accuracy, mode: max}\n")

    def broken(self: ToyData) -> str:
        raise ValueError("a bug")

    monkeypatch.setattr(ToyData, "fingerprint", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["study", "plan", str(path)])
