"""What a run's identity depends on, and what it does not."""

from copy import deepcopy
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import torch
import yaml
from conftest import Write, toy_experiment
from test_fit import quiet  # noqa: F401  the fixture applies here too

from tlkit.commands import load_experiment
from tlkit.experiment import Stage, plan
from tlkit.identity import canonical_hash, file_hash, ingredients, sources


def stage(path: Path, *words: str) -> Stage:
    return plan(load_experiment(["--config", str(path), *words]))


def identity(config: dict[str, Any], **arguments: Any) -> str:
    return canonical_hash(ingredients(config, **arguments))


def reordered(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: reordered(value) for key, value in reversed(node.items())}
    return node


def test_the_order_of_keys_and_comments_change_nothing(write: Write, tmp_path: Path) -> None:
    text = yaml.safe_dump(reordered(toy_experiment(tmp_path)), sort_keys=False)
    other = tmp_path / "other.yaml"
    other.write_text("# a question\n" + text.replace("trainer:", "trainer:  # of both stages"))
    first, second = stage(write()), stage(other)
    assert other.read_text() != write().read_text()
    assert first.id == second.id
    assert first.pretrain and second.pretrain and first.pretrain.id == second.pretrain.id


def test_defaults_that_are_written_out_change_nothing(write: Write) -> None:
    assert stage(write(), "--data.batch_size", "8", "--model.network.width", "4").id == stage(write()).id


@pytest.mark.parametrize(
    "words",
    [
        ("--data.num_workers", "2"),
        ("--data.cache_dir", "elsewhere"),
        ("--runs", "elsewhere"),
        ("--name", "other"),
        ("--trainer.enable_progress_bar", "true"),
        ("--trainer.log_every_n_steps", "3"),
        ("--trainer.logger", "false"),
        ("--pretrain.reuse", "false"),
    ],
)
def test_what_cannot_change_the_result_does_not_count(words: tuple[str, ...], write: Write) -> None:
    first, second = stage(write()), stage(write(), *words)
    assert first.id == second.id
    assert first.pretrain and second.pretrain and first.pretrain.id == second.pretrain.id


@pytest.mark.parametrize(
    ("words", "pretrain_too"),
    [
        (("--trainer.max_epochs", "9"), False),  # the pretrain has its own
        (("--trainer.callbacks", "[]"), False),
        (("--pretrain.layers", "1"), False),
        (("--data.batch_size", "4"), True),
        (("--model.optimizer.lr", "0.01"), True),
        (("--model.network.width", "5"), True),
        (("--seed_everything", "1"), True),
        (("--trainer.gradient_clip_val", "1"), True),
    ],
)
def test_what_can_change_the_result_counts_in_the_stages_it_reaches(
    words: tuple[str, ...], pretrain_too: bool, write: Write
) -> None:
    first, second = stage(write()), stage(write(), *words)
    assert first.id != second.id
    assert first.pretrain and second.pretrain
    assert (first.pretrain.id != second.pretrain.id) == pretrain_too


def test_the_content_of_the_data_counts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from toy import ToyData

    before = stage(write()).id
    monkeypatch.setattr(ToyData, "fingerprint", lambda self: "changed")
    assert stage(write()).id != before


def test_the_number_of_threads_counts() -> None:
    threads = torch.get_num_threads()
    arguments: dict[str, Any] = {"data_fingerprint": None, "data_not_identity": (), "pretrain": None, "seed": 0}
    config = {"trainer": {}, "model": {}}
    try:
        torch.set_num_threads(1)
        one = identity(config, **arguments)
        torch.set_num_threads(2)
        two = identity(config, **arguments)
    finally:
        torch.set_num_threads(threads)
    assert one != two


def test_the_data_sections_paths_are_dropped_at_any_depth_and_nothing_else() -> None:
    arguments: dict[str, Any] = {"data_fingerprint": "f", "pretrain": None, "seed": 0}
    inner = {"class_path": "tlkit.data.ImageFolder", "init_args": {"root": "a", "extension": ".png"}}
    config = {"trainer": {}, "model": {"root": 1}, "data": {"init_args": {"dataset": inner, "root": "a"}}}

    def of(path: str, value: Any) -> str:
        changed: dict[str, Any] = deepcopy(config)
        *parents, key = path.split(".")
        node = changed
        for parent in parents:
            node = node[parent]
        node[key] = value
        return identity(changed, data_not_identity=("root",), **arguments)

    same = of("model.root", 1)
    assert of("data.init_args.root", "b") == same
    assert of("data.init_args.dataset.init_args.root", "b") == same
    assert of("data.init_args.dataset.init_args.extension", ".tif") != same
    assert of("model.root", 2) != same


def test_the_source_of_a_class_of_the_users_counts_and_that_of_ours_does_not(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "my_protocol.py"
    code = """
        from lightning.pytorch import Callback

        class Mine(Callback):
            class Inner(Callback):
                pass
    """
    file.write_text(dedent(code))
    monkeypatch.syspath_prepend(tmp_path)
    ours = {"class_path": "LayerFreezing", "init_args": {"layers": 1}}
    path = write(**{"trainer.callbacks": [{"class_path": "my_protocol.Mine"}, ours]})
    first = stage(path)
    found = sources(first.config)
    assert found["my_protocol.Mine"] == file_hash(file)
    assert set(found) == {"my_protocol.Mine", "toy.ToyData", "toy.ToyNet"}
    file.write_text(dedent(code) + "\n# another comment is another source\n")
    second = stage(path)
    assert first.id != second.id
    assert first.pretrain and second.pretrain and first.pretrain.id == second.pretrain.id  # it has no callbacks
    assert sources([{"class_path": "my_protocol.Mine.Inner"}]) == {"my_protocol.Mine.Inner": file_hash(file)}


def test_a_class_without_a_source_file_counts_by_its_name() -> None:
    assert sources({"class_path": "itertools.count"}) == {"itertools.count": "no source"}


def test_the_canonical_hash_is_that_of_sorted_json_without_white_space() -> None:
    import hashlib

    expected = hashlib.sha256(b'{"a":[1,2.5,null],"b":{"c":true,"d":"x"}}').hexdigest()
    assert canonical_hash({"b": {"d": "x", "c": True}, "a": [1, 2.5, None]}) == expected
    assert canonical_hash({"a": 1}) != canonical_hash({"a": "1"})
