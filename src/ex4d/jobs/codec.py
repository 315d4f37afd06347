"""Frozen dataclasses to JSON and back: strict, typed, versioned; the only place that knows what a RunConfig looks like.

A dataclass is an object with its class's name under "type", so that a union of dataclasses is read by that tag. Nothing is
guessed: unknown, missing and wrongly typed fields are refused with their place.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from ex4d.errors import InputError

#: Changes when a record written before could be read as something else.
VERSION = 1

TAG = "type"

T = TypeVar("T")


def encode(value: Any) -> Any:
    """JSON of a value made of dataclasses, tuples, string-keyed dicts, paths, fractions and plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        record = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if TAG in record:
            raise TypeError(f"{type(value).__name__} has a field named {TAG!r}, which is the tag's")
        return {TAG: type(value).__name__, **record}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a config's dict has a key that is no string")
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    if isinstance(value, Path):
        return {TAG: "path", "path": str(value)}
    if isinstance(value, Fraction):
        return {TAG: "fraction", "fraction": f"{value.numerator}/{value.denominator}"}
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{value} in a config", "a finite number", "another value")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a config holds a {type(value).__name__}, which has no JSON")


def decode(kind: type[T], data: Any, place: str = "config") -> T:
    """The value of type `kind` that `encode` wrote as `data`; InputError, with its place, for anything else."""
    return _decode(kind, data, place)


def _decode(kind: Any, data: Any, place: str) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _decode_any(data, place)
    if origin in (Union, types.UnionType):
        return _decode_union(args, data, place)
    if origin is Literal:
        if data not in args or type(data) not in {type(arg) for arg in args if arg == data}:
            raise _wrong(place, data, f"one of {', '.join(map(repr, args))}")
        return data
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, data, place)
    if origin is tuple:
        return _decode_tuple(args, data, place)
    if origin in (dict, Mapping):
        if not isinstance(data, dict):
            raise _wrong(place, data, "an object")
        return {key: _decode(args[1], item, f"{place}.{key}") for key, item in data.items()}
    return _decode_plain(kind, data, place)


def _decode_dataclass(kind: Any, data: Any, place: str) -> Any:
    if not isinstance(data, dict) or data.get(TAG) != kind.__name__:
        raise _wrong(place, data, f'an object with "{TAG}": "{kind.__name__}"')
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    for name in data.keys() - {TAG} - set(names):
        near = get_close_matches(name, names, 1)
        raise InputError(f"{place}.{name}", f"a field of {kind.__name__}", near[0] if near else ", ".join(names))
    for name in names:
        if name not in data:
            raise InputError(f"{place} without {name}", f"every field of {kind.__name__}", "submit the job again")
    return kind(**{name: _decode(hints[name], data[name], f"{place}.{name}") for name in names})


def _decode_union(kinds: tuple[Any, ...], data: Any, place: str) -> Any:
    tag = data.get(TAG) if isinstance(data, dict) else None
    for kind in kinds:
        if dataclasses.is_dataclass(kind) and tag is not None and tag == getattr(kind, "__name__", None):
            return _decode_dataclass(kind, data, place)
    for kind in sorted((k for k in kinds if not dataclasses.is_dataclass(k)), key=lambda k: k is float):
        try:
            return _decode(kind, data, place)
        except InputError:
            continue
    raise _wrong(place, data, " or ".join(getattr(kind, "__name__", str(kind)) for kind in kinds))


def _decode_tuple(args: tuple[Any, ...], data: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _wrong(place, data, "a list")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_decode(args[0], item, f"{place}[{k}]") for k, item in enumerate(data))
    if len(data) != len(args):
        raise _wrong(place, data, f"{len(args)} values")
    return tuple(_decode(kind, item, f"{place}[{k}]") for k, (kind, item) in enumerate(zip(args, data, strict=True)))


def _decode_plain(kind: Any, data: Any, place: str) -> Any:
    if kind is Path and isinstance(data, dict) and data.keys() == {TAG, "path"} and isinstance(data["path"], str):
        return Path(data["path"])
    if kind is Fraction and isinstance(data, dict) and data.keys() == {TAG, "fraction"}:
        return _fraction(data["fraction"], place)
    if kind in (None, types.NoneType) and data is None:
        return None
    if kind is float and isinstance(data, (int, float)) and not isinstance(data, bool):
        return float(data)
    if kind in (bool, int, str) and type(data) is kind:
        return data
    raise _wrong(place, data, getattr(kind, "__name__", str(kind)))


def _decode_any(data: Any, place: str) -> Any:
    """What `encode` writes of an untyped value: lists come back as tuples, tagged paths and fractions as such."""
    if isinstance(data, dict):
        if data.get(TAG) == "path":
            return _decode_plain(Path, data, place)
        if data.get(TAG) == "fraction":
            return _decode_plain(Fraction, data, place)
        return {key: _decode_any(item, f"{place}.{key}") for key, item in data.items()}
    if isinstance(data, list):
        return tuple(_decode_any(item, f"{place}[{k}]") for k, item in enumerate(data))
    return data


def _fraction(text: Any, place: str) -> Fraction:
    try:
        return Fraction(text)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise _wrong(place, text, "a fraction such as 24000/1001") from error


def _wrong(place: str, data: Any, need: str) -> InputError:
    shown = repr(data)
    return InputError(f"{place} is {shown[:80]}{'...' if len(shown) > 80 else ''}", need, "submit the job again")
