"""Files, merging, and what comes out."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rotator.config import Config, ConfigError, OutputConfig, Source, SourceKind, load
from rotator.core.model import ClientAuthentication, Grant, RotationPolicy
from tests.config.conftest import BASE
from tests.secrets_scan import planted, secrets_in

Good = Callable[..., Config]
Errors = Callable[..., list[str]]


def test_defaults_are_filled_in(good: Good) -> None:
    """A short configuration gives a whole one."""
    config = good(f"{BASE}[credentials.web]")
    daemon, credential = config.daemon, config.credentials["web"]
    assert Path("/var/lib/rotator") == daemon.state_directory
    assert Path("/run/rotator/rotator.sock") == daemon.control_socket
    assert daemon.drain_timeout == 105
    assert (config.metrics.host, config.metrics.port) == ("127.0.0.1", 9774)
    assert credential.grant is Grant.REFRESH_TOKEN
    assert credential.endpoint.client_authentication is ClientAuthentication.POST
    assert Source(SourceKind.FILE, "/nowhere/client-secret") == credential.client_secret
    assert config.warnings == ()


def test_the_policy_s_defaults_are_the_core_s(good: Good) -> None:
    """A configuration that says nothing about refreshing means the core's own policy."""
    policy = good(f"{BASE}[credentials.web]").credentials["web"].policy
    for field in fields(RotationPolicy):
        expected = getattr(RotationPolicy(), field.name)
        actual = getattr(policy, field.name)
        assert actual == (pytest.approx(expected, abs=1e-4) if isinstance(expected, float) else expected), field.name


def test_every_refresh_key_reaches_the_policy(good: Good) -> None:
    """A27, E20: each key of `refresh` changes the policy, `rotation` and the fuse among them."""
    policy = (
        good(
            f"""{BASE}[credentials.web]
refresh_token_lifetime = "30d"
refresh_token_slides = false
[credentials.web.refresh]
ratio = 0.5
min_remaining = "1m"
jitter = 0.1
floor = 10
assumed_lifetime = "30m"
max_lifetime = "2h"
backoff_initial = 1
backoff_max = 20
refused_retry = "20m"
replay_window = 0
confirm_after = 1
probe_interval = 0
suspect_after = 5
max_calls_per_hour = 60
rotation = "required"
keep_generations = 5
"""
        )
        .credentials["web"]
        .policy
    )
    assert policy == RotationPolicy(
        lifetime_ratio=0.5,
        min_remaining=60,
        jitter=0.1,
        assumed_lifetime=1800,
        max_lifetime=7200,
        refresh_token_lifetime=2592000,
        refresh_token_slides=False,
        floor=10,
        backoff_initial=1,
        backoff_max=20,
        refused_retry=1200,
        replay_window=0,
        confirm_after=1,
        probe_interval=0,
        suspect_after=5,
        max_calls_per_hour=60,
        rotation_required=True,
        keep_generations=5,
    )


def test_systemd_s_directories_are_the_defaults(good: Good) -> None:
    """$STATE_DIRECTORY and $RUNTIME_DIRECTORY set the directories; of several the first counts."""
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "RUNTIME_DIRECTORY": "/run/a"}
    daemon = good(f"{BASE}[credentials.web]", environ).daemon
    assert Path("/var/lib/a") == daemon.state_directory
    assert Path("/run/a/rotator.sock") == daemon.control_socket


def test_defaults_are_merged_into_credentials(good: Good) -> None:
    """`refresh` and `extra` merge key by key, a list of outputs is replaced as a whole."""
    config = good(
        f"""{BASE}refresh = {{ floor = 5, jitter = 0.2 }}
extra = {{ audience = "a", resource = "r" }}
outputs = [{{ path = "/run/tokens/{{name}}" }}]
[credentials.web]
refresh = {{ floor = 7 }}
extra = {{ audience = "b" }}
outputs = [{{ path = "/run/web" }}]
[credentials.other]
"""
    )
    web, other = config.credentials["web"], config.credentials["other"]
    assert (web.policy.floor, web.policy.jitter, other.policy.floor) == (7, 0.2, 5)
    assert [(key, source.value) for key, source in web.extra] == [("audience", "b"), ("resource", "r")]
    assert [output.path_for("web") for output in web.outputs if isinstance(output, OutputConfig)] == [Path("/run/web")]
    assert [output.title for output in other.outputs] == ["/run/tokens/{name}"]


