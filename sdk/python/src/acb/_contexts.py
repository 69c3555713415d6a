"""Shared contexts: typed, versioned payloads with a scope."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from . import _payload, _wire
from ._calls import Calls
from ._error import UsageError
from ._message import NOTHING
from ._page import every
from ._subscription import Since, Subscription
from ._time import Length, seconds
from ._types import Context, Scope, read


def _encoded(payload: object, content_type: str) -> tuple[str, bytes]:
    kind, data = _payload.encode(payload)
    # What is only bytes says nothing of what it is.
    return content_type or ("" if kind == _payload.BYTES else kind), data


class Contexts(Calls):
    """The calls of contexts."""

    async def share(
        self,
        context_type: str,
        payload: object,
        *,
        scope: Scope | None = None,
        ttl: Length | None = None,
        metadata: Mapping[str, str] | None = None,
        content_type: str = "",
        idempotency_key: str | None = None,
    ) -> Context:
        """Shares a payload of at most 1 MiB as a context of this type. Larger ones are uploaded: see `upload`.

        A payload of `str` is text, `bytes` are themselves, everything else is JSON. Everyone in the tenant may read it unless a scope says
        otherwise, and it is kept until deleted unless a `ttl` does. Tried again under the same key where no answer comes, so that it is shared
        once.

        ```python
        context = await agent.share("documents", "# Plan", scope=acb.Scope.to_groups("reviewers"), ttl=3600)
        ```
        """
        kind, data = _encoded(payload, content_type)
        request = _wire.new(
            "CreateContextRequest",
            type=context_type,
            payload=data,
            metadata=dict(metadata or {}),
            content_type=kind,
            access=(scope or Scope.public()).to_wire(),
            idempotency_key=idempotency_key or str(uuid.uuid4()),
        )
        if ttl is not None:
            request.ttl.CopyFrom(_wire.duration(seconds(ttl, "ttl")))
        context: Context = read(await self._call("share", "ContextService.CreateContext", request))
        return context

    async def context(self, id: str) -> Context:
        """A context by its id, with its payload where that is inline."""
        context: Context = read(await self._call("get context", "ContextService.GetContext", _wire.new("GetContextRequest", id=id)))
        return context

    async def update(
        self,
        read_context: Context,
        payload: object = NOTHING,
        *,
        metadata: Mapping[str, str | None] | None = None,
        content_type: str | None = None,
        ttl: Length | None = None,
    ) -> Context:
        """Makes a new version of a context that was read, with this payload.

        What `metadata` says is set (and removed where it is `None`); other entries, the content type and the expiry stay unless something else is
        said, and so does an inline payload. Fails with `Code.ABORTED` where what was read is no longer the current version: read it again first.
        Not tried again once sent, as its first try may have been the change.
        """
        said = dict(read_context.metadata)
        for key, value in (metadata or {}).items():
            if value is None:
                said.pop(key, None)
            else:
                said[key] = value
        if payload is NOTHING and len(read_context.payload) != read_context.size:
            # Of lists, of answers to changes, and of streamed ones.
            raise UsageError("update: this context came without its payload: say the new one, or read it with `context` first")
        data = read_context.payload if payload is NOTHING else _encoded(payload, "")[1]
        request = _wire.new(
            "UpdateContextRequest",
            id=read_context.id,
            version=read_context.version,
            payload=data,
            metadata=said,
            content_type=read_context.content_type if content_type is None else content_type,
        )
        if ttl is not None:
            request.ttl.CopyFrom(_wire.duration(seconds(ttl, "ttl")))
        updated: Context = read(await self._call("update context", "ContextService.UpdateContext", request, again=False))
        return updated

    async def set_access(self, id: str, scope: Scope) -> Context:
        """Replaces who may read a context of one's own; its payload stays. Whoever loses sight of it hears so, and reads no more of it."""
        # Said twice it is what it was after the first time.
        request = _wire.new("SetContextAccessRequest", id=id, access=scope.to_wire())
        context: Context = read(await self._call("set context access", "ContextService.SetContextAccess", request))
        return context

    async def delete_context(self, id: str) -> None:
        """Deletes a context of one's own."""
        await self._call("delete context", "ContextService.DeleteContext", _wire.new("DeleteContextRequest", id=id), again=False)

    def contexts(self, context_type: str = "", *, filter: str = "") -> AsyncIterator[Context]:
        """Every context of a type (of any, where it is empty) that may be read, without payloads; page after page as they are taken.

        `filter` is a CEL expression over `context`, such as `context.creator == "writer"`. Everything that may be read is looked at for it, over
        as many calls as that takes.
        """

        def fetch(token: str) -> Any:
            request = _wire.new("ListContextsRequest", type=context_type, filter=filter, page_token=token)
            return self._call("list contexts", "ContextService.ListContexts", request)

        return every(fetch, "contexts")

    def subscribe(self, context_type: str, *, filter: str = "", since: Since = None) -> Subscription:
        """Subscribes to the contexts of a type, or to those of them that match a filter: see `Subscription`.

        It begins with the next change; `since="start"` with the oldest that the log still holds, a time with the first at that time or later,
        `Subscription.positions` after these.
        """
        return Subscription(self, context_type, filter, since)
