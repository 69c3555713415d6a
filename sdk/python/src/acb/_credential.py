"""What a client proves itself with. Nothing here shows its secret in a `repr`."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from ._error import UsageError


class ApiKey:
    """An API key, `acb_<prefix>_<secret>`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        text = text.strip()
        parts = text.split("_", 2)
        if len(parts) != 3 or parts[0] != "acb" or not parts[1] or not parts[2] or not all("!" <= c <= "~" for c in text):
            raise UsageError("this is not an API key: one looks like acb_<prefix>_<secret>")
        self._text = text

    def expose(self) -> str:
        """The whole key. Do not log it."""
        return self._text

    def __repr__(self) -> str:
        return f"ApiKey(acb_{self._text.split('_')[1]}_…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ApiKey) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True)
class Tokens:
    """An access token and the refresh token that renews it."""

    #: Sent with each request.
    access: str = field(repr=False)
    #: When the access token ends.
    access_expires_at: datetime
    #: Exchanged once for new tokens. Empty where there is none: the token of a ServiceAccount is exchanged anew instead.
    refresh: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the tokens of a client speak for."""

    #: The tenant's name.
    tenant: str
    #: The agent's name.
    agent: str
    #: The UID of the Agent resource.
    agent_id: str


@dataclass(frozen=True, slots=True)
class TokenFile:
    """The token of a ServiceAccount, by the file that is read each time: whoever writes it replaces it."""

    path: Path


Credential = ApiKey | Tokens | TokenFile
