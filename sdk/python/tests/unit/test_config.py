"""Where the hub is found: docs/sdk-config.md."""

from __future__ import annotations

import base64
import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest

import acb
from acb import _config, _profile
from acb._config import Arguments, find
from acb._credential import ApiKey, TokenFile
from acb._replica import checked, normal

KEY = "acb_0123abcd_c2VjcmV0"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    made = {"ca": "PEM of the environment", "key": KEY, "token": "eyJ", "other-key": "acb_other_c2VjcmV0"}
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    return {name: str(tmp_path / name) for name in made}


def environment(files: dict[str, str], **more: str) -> dict[str, str]:
    return {"ACB_SERVER": "https://a:1,https://b:2", "ACB_CA_FILE": files["ca"], "ACB_API_KEY_FILE": files["key"], **more}


def test_arguments_come_before_the_environment_one_by_one(files: dict[str, str], tmp_path: Path) -> None:
    found = find(Arguments(), environment(files), tmp_path / "none")
    assert (found.servers, found.ca, found.credential) == (["https://a:1", "https://b:2"], b"PEM of the environment", ApiKey(KEY))
    found = find(Arguments(server="c", api_key_file=files["other-key"]), environment(files), tmp_path / "none")
    assert (found.servers, found.ca, found.credential) == (["c"], b"PEM of the environment", ApiKey("acb_other_c2VjcmV0"))
    said = Arguments(server=["a", "b"], ca="PEM", token_file=files["token"])
    found = find(said, environment(files), tmp_path / "none")
    assert (found.servers, found.ca, found.credential) == (["a", "b"], b"PEM", TokenFile(Path(files["token"])))