def test_conf_d_is_merged_in_name_order(good: Good, tmp_path: Path) -> None:
    """Later files of `conf.d` win key by key; hidden and other files are left out."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / ".b.toml.swp").write_text("=")
    (tmp_path / "conf.d" / ".c.toml").write_text("=")
    (tmp_path / "conf.d" / "README").write_text("=")
    config = good(
        f"{BASE}[log]\nlevel = 'error'\nformat = 'json'\n",
        b="[log]\nlevel = 'debug'\n[credentials.b]",
        a="[log]\nlevel = 'info'\n[credentials.a]",
    )
    assert (config.log.level, config.log.format) == ("debug", "json")
    assert list(config.credentials) == ["a", "b"]
    assert [file.name for file in config.files] == ["rotator.toml", "a.toml", "b.toml"]


def test_a_credential_in_two_files_is_an_error(errors: Errors, tmp_path: Path) -> None:
    """The same credential in two files is an error that names both."""
    assert errors(f"{BASE}[credentials.web]", a="\n[credentials.web]") == [
        f"conf.d/a.toml:2: credentials.web: is also in {'rotator.toml'}: keep it in one of the two files"
    ]


def test_files_that_cannot_be_read_are_all_named(tmp_path: Path) -> None:
    """A missing file, a missing directory and broken text are errors with the file's name."""
    missing = load(tmp_path / "rotator.toml", None, {})
    assert isinstance(missing, tuple)
    assert [str(error) for error in missing] == [
        f"{tmp_path}/rotator.toml: cannot be read (No such file or directory): create it"
    ]
    nowhere = load(tmp_path / "rotator.toml", tmp_path / "nowhere", {})
    assert isinstance(nowhere, tuple)
    assert "nowhere: cannot be listed (No such file or directory): create it" in str(nowhere[0])
    (tmp_path / "rotator.toml").write_bytes(b"a = '\xff'")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a.toml").write_text("[log]\nlevel = \n")
    broken = load(tmp_path / "rotator.toml", None, {})
    assert isinstance(broken, tuple)
    assert [str(error).removeprefix(f"{tmp_path}/") for error in broken] == [
        "rotator.toml: is not UTF-8 text (byte 6): save it as UTF-8",
        "conf.d/a.toml:2: is not TOML: Invalid value (at line 2, column 9)",
    ]


def test_an_empty_file_is_good(good: Good) -> None:
    """No credentials is no error, as they may come later, but it is told."""
    assert "is empty: add a table [credentials.NAME]" in str(good("").warnings[0])


def test_any_text_may_come_from_elsewhere(good: Good, tmp_path: Path) -> None:
    """Texts that are no secrets are read from file, variable and command when the file is loaded."""
    (tmp_path / "id").write_text("from-file\n")
    (tmp_path / "id").chmod(0o600)
    config = good(
        f"""[credentials.web]
token_url = {{ env = "TOKEN_URL" }}
client_id = {{ file = "{tmp_path}/id" }}
scope = {{ command = ["/bin/echo", "openid"] }}
client_secret = {{ env = "NOT_SET_YET" }}
""",
        {"TOKEN_URL": "https://login.example.com/token"},
    )
    web = config.credentials["web"]
    assert (
        web.endpoint.token_url,
        web.client_id,
        web.scope,
    ) == ("https://login.example.com/token", "from-file", "openid")


def test_a_fleet_shares_its_settings(good: Good) -> None:
    """Twenty thousand credentials with equal settings hold one settings object, whatever their names."""
    names = "".join(f"[credentials.user-{number}]\n" for number in range(20_000))
    config = good(
        f'{BASE}outputs = [{{ path = "/run/tokens/{{name}}" }}]\nseed = {{ file = "/seeds/{{name}}" }}\n{names}'
    )
    assert len(config.credentials) == 20_000
    assert len({id(credential) for credential in config.credentials.values()}) == 1


