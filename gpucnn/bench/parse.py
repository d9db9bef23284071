"""Dataclasses from JSON that may come from anywhere: a value that does not fit is an error that names its field."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

Parsed = TypeVar("Parsed")

LARGEST = 1 << 1023  # that a float holds
NAMES = {str: "text", int: "a whole number", float: "a number", dict: "an object", types.NoneType: "null"}


def parsed(kind: type[Parsed], value: Any, where: str = "") -> Parsed:
    """``value``, of plain JSON types, as the dataclass ``kind``, whose fields are str, int, float, dict, optional ones,
    other dataclasses and tuples of any of them. Fields that have a default may be missing, and no others be there.

    Raises ValueError that begins with the path of the field, as in "steps[0].results[1].seconds[2]".
    """
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'the file'} is {shown(value)}, expected an object")
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    prefix = f"{where}." if where else ""
    for name in value:
        if name not in fields:
            raise ValueError(f"{prefix}{name} is no field; known are {', '.join(fields)}")
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = _fit(hints[name], value[name], prefix + name)
        elif field.default is dataclasses.MISSING:
            raise ValueError(f"{prefix}{name} is missing")
    try:
        return kind(**found)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from error


def shown(value: Any) -> str:
    """A value in a message, cut where it is long."""
    text = "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _fit(hint: Any, value: Any, where: str) -> Any:
    """``value`` as ``hint`` wants it."""
    origin = typing.get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {shown(value)}, expected a list")
        item, _ = typing.get_args(hint)
        return tuple(_fit(item, each, f"{where}[{at}]") for at, each in enumerate(value))
    choices = typing.get_args(hint) if origin is types.UnionType else (origin or hint,)
    for choice in choices:
        if dataclasses.is_dataclass(choice):
            return parsed(typing.cast(type, choice), value, where)
        if type(value) is choice or (choice is float and type(value) is int and abs(value) < LARGEST):
            return float(value) if choice is float else value
    raise ValueError(f"{where} is {shown(value)}, expected {' or '.join(NAMES[choice] for choice in choices)}")
