"""Payloads, and what is wrong with them."""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import pydantic
import pytest

import acb
from acb._payload import BYTES, JSON, TEXT, decode, decode_json, encode, encode_json


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Inner:
    id: uuid.UUID
    at: datetime
    day: date
    colour: Colour


@dataclass
class Outer:
    inner: Inner
    many: list[Inner]
    by_name: dict[str, Inner]
    pair: tuple[int, str]
    maybe: Inner | None = None
    tags: set[str] = field(default_factory=set)
    kind: Literal["a", 1] = "a"
    share: float = 1.0
    later: Optional["Outer"] = None  # noqa: UP037, UP045


class Model(pydantic.BaseModel):
    number: int
    at: datetime


class Plain(TypedDict):
    number: int
    text: NotRequired[str]


INNER = Inner(uuid.uuid4(), datetime(2026, 11, 27, tzinfo=UTC), date(2026, 11, 27), Colour.RED)
OUTER = Outer(INNER, [INNER], {"x": INNER}, (1, "x"), INNER, {"t"}, 1, 2.5)


def test_each_type_has_its_content_type() -> None:
    assert encode("é") == (TEXT, "é".encode())
    assert encode(b"\x00") == encode(bytearray(b"\x00")) == encode(memoryview(b"\x00")) == (BYTES, b"\x00")
    for value in (None, True, 1, 1.5, [1], (1,), {"a": 1}):
        assert encode(value) == (JSON, json.dumps(value, separators=(",", ":")).encode())
    assert encode({"é": "\n"}) == (JSON, '{"é":"\\n"}'.encode())


def test_dataclasses_go_there_and_back() -> None:
    assert decode_json(encode_json(OUTER), Outer) == OUTER
    nested = Outer(INNER, [], {}, (1, "x"), later=OUTER)
    assert decode_json(encode_json(nested), Outer) == nested
    assert decode_json(encode_json([OUTER]), list[Outer]) == [OUTER]
    model = Model(number=1, at=datetime(2026, 1, 1, tzinfo=UTC))
    assert decode_json(encode_json(model), Model) == model
    assert decode_json(encode_json({"of": [model]}), dict[str, list[Model]]) == {"of": [model]}
    assert decode_json(b'{"number":1,"more":2}', Plain) == {"number": 1, "more": 2}


def test_what_is_read_is_what_was_asked_for() -> None:
    assert decode_json(b"1", float) == 1.0 and isinstance(decode_json(b"1", float), float)
    assert type(decode_json(b"1", float | int)) is int
    assert decode_json(b'"x"', int | str | None) == "x"
    assert decode_json(b"null", int | None) is None
    assert decode_json(b"[1,2]", tuple[int, ...]) == (1, 2)
    assert decode_json(b"[1,2]", Sequence[int]) == [1, 2]
    assert decode_json(b'{"a":1}', Mapping[str, int]) == {"a": 1}
    assert decode_json(b"[1]", Annotated[list[int], "said"]) == [1]
    assert decode_json(b"[1,{}]", list) == [1, {}]
    assert decode_json(b'{"a":[null]}', Any) == {"a": [None]}


