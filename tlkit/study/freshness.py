"""What a stored plan was made from, so that it is used only while nothing of it has changed. Imports no torch."""

import hashlib
import importlib.util
import os
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

from tlkit.study.spec import Study

FORMAT = 1
DISTRIBUTIONS = ("tlkit", "torch", "torchvision", "lightning", "jsonargparse", "scipy")
CACHES = ("cache_dir",)  # written to by every run; nothing that counts is in them


def key(study: Study, root: Path, configs: list[dict[str, Any]], sources: Iterable[str]) -> dict[str, Any]:
    """Returns what a plan depends on.

    Args:
        study: as written.
        root: directory of all runs.
        configs: of its stages.
        sources: class paths outside tlkit that are named in them.
    """
    texts = {text for config in configs for text in _texts([config.get("data"), config.get("pretrain")])}
    places = sorted(text for text in texts if 0 < len(text) < 1000 and os.path.exists(os.path.expanduser(text)))
    files = {file for name in sources if (file := _source(name))}
    return {
        **_of_study(study, root),
        "sources": {file: _digest(Path(file)) for file in sorted(files)},
        "data": {place: _stamp(place) for place in places},
    }


def same(stored: dict[str, Any], study: Study, root: Path) -> bool:
    """Tells whether a plan made from this would be made again."""
    return stored == {
        **_of_study(study, root),
        "sources": {file: _digest(Path(file)) for file in stored["sources"]},
        "data": {place: _stamp(place) for place in stored["data"]},
    }


def _of_study(study: Study, root: Path) -> dict[str, Any]:
    return {
        "study": _digest(study.path),
        "base": _digest(study.base),
        "root": str(root),
        "folder": os.getcwd(),  # what relative paths are relative to
        "versions": {name: _version(name) for name in DISTRIBUTIONS},
        "plugins": sorted(f"{point.name} {point.value}" for point in entry_points(group="tlkit.callbacks")),
        "code": hashlib.sha256("\n".join(_own_code()).encode()).hexdigest(),
    }


def _own_code() -> Iterator[str]:
    """Yields a line for each source file of tlkit and its callbacks, with size and time of change."""
    for package in ("tlkit", "tlkit_callbacks"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or ()) if spec else ():
            yield _stamp(place, suffix=".py")


def _stamp(place: str, suffix: str = "") -> str:
    """Returns a hash of names, sizes and times of change of a file, or of all files below a directory."""
    path = os.path.expanduser(place)
    found = hashlib.sha256()
    below = [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]
    for file in sorted(file for file in below or [path] if file.endswith(suffix)):
        try:
            status = os.stat(file)
        except OSError:
            continue
        found.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


def _texts(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict):
        for name, value in node.items():
            if name not in CACHES:
                yield from _texts(value)
    elif isinstance(node, list):
        for item in node:
            yield from _texts(item)


def _source(class_path: str) -> str | None:
    import inspect

    from jsonargparse._util import import_object

    try:
        return inspect.getsourcefile(import_object(class_path))
    except TypeError:  # a class of a compiled module
        return None


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
