"""The wire contract: messages and methods, made from the descriptors that are shipped beside this file.

Generated code would refuse to run on an older protobuf than the one that it was generated for. Descriptors work on all of them. They have a pool
of their own: a program may have other files of the same names.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from typing import Any

from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory

_PACKAGE = "acb.v1"
_STATUS_DETAILS = "grpc-status-details-bin"


def _field(name: str, number: int, kind: int, *, of: str = "", repeated: bool = False) -> Any:
    label = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED if repeated else descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    field = descriptor_pb2.FieldDescriptorProto(name=name, number=number, label=label)
    field.type = kind  # type: ignore[assignment]
    if of:
        field.type_name = of
    return field


def _rpc_status() -> Any:
    """As much of google.rpc as is read here: the details of an error."""
    field = descriptor_pb2.FieldDescriptorProto
    message = descriptor_pb2.DescriptorProto
    return descriptor_pb2.FileDescriptorProto(
        name="acb/rpc_status.proto",
        package="google.rpc",
        syntax="proto3",
        dependency=["google/protobuf/any.proto", "google/protobuf/duration.proto"],
        message_type=[
            message(
                name="Status",
                field=[
                    _field("code", 1, field.TYPE_INT32),
                    _field("message", 2, field.TYPE_STRING),
                    _field("details", 3, field.TYPE_MESSAGE, of=".google.protobuf.Any", repeated=True),
                ],
            ),
            message(
                name="ErrorInfo",
                field=[_field("reason", 1, field.TYPE_STRING), _field("domain", 2, field.TYPE_STRING)],
            ),
            message(
                name="RetryInfo",
                field=[_field("retry_delay", 1, field.TYPE_MESSAGE, of=".google.protobuf.Duration")],
            ),
        ],
    )


def _load() -> descriptor_pool.DescriptorPool:
    files = descriptor_pb2.FileDescriptorSet()
    files.ParseFromString(resources.files("acb").joinpath("descriptors.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.AddSerializedFile(file.SerializeToString())
    if not any(file.name == "google/protobuf/any.proto" for file in files.file):
        pool.AddSerializedFile(any_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(_rpc_status().SerializeToString())
    return pool


_POOL = _load()


@cache
def _class(full_name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full_name))


def new(name: str, /, **fields: Any) -> Any:
    """A message of the contract, such as `new("Address", agent="worker-a")`."""
    return _class(f"{_PACKAGE}.{name}")(**fields)


def parse(name: str, data: bytes) -> Any:
    """A message of the contract, from its bytes. Raises `ValueError` for what is none."""
    try:
        return _class(f"{_PACKAGE}.{name}").FromString(data)
    except Exception as error:
        raise ValueError(f"this is no {name}") from error


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a service, as gRPC wants it."""

    path: str
    serialize: Any
    deserialize: Any
    client_streaming: bool
    server_streaming: bool


@cache
def method(name: str) -> Method:
    """A method of the contract, such as `method("MessageService.SendMessage")`."""
    service_name, method_name = name.split(".")
    service = _POOL.FindServiceByName(f"{_PACKAGE}.{service_name}")
    found = service.methods_by_name[method_name]
    return Method(
        path=f"/{service.full_name}/{found.name}",
        serialize=_class(found.input_type.full_name).SerializeToString,
        deserialize=_class(found.output_type.full_name).FromString,
        client_streaming=found.client_streaming,
        server_streaming=found.server_streaming,
    )


def error_details(metadata: Any) -> tuple[str, timedelta | None]:
    """The reason of a refusal and when to try again, from the trailers of a call."""
    reason, after = "", None
    for key, value in metadata or ():
        if key != _STATUS_DETAILS:
            continue
        try:
            status = _class("google.rpc.Status").FromString(value)
            for detail in status.details:
                kind = detail.type_url.rpartition("/")[2]
                if kind == "google.rpc.ErrorInfo":
                    reason = _class(kind).FromString(detail.value).reason
                elif kind == "google.rpc.RetryInfo":
                    info = _class(kind).FromString(detail.value)
                    after = read_duration(info.retry_delay) if info.HasField("retry_delay") else None
        except Exception:  # noqa: S112 - details that can't be read are none: the code and the message are there all the same.
            continue
    return reason, after


def read_time(wire: Any) -> datetime | None:
    """The instant of a timestamp; `None` where it is out of range."""
    try:
        return datetime.fromtimestamp(wire.seconds, UTC).replace(microsecond=max(0, min(999_999, wire.nanos // 1000)))
    except (ValueError, OverflowError, OSError):
        return None


def time(at: datetime) -> Any:
    """A timestamp. A time without a zone is local, as everywhere in Python."""
    at = at.astimezone(UTC)
    since = at - datetime(1970, 1, 1, tzinfo=UTC)
    whole = since.days * 86_400 + since.seconds
    return _class("google.protobuf.Timestamp")(seconds=whole, nanos=since.microseconds * 1000)


def read_duration(wire: Any) -> timedelta | None:
    """The length of a duration; `None` where it is out of range or negative."""
    try:
        found = timedelta(seconds=wire.seconds, microseconds=wire.nanos // 1000)
    except OverflowError:
        return None
    return found if found >= timedelta() else None


def duration(seconds: float) -> Any:
    """A duration. Never negative: the hub takes none."""
    nanos = max(0, round(seconds * 1_000_000_000))
    return _class("google.protobuf.Duration")(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
