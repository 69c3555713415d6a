"""The profiles that `acb login` keeps: hubs, and the keys to them. Only read here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._error import UsageError


@dataclass(frozen=True, slots=True)
class Profile:
    """One of them."""

    name: str
    servers: tuple[str, ...]
    #: The tenant's CA, as PEM.
    ca: str = field(repr=False)
    api_key: str = field(repr=False)
    #: The token of a ServiceAccount, in the place of a key.
    token_file: str


def path(environment: Mapping[str, str]) -> Path | None:
    """Where they are kept."""
    if given := environment.get("ACB_CONFIG"):
        return Path(given)
    if given := environment.get("XDG_CONFIG_HOME"):
        return Path(given) / "acb" / "config.yaml"
    if given := environment.get("HOME"):
        return Path(given) / ".config" / "acb" / "config.yaml"
    return None


def load(environment: Mapping[str, str] = os.environ) -> tuple[str, dict[str, Any]]:
    """The name of the current profile, and all of them as they are in the file. Nothing where there is no file."""
    file = path(environment)
    if file is None:
        return "", {}
    try:
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return "", {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read as profiles: {error}") from None
    import yaml

    try:
        content = yaml.safe_load(text) or {}
        # An older version wrote them as contexts.
        listed = content.get("profiles") or content.get("contexts") or []
        return str(content.get("current") or ""), {str(one["name"]): one for one in listed}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        # The parser's own message may quote a key.
        raise UsageError(f"{file} can't be read as profiles: mend it, or remove it and log in again") from None


def choose(name: str, profiles: dict[str, Any]) -> Profile:
    """The profile of this name."""
    found = profiles.get(name)
    if found is None:
        raise UsageError(f"profile {name!r} does not exist: `acb profile list` shows those that do, `acb login` makes one")
    if found.get("cluster"):
        raise UsageError(f"profile {name!r} reaches its hub by port-forward, which `acb` alone does: give the hub's address as the server")
    return Profile(
        name=name,
        servers=tuple(map(str, found.get("servers") or ())),
        ca=str(found.get("ca") or ""),
        api_key=str(found.get("apiKey") or ""),
        token_file=str(found.get("tokenFile") or ""),
    )
