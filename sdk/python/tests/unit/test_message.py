"""Messages as they are made, and where answers go."""

from __future__ import annotations

import pickle
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

import acb
from acb import _types, _wire
from acb._dead_letters import selections
from acb._message import FAILURE, NOTHING, View, message_of


def test_every_message_has_a_key_of_its_own() -> None:
    one, other = acb.Message.to_agent("x"), acb.Message.to_agent("x")
    assert one.idempotency_key and one.idempotency_key != other.idempotency_key
    assert acb.Message.to_agent("x", idempotency_key="mine").idempotency_key == "mine"


@pytest.mark.parametrize(
    "make",
    [
        lambda: acb.Message.answer().build(),
        lambda: acb.Message.to_agent(""),
        lambda: acb.Message.to_group(""),
        lambda: acb.Message.to_agents([]),
        lambda: acb.Message.to_agents(["x", ""]),
        lambda: acb.Message.to_agents([f"a{number}" for number in range(65)]),
        lambda: acb.Message.to_agents("worker"),
        lambda: acb.Message.to_agent("x", topik="t"),  # type: ignore[call-arg]
        lambda: acb.Message.to_agent("x", topic=1),  # type: ignore[arg-type]
        lambda: acb.Message.to_agent("x", topic="\ud800"),
        lambda: acb.Message.to_agent("x", metadata={"a": 1}),  # type: ignore[dict-item]
        lambda: acb.Message.to_agent("x", expires_in=-1),
        lambda: acb.Message.to_agent("x", expires_in=float("nan")),
        lambda: acb.Message.to_agent("x", expires_in=1e300),
        lambda: acb.Message.to_agent(5),  # type: ignore[arg-type]
        lambda: message_of(acb.Message.to_all(), "beside", {}),
    ],
)
def test_what_can_be_no_message_is_said_at_once(make: Any) -> None:
    with pytest.raises(acb.UsageError):
        make()


def test_a_name_that_comes_twice_is_named() -> None:
    with pytest.raises(acb.UsageError, match="'x' is named twice"):
        acb.Message.to_agents(["x", "y", "x"])
    assert len(acb.Message.to_agents([f"a{number}" for number in range(64)]).build().to.agents.names) == 64


def test_an_answer_goes_where_the_question_wants_it() -> None:
    question = _wire.new("Message", id="m1", topic="lookup", traceparent="00-a-b-01", **{"from": "boss"})
    question.reply_to.request.agent, question.reply_to.request.request_id = "boss", "7"
    answer = acb.Message.answer("yes").answering(question).build()
    assert _types.Address.of(answer.to) == acb.Address(request=("boss", "7"))
    assert (answer.topic, answer.correlation_id, answer.traceparent) == ("lookup", "m1", "00-a-b-01")
    assert answer.type == acb.MessageType.RESPONSE
    question.ClearField("reply_to")
    question.correlation_id = "c"
    answer = acb.Message.answer(topic="done").answering(question).build()
    assert (answer.to.agent, answer.topic, answer.correlation_id) == ("boss", "done", "c")


def test_a_long_reason_is_cut_between_characters() -> None:
    def sent(reason: str) -> str:
        return str(acb.Message.failure(reason, metadata={"a": "b"}).answering(_wire.new("Message")).build().metadata[FAILURE])

    assert sent("no") == "no"
    assert sent("é" * 4000) == "é" * 2048
    assert len(sent("x" + "é" * 4000).encode()) == 4095


def test_what_is_done_has_one_correlation_id() -> None:
    assert acb.correlation_id() is None
    with acb.correlated("order-1"):
        assert acb.correlation_id() == "order-1"
        assert acb.Message.to_all().build().correlation_id == "order-1"
        assert acb.Message.to_all(correlation_id="mine").build().correlation_id == "mine"
        with acb.correlated("inner"):
            assert acb.correlation_id() == "inner"
        assert acb.correlation_id() == "order-1"
    assert acb.Message.to_all().build().correlation_id == ""