PROFILES = f"""
current: acme/worker
profiles:
- name: acme/worker
  servers: [https://127.0.0.1:1, https://127.0.0.1:2]
  ca: PEM of the profile
  apiKey: {KEY}
  tenant: acme
  agent: worker
- name: pod
  servers: [https://127.0.0.1:1]
  ca: PEM of the pod
  tokenFile: /var/run/acb/token
- name: away
  servers: []
  ca: PEM
  apiKey: {KEY}
  cluster: {{context: kind}}
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    (tmp_path / ".config/acb").mkdir(parents=True)
    (tmp_path / ".config/acb/config.yaml").write_text(PROFILES)
    return {"HOME": str(tmp_path)}


def test_a_profile_is_used_as_a_whole_and_where_nothing_else_is_said(home: dict[str, str], files: dict[str, str], tmp_path: Path) -> None:
    pod = tmp_path / "none"
    found = find(Arguments(), home, pod)
    assert (found.servers, found.ca, found.credential) == (
        ["https://127.0.0.1:1", "https://127.0.0.1:2"],
        b"PEM of the profile",
        ApiKey(KEY),
    )
    assert find(Arguments(), home | {"ACB_PROFILE": "pod"}, pod).credential == TokenFile(Path("/var/run/acb/token"))
    assert find(Arguments(profile="pod"), home | environment(files), pod).ca == b"PEM of the pod"
    # The key of a profile goes to no other hub.
    for said, around in ((Arguments(server="https://other:1"), home), (Arguments(), home | {"ACB_SERVER": "https://other:1"})):
        with pytest.raises(acb.UsageError, match="a credential"):
            find(said, around, pod)
    assert find(Arguments(), home | environment(files, ACB_PROFILE="pod"), pod).ca == b"PEM of the environment"


def test_what_is_missing_comes_from_the_pod(files: dict[str, str], tmp_path: Path) -> None:
    pod = tmp_path / "pod"
    pod.mkdir()
    (pod / "ca.crt").write_text("PEM of the pod")
    (pod / "token").write_text("eyJ")
    found = find(Arguments(), {"ACB_SERVER": "https://hub:8443"}, pod)
    assert (found.servers, found.ca, found.credential) == (["https://hub:8443"], b"PEM of the pod", TokenFile(pod / "token"))
    (pod / "server").write_text("https://x:1,https://y:2\n")
    assert find(Arguments(), {}, pod).servers == ["https://x:1", "https://y:2"]
    (pod / "token").unlink()
    (pod / "api-key").write_text(KEY)
    assert find(Arguments(), {}, pod).credential == ApiKey(KEY)


@pytest.mark.parametrize(
    ("said", "around", "what"),
    [
        (Arguments(), {}, "the server .*no the tenant's CA .*no a credential"),
        (Arguments(server="x"), {}, "no the tenant's CA|there is no the tenant's CA"),
        (Arguments(profile="nobody"), {}, "'nobody' does not exist"),
        (Arguments(profile="x", server="x"), {}, "nothing of them beside it"),
        (Arguments(ca="x", ca_file="y"), {}, "ca and ca_file"),
        (Arguments(api_key=KEY, token_file="x"), {}, "api_key and token_file"),
        (Arguments(), {"ACB_API_KEY_FILE": "x", "ACB_TOKEN_FILE": "y"}, "ACB_API_KEY_FILE and ACB_TOKEN_FILE"),
        (Arguments(ca_file="/nowhere/ca.crt"), {}, "the CA, /nowhere/ca.crt: No such file"),
        (Arguments(api_key_file="/nowhere/key"), {}, "the API key, /nowhere/key: No such file"),
        (Arguments(api_key="hidden-but-wrong"), {}, "not an API key"),
    ],
)
def test_what_is_wrong_is_said_and_no_secret_is(said: Arguments, around: dict[str, str], what: str, tmp_path: Path) -> None:
    with pytest.raises(acb.UsageError, match=what) as wrong:
        find(said, around, tmp_path / "none")
    assert "hidden" not in str(wrong.value) and (wrong.value.code, wrong.value.reason) == (acb.Code.INVALID_ARGUMENT, "USAGE")


def test_a_file_of_profiles_that_is_none_is_said_without_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    around = {"ACB_CONFIG": str(file)}
    for text in (f"profiles: [{{name: x, apiKey: {KEY}", f"- {KEY}", f"profiles: [{KEY}]", f"profiles: {{a: {KEY}}}", "\x00", f"profiles: {KEY}"):
        file.write_text(text)
        with pytest.raises(acb.UsageError, match="can't be read as profiles") as wrong:
            find(Arguments(), around, tmp_path / "none")
        assert "c2VjcmV0" not in str(wrong.value)
    file.write_text("current: x\ncontexts: [{name: x, servers: [s], ca: PEM, apiKey: " + KEY + "}]")
    assert find(Arguments(), around, tmp_path / "none").servers == ["s"], "an older version wrote contexts"
    file.write_text(PROFILES)
    with pytest.raises(acb.UsageError, match="port-forward"):
        find(Arguments(profile="away"), around, tmp_path / "none")


def test_where_profiles_are_kept() -> None:
    assert _profile.path({"ACB_CONFIG": "/x", "XDG_CONFIG_HOME": "/y", "HOME": "/z"}) == Path("/x")
    assert _profile.path({"XDG_CONFIG_HOME": "/y", "HOME": "/z"}) == Path("/y/acb/config.yaml")
    assert _profile.path({"HOME": "/z"}) == Path("/z/.config/acb/config.yaml")
    assert _profile.path({}) is None


def test_the_systems_authorities_come_beside_the_tenants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "roots.pem"
    store.write_text("PEM of the system")
    paths: Any = ssl.get_default_verify_paths()._replace(cafile=str(store))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    said = Arguments(server="x", ca="PEM", api_key=KEY, system_roots=True)
    assert find(said, {}, tmp_path / "none").ca == b"PEM\nPEM of the system"
    assert find(Arguments(server="x", api_key=KEY, system_roots=True), {}, tmp_path / "none").ca == b"\nPEM of the system"


def test_nothing_shows_a_secret() -> None:
    key = ApiKey(f" {KEY}\n")
    tokens = acb.Tokens("eyJsecret", datetime.datetime.now(datetime.UTC), "refresh-secret")
    shown = [repr(key), str(key), f"{key}", repr(tokens), repr(Arguments(api_key=key, ca="PEM secret", tokens=tokens))]
    shown.append(repr(_config.Config(["x"], b"secret", key)))
    shown.append(repr(acb.connect("x", ca="y", api_key=KEY)))
    assert key.expose() == KEY and repr(key) == "ApiKey(acb_0123abcd_…)"
    assert not [one for one in shown if "c2VjcmV0" in one or "secret" in one]
    assert ApiKey(KEY) == key and len({ApiKey(KEY), key}) == 1
    for wrong in ("", "acb_", "acb_x", "acb__x", "x_y_z", "acb_x_", "acb_x_a b", "acb_x_é"):
        with pytest.raises(acb.UsageError):
            ApiKey(wrong)


def test_endpoints_are_read_as_people_write_them() -> None:
    for text in ("hub", "hub:8443", "https://hub", "https://hub:8443/", " hub:8443 "):
        assert normal(text) == "https://hub:8443", text
    assert normal("[::1]:9000") == "https://[::1]:9000"
    for text in ("http://hub", "hub/path", "", "a b", "hub:x", "hub:99999", "user@hub", "hub?x", "hub#x", "[::1", "https://"):
        with pytest.raises(acb.UsageError):
            normal(text)


def test_a_ca_that_is_none_is_said_before_anything_is_dialled() -> None:
    broken = b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(b"no certificate") + b"\n-----END CERTIFICATE-----\n"
    for pem in (b"", b"PEM", b"\xff\xfe", broken):
        with pytest.raises(acb.UsageError, match="the CA holds no certificate"):
            checked(pem)
