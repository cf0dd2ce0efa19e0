"""What ``tlkit plugins`` prints: callbacks, what they are for, their arguments with units and defaults."""

import inspect
import textwrap
from collections.abc import Iterator

from docstring_parser import ParseError, parse

from tlkit import plugins

WIDTH = 120


def print_plugins() -> None:
    """Prints what each installed package of callbacks provides, and what could not be loaded."""
    for plugin in plugins.load():
        print(f"{plugin.distribution}  ({plugin.module})")
        if plugin.error:
            print(f"  not loaded: {plugin.error}")
        for name, cls in plugin.classes.items():
            print(f"\n  {name}: {_summary(cls)}".rstrip(": "))
            for line in _arguments(cls):
                print(textwrap.fill(line, WIDTH, initial_indent="      ", subsequent_indent="          "))


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or "").partition("\n")[0] if cls.__doc__ else ""


def _arguments(cls: type) -> Iterator[str]:
    """Yields one line per argument: name, default, what the class's docstring says of it."""
    try:
        said = {item.arg_name: item.description or "" for item in parse(cls.__doc__ or "").params}
    except ParseError:  # of somebody else's docstring
        said = {}
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        head = parameter.name if required else f"{parameter.name} = {_yaml(parameter.default)}"
        text = " ".join(said.get(parameter.name, "").split())
        yield f"{head}{' (required)' if required else ''}{': ' if text else ''}{text}"


def _yaml(value: object) -> str:
    """Returns a default as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
