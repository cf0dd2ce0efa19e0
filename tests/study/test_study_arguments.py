"""The words after ``tlkit study WORD``."""

from pathlib import Path

import pytest

from tlkit.cli import main


@pytest.mark.parametrize(
    "command", ["plan", "run", "table", "report", "clean", "export --to snakemake --out x", "stage"]
)
def test_a_name_in_place_of_the_file_is_told_which_file(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "s").mkdir(parents=True)
    (tmp_path / "configs" / "studies").mkdir(parents=True)
    word, *options = command.split()
    if word == "stage":
        options = ["an_id"]
    for name, file in (("s", "configs/studies/s.yaml"), ("runs/s", "configs/studies/s.yaml"), ("other", None)):
        if file:
            Path(file).write_text("")
        assert main(["study", word, name, *options]) == 2
        meant = f"; did you mean {file}?" if file else ";"
        expected = f"expected the study's YAML file, got '{name}'{meant} only tlkit study status takes a name"
        assert capsys.readouterr().err == f"tlkit: {expected}\n"
