"""Payloads: what Python's values are on the wire, and back.

A `str` is text, `bytes` are themselves, everything else is JSON: dicts, lists, numbers, dataclasses, pydantic models.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cache
from typing import Any, TypeVar
from uuid import UUID

from ._error import PayloadError

T = TypeVar("T")

#: The content type of JSON payloads.
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"
#: Deeper JSON is refused rather than followed: nobody sends it in good faith.
DEEPEST = 200


def _is_model(kind: Any) -> bool:
    """Whether it is a class of pydantic, which need not be installed."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)


def encode(payload: object) -> tuple[str, bytes]:
    """The content type and the bytes of a payload."""
    match payload:
        case bytes() | bytearray() | memoryview():
            return BYTES, bytes(payload)
        case str():
            return TEXT, _utf8(payload)
        case _:
            return JSON, encode_json(payload)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"the payload is no valid text: {error.reason}") from None


def encode_json(value: object) -> bytes:
    """A value as JSON."""
    try:
        if _is_model(type(value)):
            return typing.cast(str, value.model_dump_json()).encode()  # type: ignore[attr-defined]
        return _utf8(json.dumps(value, default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")))
    # What these say may hold values. No text of a payload gets into an error: errors are logged.
    except TypeError:
        raise PayloadError("the payload can't be encoded as JSON: a key is no string") from None
    except ValueError:
        raise PayloadError("the payload can't be encoded as JSON: a value in it has no form there, such as NaN, or what holds itself") from None
    except RecursionError:
        raise PayloadError("the payload can't be encoded as JSON: it is too deep") from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if _is_model(type(value)):
        return value.model_dump(mode="json")
    match value:
        case enum.Enum():
            return value.value
        case datetime() | date():
            return value.isoformat()
        case UUID():
            return str(value)
        case set() | frozenset():
            return list(value)
        case Mapping():
            return dict(value)
        case _:
            raise PayloadError(f"the payload can't be encoded as JSON: {type(value).__name__} has no form there")


def parse_json(data: bytes) -> Any:
    """Any JSON value. What JSON does not have, such as NaN, is refused."""

    def refuse(constant: str) -> Any:
        raise PayloadError(f"the payload is not JSON: {constant} is no JSON")

    try:
        return json.loads(data.decode(), parse_constant=refuse)
    except PayloadError:
        raise
    except RecursionError:
        raise PayloadError("the payload is not JSON: it is too deep") from None
    except json.JSONDecodeError as error:
        raise PayloadError(f"the payload is not JSON: line {error.lineno}, column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise PayloadError(f"the payload is not JSON: no UTF-8 at byte {error.start}") from None
    except ValueError:
        raise PayloadError("the payload is not JSON that can be read: a number is too long") from None


def decode_json(data: bytes, kind: Any) -> Any:
    """A JSON payload as a value of this type. A dataclass takes what has its fields, and passes over others."""
    if _is_model(kind):
        try:
            return kind.model_validate_json(data)
        except Exception as error:
            raise _not_of_model(error, kind, "") from None
    try:
        return _read(parse_json(data), kind, "", 0)
    except RecursionError:
        raise PayloadError("the payload is too deep") from None


def decode(content_type: str, data: bytes, kind: Any) -> Any:
    """A payload as a value of this type: text for `str`, bytes for `bytes`, JSON for everything else.

    With `Any` it is what the content type says.
    """
    is_json = content_type.partition(";")[0].strip().lower() in ("", JSON) or content_type.endswith("+json")
    if kind is bytes:
        return data
    if kind is Any and not is_json:
        return _text(data) if content_type.startswith("text/") else data
    if kind is str and not is_json:
        return _text(data)
    return decode_json(data, kind)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(f"the payload is no text in UTF-8: {error.reason} at byte {error.start}") from None


def _wrong(at: str, wanted: str, value: Any) -> PayloadError:
    where = f" at {at}" if at else ""
    return PayloadError(f"the payload is not what was expected{where}: {wanted} is wanted, and {_named(value)} is there")


def _named(value: Any) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")


def _not_of_model(error: Exception, kind: Any, at: str) -> PayloadError:
    """Where a model of pydantic found what is wrong, and what kind of wrong it is: its own text holds what was there."""
    pydantic = sys.modules["pydantic"]
    where = f" at {at}" if at else ""
    if not isinstance(error, pydantic.ValidationError):
        return PayloadError(f"the payload is not what was expected{where}: {kind.__name__} does not take it ({type(error).__name__})")
    names = _names_of(kind)
    found = []
    for one in error.errors(include_url=False, include_context=False, include_input=False)[:5]:
        # A part of the place that is no name of a field may be a key of the payload.
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" if part in names else "[*]" for part in one["loc"])
        found.append(f"{place.removeprefix('.') or 'its top'}: {one['type']}")
    return PayloadError(f"the payload is not what was expected{where}: {', '.join(found)}")


@cache
def _names_of(kind: Any) -> frozenset[str]:
    """The names of all fields of a model, and of the models in it."""
    names: set[str] = set()

    def look(schema: Any) -> None:
        if isinstance(schema, dict):
            properties = schema.get("properties")
            names.update(properties if isinstance(properties, dict) else ())
            for inner in schema.values():
                look(inner)
        elif isinstance(schema, list):
            for inner in schema:
                look(inner)

    try:
        look(kind.model_json_schema())
    # Some types have no schema. Then no name is said.
    except Exception:
        return frozenset()
    return frozenset(names)


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


@cache
def _required(kind: Any) -> frozenset[str]:
    """The keys that a TypedDict must have. Where its annotations are texts, what it says of itself takes no notice of `NotRequired`."""
    hints = typing.get_type_hints(kind, include_extras=True)
    said = {key: typing.get_origin(hint) for key, hint in hints.items()}
    required = {key for key in kind.__required_keys__ if said.get(key) is not typing.NotRequired}
    return frozenset(required | {key for key, origin in said.items() if origin is typing.Required})


def _read(value: Any, kind: Any, at: str, depth: int) -> Any:
    if depth > DEEPEST:
        raise PayloadError("the payload is too deep")
    if kind is Any or kind is object:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _read(value, arguments[0], at, depth)
    if origin in (typing.Union, types.UnionType):
        return _read_union(value, arguments, at, depth)
    if origin is typing.Literal:
        if any(value == one and type(value) is type(one) for one in arguments):
            return value
        raise _wrong(at, f"one of {', '.join(map(repr, arguments))}", value)
    if kind is None or kind is type(None):
        if value is None:
            return None
        raise _wrong(at, "null", value)
    if isinstance(kind, type) and origin is None and (found := _read_plain(value, kind, at, depth)) is not _OTHER:
        return found
    return _read_collection(value, kind, origin or kind, arguments, at, depth)


_OTHER: Any = object()


def _read_plain(value: Any, kind: type, at: str, depth: int) -> Any:
    if kind is bool or kind is str:
        if isinstance(value, kind):
            return value
        raise _wrong(at, "a boolean" if kind is bool else "a string", value)
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise _wrong(at, "a whole number", value)
    if kind is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            try:
                return float(value)
            except OverflowError:
                raise _wrong(at, "a number that fits", value) from None
        raise _wrong(at, "a number", value)
    if dataclasses.is_dataclass(kind):
        return _read_fields(value, kind, at, depth)
    if _is_model(kind):
        try:
            return kind.model_validate(value)  # type: ignore[attr-defined]
        except Exception as error:
            raise _not_of_model(error, kind, at) from None
    readers: list[tuple[type, Any]] = [
        (enum.Enum, kind),
        (datetime, datetime.fromisoformat),
        (date, date.fromisoformat),
        (UUID, UUID),
    ]
    for parent, make in readers:
        if issubclass(kind, parent):
            try:
                return make(value)
            except (ValueError, TypeError, AttributeError):
                raise _wrong(at, f"a {kind.__name__}", value) from None
    return _OTHER


def _read_union(value: Any, kinds: tuple[Any, ...], at: str, depth: int) -> Any:
    for one in kinds:
        # An exact type comes before one that it can be read as: 1 is an int in `float | int`.
        if isinstance(one, type) and type(value) is one:
            return value
    failures = []
    for one in kinds:
        try:
            return _read(value, one, at, depth + 1)
        except PayloadError as error:
            failures.append(error)
    # The nearest miss says most: that of the last which is no null.
    raise failures[0] if kinds[-1] is type(None) else failures[-1]


def _read_fields(value: Any, kind: Any, at: str, depth: int) -> Any:
    if not isinstance(value, dict):
        raise _wrong(at, f"an object ({kind.__name__})", value)
    hints = _hints(kind)
    given: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        path = f"{at}.{field.name}" if at else field.name
        if field.name in value:
            given[field.name] = _read(value[field.name], hints.get(field.name, Any), path, depth + 1)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise PayloadError(f"the payload is not what was expected: {path} is missing")
    try:
        return kind(**given)
    # The program's own check of it, whose text may hold what it checked.
    except Exception as error:
        where = f" at {at}" if at else ""
        raise PayloadError(f"the payload is not what was expected{where}: {kind.__name__} does not take it ({type(error).__name__})") from None


def _read_collection(value: Any, kind: Any, origin: Any, arguments: tuple[Any, ...], at: str, depth: int) -> Any:
    if typing.is_typeddict(origin):
        if not isinstance(value, dict):
            raise _wrong(at, "an object", value)
        hints = _hints(origin)
        missing = sorted(_required(origin) - value.keys())
        if missing:
            raise PayloadError(f"the payload is not what was expected: {f'{at}.' if at else ''}{missing[0]} is missing")
        return {key: _read(one, hints.get(key, Any), f"{at}.{key}" if at else key, depth + 1) for key, one in value.items()}
    if not isinstance(origin, type):
        raise PayloadError(f"a payload can't be read as {kind!r}")
    if issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _wrong(at, "an object", value)
        of = arguments[1] if len(arguments) == 2 else Any
        # Its keys are content, as its values are.
        return {key: _read(one, of, f"{at}[*]", depth + 1) for key, one in value.items()}
    if issubclass(origin, tuple | list | set | frozenset) or origin is Sequence:
        if not isinstance(value, list):
            raise _wrong(at, "an array", value)
        fixed = issubclass(origin, tuple) and arguments and arguments[-1] is not Ellipsis
        if fixed and len(arguments) != len(value):
            raise _wrong(at, f"an array of {len(arguments)}", value)
        kinds = arguments if fixed else ((arguments[0] if arguments else Any),) * len(value)
        items = [_read(one, of, f"{at}[{index}]", depth + 1) for index, (one, of) in enumerate(zip(value, kinds, strict=True))]
        try:
            make: Any = list if origin is Sequence else origin
            return make(items)
        except TypeError as error:
            raise PayloadError(f"the payload is not what was expected at {at or 'its top'}: {error}") from None
    raise PayloadError(f"a payload can't be read as {kind!r}")
