"""The one error of the SDK."""

from __future__ import annotations

from datetime import timedelta
from enum import IntEnum
from typing import Any, Self

import grpc

from . import _wire

CORRELATION_HEADER = "x-correlation-id"


class Code(IntEnum):
    """What kind of failure it is, as gRPC names them."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16

    @classmethod
    def of(cls, number: int) -> Code:
        """The code of this number; UNKNOWN for others."""
        try:
            return cls(number)
        except ValueError:
            return cls.UNKNOWN


class Error(Exception):
    """Why a call did not succeed. Its subclasses say where it failed; `code` and `reason` say what to do about it.

    ```python
    try:
        await agent.send("nobody", "hello")
    except acb.Error as error:
        if error.code is acb.Code.NOT_FOUND:
            ...  # name another one
        elif error.is_retryable:
            ...  # try again later
    ```
    """

    #: What kind of failure it is.
    code: Code = Code.UNKNOWN
    #: Stable, in capitals, such as `RECIPIENT_NOT_FOUND`. Empty where the hub gave none.
    reason: str = ""
    #: When a limit that was reached has room again: the SDK has waited for that already, up to two minutes.
    retry_after: timedelta | None = None
    #: By what the call is found in the hub's log and in the audit trail, where it was one that a hub refused.
    correlation_id: str | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        #: What failed, for people.
        self.message = message

    @property
    def is_retryable(self) -> bool:
        """Whether the same call may succeed later, without anything being changed."""
        return self.code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.RESOURCE_EXHAUSTED)

    def during(self, what: str) -> Self:
        """The same failure, with what was being done in front of its message."""
        same = self.copy()
        same.message = f"{what}: {self.message}"
        same.args = (same.message,)
        return same

    def copy(self) -> Self:
        """The same failure, to be raised once more: an exception that several tasks raise gathers the traces of all of them."""
        same = type(self).__new__(type(self))
        same.__dict__.update(self.__dict__)
        same.args = self.args
        return same

    def __str__(self) -> str:
        return self.message


class Refused(Error):
    """The hub answered, and said no."""

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        retry_after: timedelta | None = None,
        correlation_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.retry_after = retry_after
        self.correlation_id = correlation_id

    def __reduce__(self) -> tuple[Any, ...]:
        return _refused, (self.code, self.reason, self.message, self.retry_after, self.correlation_id)

    def __str__(self) -> str:
        return f"{self.message} ({self.reason or self.code.name})"


def _refused(code: Code, reason: str, message: str, after: timedelta | None, correlation_id: str | None) -> Refused:
    return Refused(code, reason, message, retry_after=after, correlation_id=correlation_id)


class Unavailable(Error):
    """No replica answered, or the connection broke."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"


class Untrusted(Error):
    """Every replica that answered showed a certificate that the given CA did not sign, or that is not for it. Nothing was sent."""

    code = Code.UNAUTHENTICATED
    reason = "UNTRUSTED"


class TimedOut(Error):
    """The time that was given for it ran out."""

    code = Code.DEADLINE_EXCEEDED
    reason = "TIMEOUT"


class UsageError(Error):
    """Wrong use of the SDK or a wrong setting: no request was made."""

    code = Code.INVALID_ARGUMENT
    reason = "USAGE"


class PayloadError(Error):
    """A payload could not be encoded or decoded."""

    code = Code.INVALID_ARGUMENT
    reason = "PAYLOAD"


class Damaged(Error):
    """What was received does not have the checksum that was announced."""

    code = Code.DATA_LOSS
    reason = "DAMAGED"


class LocalError(Error):
    """Reading or writing locally failed."""

    code = Code.UNKNOWN
    reason = "IO"


def _entry(name: str, *where: Any) -> str | None:
    for metadata in where:
        for key, value in metadata or ():
            if key == name:
                return value if isinstance(value, str) else value.decode("ascii", "replace")
    return None


def broke(status: grpc.aio.AioRpcError) -> bool:
    """Whether the connection (or the replica at its end) is at fault, so that another replica may do better.

    The end of a call that a hub sent names the call. One that the transport made does not, also where the call had begun.
    """
    code = status.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        return True
    made_by_transport = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED)
    return code in made_by_transport and _entry(CORRELATION_HEADER, status.trailing_metadata()) is None


def of_status(status: grpc.aio.AioRpcError) -> Error:
    """The error that a call ended with."""
    reason, after = _wire.error_details(status.trailing_metadata())
    message = status.details() or ""
    if broke(status) and not reason:
        return Unavailable(message or "the connection broke")
    number = int(status.code().value[0])
    named = _entry(CORRELATION_HEADER, status.trailing_metadata(), status.initial_metadata())
    return Refused(Code.of(number), reason, message, retry_after=after, correlation_id=named)