@pytest.mark.parametrize(
    ("data", "kind", "what"),
    [
        (b"", Any, "not JSON"),
        (b"{", Any, "not JSON"),
        (b"NaN", Any, "NaN is no JSON"),
        (b"[Infinity]", list[float], "Infinity is no JSON"),
        (b"\xff", Any, "not JSON"),
        (b"[" * 100_000, Any, "too deep"),
        (b"[" * 500 + b"]" * 500, list[Any], None),
        (b'"1"', int, "a whole number is wanted, and a string is there"),
        (b"true", int, "a whole number is wanted, and a boolean is there"),
        (b"1.5", int, "a whole number"),
        (b"1" + b"0" * 400, float, "a number that fits"),
        (b"null", str, "a string is wanted, and null is there"),
        (b"[1]", Inner, r"an object \(Inner\) is wanted, and an array is there"),
        (b"{}", Inner, "id is missing"),
        (b'{"inner":{"id":"x"}}', Outer, "at inner.id: a UUID is wanted"),
        (b'[{"number":"x"}]', list[Plain], r"at \[0\].number: a whole number"),
        (b"[{}]", list[Plain], r"\[0\].number is missing"),
        (b'["b"]', list[Literal["a"]], r"at \[0\]: one of 'a' is wanted"),
        (b"[1]", tuple[int, int], "an array of 2"),
        (b"[[1]]", set[Any], "unhashable"),
        (b"{}", list[int], "an array is wanted, and an object is there"),
        (b"1", dict[str, int], "an object is wanted, and a number is there"),
        (b"1", type(decode), "can't be read as"),
        (b'{"number":"x","at":1}', Model, "number: int_parsing"),
        (b'{"a":{"number":"x"}}', dict[str, Model], r"at \[\*\]: number: int_parsing"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(data: bytes, kind: Any, what: str | None) -> None:
    if what is None:
        decode_json(data, kind)
        return
    with pytest.raises(acb.PayloadError, match=what):
        decode_json(data, kind)


def test_a_type_that_refers_to_itself_ends() -> None:
    text = b"".join([b'{"inner":1,"later":'] * 400) + b"null" + b"}" * 400
    with pytest.raises(acb.PayloadError):
        decode_json(text, Outer)


def test_what_has_no_form_in_json_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    for value in (math.nan, [math.inf], object(), {(1, 2): 3}, loop, {"x": b"bytes"}):
        with pytest.raises(acb.PayloadError):
            encode_json(value)
    for text in ("\ud800", ["\ud800"]):
        with pytest.raises(acb.PayloadError):
            encode(text)


def test_the_content_type_decides_where_nothing_else_does() -> None:
    assert decode("text/plain; charset=utf-8", b"1", Any) == "1"
    assert decode("application/json; charset=utf-8", b"1", Any) == 1
    assert decode("application/cloudevents+json", b"1", Any) == 1
    assert decode("", b"1", Any) == 1
    assert decode("image/png", b"1", Any) == b"1"
    assert decode("text/plain", b"1", str) == "1"
    assert decode("application/json", b'"1"', str) == "1"
    assert decode("application/json", b"1", bytes) == b"1"
    assert decode("text/plain", b"1", int) == 1
    with pytest.raises(acb.PayloadError, match="no text in UTF-8"):
        decode("text/plain", b"\xff", Any)


class Checked(pydantic.BaseModel):
    number: int = 0
    kind: Literal["a"] = "a"
    of: dict[str, int] = pydantic.Field(default_factory=dict)

    @pydantic.field_validator("number")
    @classmethod
    def positive(cls, value: int) -> int:
        if value < 0:
            raise ValueError(f"{value} is too small")
        return value

    model_config = pydantic.ConfigDict(extra="forbid")


@dataclass
class Suspicious:
    text: str

    def __post_init__(self) -> None:
        raise LookupError(f"{self.text} is not known")


class Unwritable(pydantic.BaseModel):
    text: str

    @pydantic.field_serializer("text")
    def write(self, text: str) -> str:
        raise ValueError(f"{text} can't be written")


@pytest.mark.parametrize(
    ("data", "kind", "what"),
    [
        (b'{"number":"4711-secret"}', Checked, "number: int_parsing"),
        (b'{"number":-4711}', Checked, "number: value_error"),
        (b'{"kind":"4711"}', Checked, "kind: literal_error"),
        (b'{"4711":1}', Checked, r"\[\*\]: extra_forbidden"),
        (b'{"of":{"4711":"x"}}', Checked, r"of\[\*\]: int_parsing"),
        (b'[{"number":"4711-secret"}]', list[Checked], r"at \[0\]: number: int_parsing"),
        (b'{"4711":', Checked, "json_invalid"),
        (b'{"4711":"4711', Any, "not JSON: line 1, column 9"),
        (b'{"4711":"x"}', dict[str, int], r"at \[\*\]: a whole number"),
        (b'{"text":"4711"}', Suspicious, r"Suspicious does not take it \(LookupError\)"),
        (b'"4711"', Colour, "a Colour is wanted, and a string is there"),
        (b"4711" * 2000, Any, "a number is too long"),
    ],
)
def test_no_error_says_what_was_in_a_payload(data: bytes, kind: Any, what: str) -> None:
    with pytest.raises(acb.PayloadError, match=what) as wrong:
        decode_json(data, kind)
    assert "4711" not in repr(wrong.value) + str(wrong.value)


def test_no_error_says_what_was_to_be_sent() -> None:
    for value in ({("4711",): 1}, {"4711": object()}, Unwritable(text="4711"), [Unwritable(text="4711")], math.inf):
        with pytest.raises(acb.PayloadError) as wrong:
            encode_json(value)
        assert "4711" not in str(wrong.value) and "inf" not in str(wrong.value)
