import errno
import json
import logging
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from tlkit.data.packed import Store, build
from tlkit.data.parallel import each
from tlkit.errors import UserError

SPEC = {"input": (np.uint16, (5, 2)), "target": (np.int64, (5,))}


def fill(arrays):
    arrays["input"][:] = np.arange(10).reshape(5, 2) + 65526
    arrays["target"][:] = [4, 3, 2, 1, 0]


def refuse(arrays):
    raise AssertionError("the entry should have been found")


def broken_open(store: Store, file: str, change):
    """Damages one file of an entry and returns what a second ``build`` logs and gives."""
    path = store.folder / file
    change(path)
    return build(store.folder.parent, "f" * 64, SPEC, fill)


def test_rows_are_taken_in_the_order_asked_for_and_uint16_as_int32(tmp_path):
    store = build(tmp_path, "f" * 64, SPEC, fill)
    taken = store.take("input", np.array([4, 0, 4]))
    assert taken.dtype == torch.int32
    assert taken.tolist() == [[65534, 65535], [65526, 65527], [65534, 65535]]
    assert store.take("target", np.array([1, 3])).tolist() == [3, 1]
    assert len(store) == 5


def test_an_entry_is_built_once_and_opened_read_only(tmp_path):
    build(tmp_path, "f" * 64, SPEC, fill)
    store = build(tmp_path, "f" * 64, SPEC, refuse)
    with pytest.raises(ValueError, match="read-only"):
        store.arrays["target"][0] = 1
    assert not list(tmp_path.glob("*.partial"))


def test_another_fingerprint_is_another_entry(tmp_path):
    first = build(tmp_path, "a" * 64, SPEC, fill)
    second = build(tmp_path, "b" * 64, SPEC, fill)
    assert first.folder != second.folder


@pytest.mark.parametrize("file", ["input.npy", "target.npy", "meta.json"])
def test_an_entry_that_was_cut_off_is_built_again_with_a_warning(tmp_path, caplog, file):
    store = build(tmp_path, "f" * 64, SPEC, fill)
    with caplog.at_level(logging.WARNING):
        again = broken_open(store, file, lambda path: os.truncate(path, path.stat().st_size - 1))
    assert "building it again" in caplog.text
    assert again.take("target", np.arange(5)).tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize("file", ["input.npy", "meta.json"])
def test_an_entry_that_lost_a_file_is_built_again(tmp_path, caplog, file):
    store = build(tmp_path, "f" * 64, SPEC, fill)
    again = broken_open(store, file, lambda path: path.unlink())
    assert "building it again" in caplog.text
    assert len(again) == 5


def test_an_entry_of_another_content_under_the_same_name_is_built_again(tmp_path, caplog):
    store = build(tmp_path, "f" * 64, SPEC, fill)

    def rename(path):
        meta = json.loads(path.read_text())
        path.write_text(json.dumps(meta | {"fingerprint": "e" * 64}))

    broken_open(store, "meta.json", rename)
    assert "building it again" in caplog.text


def test_a_builder_that_fails_leaves_nothing_half_written(tmp_path):
    def fail(arrays):
        arrays["target"][0] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, "f" * 64, SPEC, fail)
    assert [path.name for path in tmp_path.iterdir()] == [f"data-{'f' * 24}.lock"]


def test_a_full_disk_is_the_users_error_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(descriptor, start, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"0\.00 GB or more of free space.*--data\.cache_dir"):
        build(tmp_path, "f" * 64, SPEC, refuse)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_a_cache_directory_that_is_a_file_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"writable cache directory.*--data\.cache_dir"):
        build(tmp_path / "file", "f" * 64, SPEC, refuse)


def test_a_data_file_without_permission_is_not_taken_for_the_cache(tmp_path):
    def forbidden(arrays):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/image.png")

    with pytest.raises(PermissionError, match="image.png"):
        build(tmp_path / "cache", "f" * 64, SPEC, forbidden)


def test_what_a_killed_builder_left_is_removed(tmp_path):
    left = tmp_path / f"data-{'f' * 24}.partial"
    left.mkdir()
    (left / "input.npy").write_bytes(b"half")
    build(tmp_path, "f" * 64, SPEC, fill)
    assert not left.exists()


def build_slowly(folder, count):
    def slow(arrays):
        with count.get_lock():
            count.value += 1
        time.sleep(0.3)
        fill(arrays)

    assert build(folder, "f" * 64, SPEC, slow).take("target", np.array([0])).item() == 4


def test_two_processes_build_once(tmp_path):
    context = multiprocessing.get_context("fork")
    count = context.Value("i", 0)
    processes = [context.Process(target=build_slowly, args=(tmp_path, count)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert count.value == 1


def test_byte_strings_come_back_by_row(tmp_path):
    rows = [b"abc", b"", b"de", b"f", b"ghij"]
    store = build(
        tmp_path, "f" * 64, {"target": (np.int64, (5,))}, lambda arrays: None, blobs={"text": lambda: iter(rows)}
    )
    taken = store.take_bytes("text", np.array([4, 1, 0]))
    assert [bytes(one.tolist()) for one in taken] == [b"ghij", b"", b"abc"]


def test_arrays_of_different_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="share their first dimension"):
        build(tmp_path, "f" * 64, {"a": (np.int64, (5,)), "b": (np.int64, (4,))}, lambda arrays: None)


@pytest.mark.parametrize("processes", [1, 2])
def test_forked_processes_write_to_the_shared_arrays(tmp_path, processes):
    def fill_parallel(arrays):
        def work(index):
            arrays["target"][index] = index * index
            return index

        assert list(each(work, 5, "squares", processes)) == [0, 1, 2, 3, 4]

    store = build(tmp_path, "f" * 64, SPEC, fill_parallel)
    assert store.take("target", np.arange(5)).tolist() == [0, 1, 4, 9, 16]


def test_an_error_in_a_forked_process_reaches_the_caller():
    def work(index):
        if index == 3:
            raise UserError("the third")
        return index

    with pytest.raises(UserError, match="the third"):
        list(each(work, 40, "failing", 2))


def work_as_daemon(queue):
    queue.put(list(each(lambda index: (index, os.getpid()), 3, "alone", 2)))


def test_a_daemon_which_may_have_no_children_does_the_work_itself():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=work_as_daemon, args=(queue,), daemon=True)
    process.start()
    assert queue.get(timeout=30) == [(index, process.pid) for index in range(3)]
    process.join()
