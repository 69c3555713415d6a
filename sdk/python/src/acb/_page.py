"""Lists that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from ._types import read


async def every(fetch: Callable[[str], Awaitable[Any]], items: str, convert: Callable[[Any], Any] = read) -> AsyncIterator[Any]:
    """Every item of the field `items`, fetching a page when the one before is used up."""
    token = ""
    while True:
        page = await fetch(token)
        for item in getattr(page, items):
            yield convert(item)
        token = page.next_page_token
        if not token:
            return