def test_credentials_share_their_equal_parts(good: Good) -> None:
    """Credentials that differ in one setting still share endpoint, policy and outputs."""
    names = "".join(f'[credentials.u{number}]\nclient_id = "u{number}"\n' for number in range(50))
    outputs = 'outputs = [{ path = "/run/tokens/{name}" }]\n'
    settings = good(f"{BASE}{outputs}{names}").credentials.values()
    assert len({id(one) for one in settings}) == 50
    for part in ("endpoint", "policy", "outputs", "client_secret"):
        assert len({id(getattr(one, part)) for one in settings}) == 1, part


def test_equal_files_give_equal_settings(good: Good) -> None:
    """A reload can tell by `==` which credentials have changed."""
    text = f"{BASE}[credentials.a]\n[credentials.b]\nscope = 'x'\n"
    before = good(text).credentials
    after = good(text.replace("'x'", "'y'")).credentials
    assert (before["a"] == after["a"], before["b"] == after["b"]) == (True, False)


def test_no_secret_is_in_a_repr_or_message(load_text: Callable[..., Config | tuple[ConfigError, ...]]) -> None:
    """Neither a configuration's repr nor any warning or error shows a value written in place."""
    text = f"""[credentials.web]
token_url = "https://user:{planted("a")}@login.example.com/"
client_id = "web"
client_secret = "{planted("b")}"
seed = "{planted("c")}"
extra = {{ password = "{planted("d")}" }}
proxy = "http://user:{planted("e")}@proxy.example.com"
hooks = [{{ webhook = "https://example.com/{planted("f")}" }}]
"""
    config = load_text(text)
    assert isinstance(config, Config)
    assert secrets_in(repr(config)) == []
    bad = load_text(text.replace("_url = ", "_urk = ").replace(planted("b"), planted("b") + "\\u0000"))
    assert isinstance(bad, tuple)
    assert len(bad) == 3
    assert secrets_in(repr(bad) + "".join(map(str, bad))) == []


toml_values = st.recursive(
    st.one_of(
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="\\\"'"), max_size=8).map(
            lambda text: f'"{text}"'
        ),
        st.sampled_from(["0", "-1", "3.5", "nan", "inf", "true", "false", "2020-01-01", "07:00:00", '"1h"', "1e400"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(["file", "env", "path", "mode", "signal", "x"]), inner, max_size=3).map(
            lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
        ),
    ),
    max_leaves=6,
)
keys = st.sampled_from(
    [
        *("token_url", "client_id", "client_secret", "seed", "extra", "outputs", "hooks", "refresh", "scope", "grant"),
        *("daemon", "metrics", "listen", "log", "level", "defaults", "credentials", "state_directory", "total_timeout"),
        *("drain_timeout", "max_concurrent", "proxy", "refresh.floor", "outputs.path", "'a b'", "nonsense", "ca_file"),
    ]
)
headers = st.sampled_from(
    ["", "[daemon]", "[metrics]", "[log]", "[defaults]", "[credentials.a]", "[credentials.'b c']", "[credentials]"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    st.one_of(
        st.text(),
        st.lists(st.tuples(headers, keys, toml_values), max_size=8).map(
            lambda parts: "\n".join(f"{header}\n{key} = {value}" for header, key, value in parts)
        ),
    )
)
def test_no_file_breaks_the_loader(tmp_path: Path, text: str) -> None:
    """K7: whatever a file holds, the answer is a configuration or errors of one line each."""
    path = tmp_path / "rotator.toml"
    path.write_text(text, errors="replace")
    answer = load(path, None, {})
    findings = answer.warnings if isinstance(answer, Config) else answer
    for finding in findings:
        assert finding.file == str(path)
        assert "\n" not in str(finding)
        assert finding.text


@pytest.mark.parametrize("text", ["a=" + "[" * 5000, f"a={'9' * 5000}", "a" * 100_000, "\x00", "\ufeff[log]"])
def test_monstrous_files_are_errors(errors: Errors, text: str) -> None:
    """Nesting and numbers beyond the parser's limits are errors, not crashes."""
    assert len(errors(text)) == 1
