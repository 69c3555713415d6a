"""Remembers the last so many ids."""

from __future__ import annotations


class Seen:
    """A set that forgets its oldest member when it is full."""

    def __init__(self, most: int) -> None:
        self._most = most
        # A dict keeps the order in which its keys came.
        self._members: dict[str, None] = {}

    def __contains__(self, member: str) -> bool:
        return member in self._members

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: str) -> None:
        """Remembers it."""
        if member in self._members:
            return
        self._members[member] = None
        if len(self._members) > self._most:
            del self._members[next(iter(self._members))]
