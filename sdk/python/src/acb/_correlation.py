"""What ties the calls and messages of one exchange together, through several agents and hubs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: What the application works on.
_WORK: ContextVar[str | None] = ContextVar("acb_work", default=None)
#: Of one call that is part of no work that was named: the same each time that it is tried.
_CALL: ContextVar[str | None] = ContextVar("acb_call", default=None)


@contextmanager
def correlated(correlation_id: str) -> Iterator[None]:
    """Ties together all that is done in it: each call, and each message that names nothing else, has this correlation id.

    It is in the hub's log, in its audit trail, and with those who receive the messages. At most 128 visible ASCII characters; the hub takes no
    notice of others. Handlers run with that of their message, and tasks with that of who made them.

    ```python
    with acb.correlated("order-4711"):
        await agent.send("packer", "pack it")
    ```
    """
    token = _WORK.set(correlation_id)
    try:
        yield
    finally:
        _WORK.reset(token)


def correlation_id() -> str | None:
    """The correlation id of what is being done, such as in a handler that of its message. `None` outside of `correlated`."""
    return _WORK.get()


@contextmanager
def of_call() -> Iterator[str]:
    """Gives a call, with all its tries, a correlation id of its own where it is part of nothing that has one."""
    present = _WORK.get() or _CALL.get()
    if present is not None:
        yield present
        return
    token = _CALL.set(str(uuid.uuid4()))
    try:
        yield _CALL.get() or ""
    finally:
        _CALL.reset(token)


def header() -> str | None:
    """What a request that is made now says. What is no header can't be said."""
    present = _WORK.get() or _CALL.get()
    if present and len(present) <= 128 and all("!" <= character <= "~" for character in present):
        return present
    return None
