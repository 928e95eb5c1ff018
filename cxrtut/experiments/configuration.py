"""A paper's configuration from the words of a command line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any, TypeVar

C = TypeVar("C")
_WORDS = {"true": True, "yes": True, "false": False, "no": False}


class ConfigurationError(ValueError):
    """A setting that a paper's configuration does not have, or a value it cannot take."""


def override(config: C, settings: Iterable[str]) -> C:
    """The configuration with some fields replaced.

    Args:
        config: a frozen dataclass of numbers, truth values and strings.
        settings: such as "steps=100"; a value has the type of the field it replaces.

    Raises:
        ConfigurationError: no such field, or a value of another type.
    """
    changed: dict[str, Any] = {}
    known = {field.name: getattr(config, field.name) for field in fields(config)}  # type: ignore[arg-type]
    for setting in settings:
        name, sign, text = setting.partition("=")
        if not sign or name not in known:
            raise ConfigurationError(
                f"expected NAME=VALUE with a name of {', '.join(known)}; got {setting!r}"
            )
        changed[name] = _parsed(name, text, known[name])
    try:
        return replace(config, **changed)  # type: ignore[type-var]
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _parsed(name: str, text: str, before: object) -> object:
    if isinstance(before, bool):
        if text.lower() not in _WORDS:
            raise ConfigurationError(f"{name}: expected true or false, got {text!r}")
        return _WORDS[text.lower()]
    try:
        return type(before)(text)  # type: ignore[call-arg]
    except ValueError as error:
        kind = {int: "a whole number", float: "a number"}.get(type(before), "a value")
        raise ConfigurationError(f"{name}: expected {kind}, got {text!r}") from error
