"""Lengths of time, as callers give them."""

from __future__ import annotations

import math
from datetime import timedelta

from ._error import UsageError

#: Seconds, or a timedelta.
Length = float | timedelta


def seconds(length: Length, what: str) -> float:
    """A length of time in seconds. `what` is what it is for, in an error."""
    found = length.total_seconds() if isinstance(length, timedelta) else float(length)
    if not math.isfinite(found) or found < 0:
        raise UsageError(f"{what}: {length!r} is no length of time: give seconds, or a timedelta")
    return found
