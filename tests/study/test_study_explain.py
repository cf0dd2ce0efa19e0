"""``--explain``: each thing that an identity depends on is named when it has changed."""

import re
from pathlib import Path

import pytest
from conftest import Write
from test_study_plan import finish, say

from tlkit import identity
from tlkit.errors import UserError
from tlkit.study.plan import plan_study

STUDY = """\
name: toys
goal: What has changed?
base: toy.yaml
scientific: {pretrain.layers: [0]}
metric: {name: test/accuracy, mode: max}
"""
CLASS = """\
import toy


class OwnData(toy.ToyData):
    def __init__(self, folder: str = "FOLDER", **rest):
        super().__init__(**rest)
        self.folder = folder

    def fingerprint(self) -> str:
        return open(f"{self.folder}/one").read()
"""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("source", r"source of explained_source\.OwnData: [0-9a-f]{12} -> [0-9a-f]{12}"),
        ("threads", "threads: 1 -> 2"),
        ("data", "content of the data: first -> second"),
        ("version", f"results version: {identity.RESULTS_VERSION} -> {identity.RESULTS_VERSION + 1}"),
        ("goal", ""),
    ],
)
def test_what_has_changed_is_named(
    what: str,
    expected: str,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "one").write_text("first")
    module = tmp_path / f"explained_{what}.py"
    module.write_text(CLASS.replace("FOLDER", str(tmp_path / "files")))
    monkeypatch.syspath_prepend(tmp_path)
    study = write(**{"data.class_path": f"{module.stem}.OwnData", "data.init_args": {}}).with_name("study.yaml")
    study.write_text(STUDY)
    (before,) = (planned := plan_study(study)).plan.stages
    finish(planned, before)
    study.write_text(STUDY.replace("changed", "changed now") + "threads: 2\n" * (what == "threads"))
    if what == "source":
        module.write_text(module.read_text() + "# changed\n")
    elif what == "data":
        (tmp_path / "files" / "one").write_text("second")
    elif what == "version":
        monkeypatch.setattr(identity, "RESULTS_VERSION", identity.RESULTS_VERSION + 1)
    (now,) = plan_study(study).plan.stages
    said = say(capsys, "plan", study, "--explain", now[:8]).splitlines()
    if not expected:
        assert now == before and f"transfer-{now[:8]} is done" in said[0]
    else:
        assert now != before and len(said) == 2
        assert "differs from the nearest that is done" in said[0]
        assert re.fullmatch(f"  {expected}", said[1])


def test_an_id_may_be_copied_from_what_is_said(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    study = write().with_name("study.yaml")
    study.write_text(STUDY)
    (id_,) = plan_study(study).plan.stages
    with pytest.raises(
        UserError, match=f"got 'z', with which no id begins; such as transfer-{id_[:8]}; tlkit study table {study}"
    ):
        say(capsys, "plan", study, "--explain", "z")
    told = f"transfer-{id_[:8]} is to be run: no transfer stage of this study has been"
    assert told in say(capsys, "plan", study, "--explain", f"transfer-{id_[:8]}")
