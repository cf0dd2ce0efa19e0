"""Callback packages that announce themselves under the entry-point group ``tlkit.callbacks``.

An entry point names a *module*; importing it makes its classes known by their short names in YAML. A package that
cannot be imported is skipped with a warning that names its distribution.
"""

import importlib
import inspect
import logging
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

GROUP = "tlkit.callbacks"

log = logging.getLogger("tlkit")


@dataclass(frozen=True)
class Plugin:
    """One announced package.

    Attributes:
        distribution: name and version of what was installed.
        module: what its entry point names.
        classes: names of the callbacks it provides.
        error: why it could not be imported; None if it was.
    """

    distribution: str
    module: str
    classes: dict[str, type] = field(default_factory=dict)
    error: str | None = None


@cache
def load() -> tuple[Plugin, ...]:
    """Imports every announced package once; warns about those that fail and about names defined twice."""
    plugins = tuple(_load(entry) for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.value))
    for plugin in plugins:
        if plugin.error:
            log.warning("plugin %s (%s) is skipped: %s", plugin.distribution, plugin.module, plugin.error)
    for message in clashes(plugins):
        log.warning(message)
    return plugins


def clashes(plugins: tuple[Plugin, ...]) -> list[str]:
    """Returns a message for each class name that two packages, or a package and Lightning, define."""
    from lightning.pytorch import callbacks

    owners: dict[str, dict[type, str]] = {
        name: {getattr(callbacks, name): f"lightning.pytorch.callbacks.{name}"} for name in callbacks.__all__
    }
    for plugin in plugins:
        for name, cls in plugin.classes.items():
            owners.setdefault(name, {}).setdefault(cls, f"{cls.__module__}.{name} ({plugin.distribution})")
    return [
        f"the name {name} is defined by {' and by '.join(where.values())}; write the one you mean with its full path"
        for name, where in owners.items()
        if len(where) > 1
    ]


def failures() -> str:
    """Returns a note on the packages that failed, for messages about a name that was not found; '' if none did."""
    broken = [f"{plugin.distribution} ({plugin.error})" for plugin in load() if plugin.error]
    return f"these plugins could not be loaded, the name may be theirs: {'; '.join(broken)}" if broken else ""


def _load(entry: EntryPoint) -> Plugin:
    distribution = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown distribution"
    try:
        module = importlib.import_module(entry.module)
    except (Exception, SystemExit) as error:  # whatever a third party's import does must not stop everyone else's run
        return Plugin(distribution, entry.value, error=f"{type(error).__name__}: {error}")
    return Plugin(distribution, entry.value, classes=_callbacks(module))


def _callbacks(module: ModuleType) -> dict[str, type]:
    from lightning.pytorch import Callback

    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, Callback)
        and not inspect.isabstract(value)
        and value.__module__.partition(".")[0] == module.__name__.partition(".")[0]
    }
