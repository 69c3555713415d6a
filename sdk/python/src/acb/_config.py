"""Where an agent's program finds its hub: docs/sdk-config.md is this file's rule in words."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import _profile
from ._credential import ApiKey, Credential, TokenFile, Tokens
from ._error import UsageError

#: What docs/authentication.md has a pod mount.
POD = Path("/var/run/acb")
#: More than any certificate or key.
MOST_OF_FILE = 1 << 20

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Config:
    """All that a connection takes."""

    servers: list[str]
    ca: bytes = field(repr=False)
    credential: Credential = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """What the program itself says; `None` for what it does not."""

    server: str | Iterable[str] | None = None
    ca: str | bytes | None = field(default=None, repr=False)
    ca_file: AnyPath | None = None
    system_roots: bool = False
    api_key: str | ApiKey | None = field(default=None, repr=False)
    api_key_file: AnyPath | None = None
    token_file: AnyPath | None = None
    tokens: Tokens | None = None
    profile: str | None = None

    def names_any(self) -> bool:
        """Whether it names the hub or the credential."""
        named = (self.server, self.ca, self.ca_file, self.api_key, self.api_key_file, self.token_file, self.tokens)
        return any(one is not None for one in named)


def read_file(path: AnyPath, what: str) -> bytes:
    """A small file."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MOST_OF_FILE)
    except OSError as error:
        raise UsageError(f"{what}, {os.fspath(path)}: {error.strerror or error}") from None


def _servers(given: str | Iterable[str]) -> list[str]:
    listed = given.split(",") if isinstance(given, str) else list(given)
    return [one.strip() for one in listed if one.strip()]


def _key(text: str | bytes | ApiKey) -> ApiKey:
    if isinstance(text, ApiKey):
        return text
    return ApiKey(text if isinstance(text, str) else text.decode("ascii", "replace"))


def _one_of(**named: object) -> None:
    said = [name for name, value in named.items() if value]
    if len(said) > 1:
        raise UsageError(f"{' and '.join(said)}: one of them can be, not both")


def _system_roots() -> bytes:
    paths = ssl.get_default_verify_paths()
    for file in (paths.cafile, "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"):
        if file and Path(file).is_file():
            return read_file(file, "the system's certificates")
    raise UsageError("the system's certificates are not where OpenSSL looks for them: give their file as ca_file")


def find(said: Arguments, environment: Mapping[str, str] = os.environ, pod: Path = POD) -> Config:
    """What the arguments say, then the environment, then the profile, then the pod."""
    from_environment = {name: value for name, value in environment.items() if name.startswith("ACB_") and value}
    if said.profile is not None:
        if said.names_any():
            raise UsageError("a profile says the hub and the credential: give nothing of them beside it")
        return _of_profile(_profile.choose(said.profile, _profile.load(environment)[1]), said)
    server = said.server if said.server is not None else from_environment.get("ACB_SERVER")
    ca = _ca(said, from_environment.get("ACB_CA_FILE"))
    credential = _credential(said, from_environment)
    if server is None and ca is None and credential is None:
        current, profiles = _profile.load(environment)
        name = from_environment.get("ACB_PROFILE") or current
        if name:
            return _of_profile(_profile.choose(name, profiles), said)
    return _completed(said, server, ca, credential, pod)


def _ca(said: Arguments, file: str | None) -> bytes | None:
    _one_of(ca=said.ca, ca_file=said.ca_file)
    if said.ca is not None:
        return said.ca.encode() if isinstance(said.ca, str) else said.ca
    file = os.fspath(said.ca_file) if said.ca_file is not None else file
    return None if file is None else read_file(file, "the CA")


def _credential(said: Arguments, environment: Mapping[str, str]) -> Credential | None:
    _one_of(api_key=said.api_key, api_key_file=said.api_key_file, token_file=said.token_file, tokens=said.tokens)
    if said.tokens is not None:
        return said.tokens
    if said.api_key is not None:
        return _key(said.api_key)
    key_file, token_file = said.api_key_file, said.token_file
    if key_file is None and token_file is None:
        key_file, token_file = environment.get("ACB_API_KEY_FILE"), environment.get("ACB_TOKEN_FILE")
        _one_of(ACB_API_KEY_FILE=key_file, ACB_TOKEN_FILE=token_file)
    if key_file is not None:
        return _key(read_file(key_file, "the API key"))
    return None if token_file is None else TokenFile(Path(token_file))


def _of_profile(profile: _profile.Profile, said: Arguments) -> Config:
    credential: Credential = TokenFile(Path(profile.token_file)) if profile.token_file else _key(profile.api_key)
    return Config(list(profile.servers), _with_roots(said, profile.ca.encode()), credential)


def _with_roots(said: Arguments, ca: bytes | None) -> bytes:
    if not said.system_roots:
        return ca or b""
    return (ca or b"") + b"\n" + _system_roots()


def _completed(said: Arguments, server: str | Iterable[str] | None, ca: bytes | None, credential: Credential | None, pod: Path) -> Config:
    """What is missing comes from the files of the pod, where it has them."""
    if server is None and (pod / "server").is_file():
        server = read_file(pod / "server", "the server").decode("ascii", "replace")
    if ca is None and (pod / "ca.crt").is_file():
        ca = read_file(pod / "ca.crt", "the CA")
    if credential is None and (pod / "token").is_file():
        credential = TokenFile(pod / "token")
    if credential is None and (pod / "api-key").is_file():
        credential = _key(read_file(pod / "api-key", "the API key"))
    missing = [
        what
        for what, value in (
            ("the server (server=, ACB_SERVER)", server),
            ("the tenant's CA (ca_file=, ACB_CA_FILE)", ca if ca is not None else said.system_roots or None),
            ("a credential (api_key_file=, ACB_API_KEY_FILE, token_file=, ACB_TOKEN_FILE)", credential),
        )
        if value is None
    ]
    if server is None or credential is None or missing:
        raise UsageError(f"the hub is not known: there is no {', no '.join(missing)}; or run `acb login`, and name its profile (ACB_PROFILE)")
    return Config(_servers(server), _with_roots(said, ca), credential)