def test_payloads_are_read_as_what_is_asked_for() -> None:
    def view(payload: object) -> View:
        wire = acb.Message.to_agent("x", payload).build()
        return View(_wire.new("Message", id="m1", topic="t", content_type=wire.content_type, payload=wire.payload))

    assert view("é").text() == "é" and view({"a": 1}).text() == '{"a":1}' and view([1]).json(list[int]) == [1]
    assert view(NOTHING).payload == b"" and view(None).json() is None
    with pytest.raises(acb.PayloadError, match=r"message m1 \(topic 't'\): the payload is not JSON"):
        view("{").json()
    with pytest.raises(acb.PayloadError, match="UTF-8"):
        view(b"\xff").text()


def test_every_type_has_the_fields_of_the_contract() -> None:
    for name in _types.types():
        wire = _wire.new(name)
        assert _types.read(wire) is not None, name
    event = _wire.new("ContextEvent", kind=99)
    assert _types.read(event).kind.name == "UNKNOWN_99", "what a newer hub says is there with its number"
    assert _types.read(_wire.new("Usage", most=0)).most == 0 and _types.read(_wire.new("Usage")).most is None


def test_every_method_of_the_contract_is_called_by_the_client() -> None:
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(resources.files("acb").joinpath("descriptors.binpb").read_bytes())
    package = Path(acb.__file__).parent
    source = "".join(file.read_text() for file in package.glob("*.py"))
    methods = {f"{service.name}.{method.name}" for file in files.file for service in file.service for method in service.method}
    # These two are one call, whose name is put together.
    put_together = {"DeadLetterService.ReplayDeadLetters", "DeadLetterService.DropDeadLetters"}
    left_out = {
        # Nobody has asked for a way to end a program's tokens by itself.
        "AuthService.RevokeToken",
        # Sealing in Python comes later, and keys without it are of no use.
        "EncryptionKeyService.ListEncryptionKeys",
        "EncryptionKeyService.PublishEncryptionKey",
        "EncryptionKeyService.WithdrawEncryptionKey",
    }
    assert {method for method in methods if f'"{method}"' not in source} == put_together | left_out


def test_enums_are_those_of_the_contract() -> None:
    for name, kind in _types._ENUMS.items():
        outer, _, inner = name.partition(".")
        descriptor = _wire.new(outer).DESCRIPTOR.enum_types_by_name[inner] if inner else _wire._POOL.FindEnumTypeByName(f"acb.v1.{name}")
        wanted = {value.number: value.name for value in descriptor.values}
        assert {int(member) for member in kind} == set(wanted), name
        assert all(wanted[int(member)].endswith(f"_{member.name}") for member in kind), name


def test_times_and_durations_go_there_and_back() -> None:
    for seconds in (0.0, 0.25, 90.5, 1e9):
        assert _wire.read_duration(_wire.duration(seconds)) == timedelta(seconds=seconds)
    assert _wire.read_duration(_wire.duration(-5)) == timedelta()
    timestamp = _wire._class("google.protobuf.Timestamp")
    at = _wire.read_time(timestamp(seconds=1_800_000_000, nanos=5_000))
    assert at is not None and _wire.read_time(_wire.time(at)) == at
    assert _wire.read_time(timestamp(seconds=1 << 60)) is None and _wire.read_time(timestamp(seconds=-(1 << 60))) is None


def test_many_named_letters_are_several_calls() -> None:
    assert [len(one.ids) for one in selections([str(number) for number in range(250)])] == [100, 100, 50]
    assert [list(one.ids) for one in selections("x")] == [["x"]]
    (by_filter,) = selections(acb.Letters())
    assert by_filter.HasField("filter") and not by_filter.ids


def test_errors_say_the_same_after_a_pickle() -> None:
    error = acb.Refused(acb.Code.NOT_FOUND, "X_NOT_FOUND", "no x", retry_after=timedelta(seconds=1), correlation_id="c")
    for one in (error, pickle.loads(pickle.dumps(error)), error.copy()):  # noqa: S301
        assert (one.code, one.reason, one.message, one.retry_after, one.correlation_id) == (
            acb.Code.NOT_FOUND,
            "X_NOT_FOUND",
            "no x",
            timedelta(seconds=1),
            "c",
        )
        assert str(one) == "no x (X_NOT_FOUND)" and not one.is_retryable
    assert str(error.during("send")) == "send: no x (X_NOT_FOUND)" and str(error) == "no x (X_NOT_FOUND)"
    assert acb.Unavailable("gone").is_retryable and acb.TimedOut("late").is_retryable and not acb.Untrusted("x").is_retryable
