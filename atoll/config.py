"""Settings of a program: a frozen dataclass, filled from a TOML file and then from the environment.

A key nobody knows is refused with the nearest one that exists, and every mistake is told at once. A field `etcd` is
read from `<PREFIX>ETCD`; there, lists are separated by commas and tables written as `key=value,key=value`. Paths in a
file are relative to that file. What a value means, and its bounds, belong to the dataclass: a ValueError raised in its
`__post_init__` is told like any other mistake.
"""

import dataclasses
import difflib
import os
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from atoll.errors import Invalid, Mistake

Settings = TypeVar("Settings")


def load(
    cls: type[Settings], path: Path | None, environment_prefix: str, environment: Mapping[str, str] | None = None
) -> Settings:
    """Settings of type `cls`: its defaults, then `path`, then the environment. Raises Invalid with every mistake."""
    types = typing.get_type_hints(cls)
    folder = path.parent if path else Path()
    mistakes: list[Mistake] = []
    values: dict[str, Any] = {}
    for key, value in _read(path).items():
        if key not in types:
            mistakes.append(_unknown(key, key, types))
        else:
            _convert(key, key, value, types, folder, values, mistakes)
    for variable, text in sorted((os.environ if environment is None else environment).items()):
        if not variable.startswith(environment_prefix):
            continue
        key = variable.removeprefix(environment_prefix).lower()
        if key not in types:
            mistakes.append(_unknown(variable, key, types))
        else:
            _convert(variable, key, _from_text(text, types[key]), types, Path(), values, mistakes)
    mistakes += [
        Mistake(name, "is missing") for name in _required(cls) if name not in values and not _named(name, mistakes)
    ]
    return _build(cls, values, mistakes, str(path or "the environment"))


def _build(cls: type[Settings], values: dict[str, Any], mistakes: list[Mistake], source: str) -> Settings:
    if not mistakes:
        try:
            return cls(**values)
        except ValueError as error:
            mistakes.append(Mistake("", str(error)))
    raise Invalid(f"the settings in {source} are not valid", mistakes=tuple(mistakes), code="E1010")


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"the settings in {path} cannot be read: {error}", code="E1010") from error


def _required(cls: type[Any]) -> list[str]:
    missing = dataclasses.MISSING
    return [f.name for f in dataclasses.fields(cls) if f.default is missing and f.default_factory is missing]


def _named(name: str, mistakes: list[Mistake]) -> bool:
    return any(mistake.path == name for mistake in mistakes)


def _unknown(shown: str, key: str, types: Mapping[str, Any]) -> Mistake:
    near = difflib.get_close_matches(key, types, n=1)
    return Mistake(shown, f"is not a setting{f': did you mean {near[0]!r}?' if near else ''}")


def _convert(
    shown: str,
    key: str,
    value: Any,
    types: Mapping[str, Any],
    folder: Path,
    values: dict[str, Any],
    mistakes: list[Mistake],
) -> None:
    def path_or_refuse(kind: type[Any], raw: Any) -> Any:
        if kind is Path and isinstance(raw, str):
            return folder / raw
        raise ValueError(f"expected {kind.__name__}")

    try:
        values[key] = msgspec.convert(value, types[key], dec_hook=path_or_refuse)
    except msgspec.ValidationError as error:
        mistakes.append(Mistake(shown, str(error)))


def _from_text(text: str, kind: Any) -> Any:
    """The value that TOML would have held for `text`; `_convert` then says whether it fits."""
    origin = typing.get_origin(kind) or kind
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if origin in (tuple, list):
        return parts
    if origin is dict:
        return dict(part.partition("=")[::2] for part in parts)
    if origin in (str, Path):
        return text
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError:
        return text
