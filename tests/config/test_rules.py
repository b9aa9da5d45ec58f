"""What is wrong or doubtful about settings, one test for each rule, with the words the user gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rotator.config import Config
from tests.config.conftest import BASE
from tests.secrets_scan import planted

Good = Callable[..., Config]
Found = Callable[..., list[str]]

WEB = f"{BASE}[credentials.web]\n"
"""What a test adds starts on line 6."""


def test_all_errors_at_once(errors: Found) -> None:
    """Every error of every table is told at once, each with file, line, key and cure."""
    assert errors(
        """[daemon]
max_concurrent = "3"
listen = "127.0.0.1:1"
[defaults]
client_id = "web"
refresh = { assumed_lifetime = 0, floor = "3" }
[credentials.web]
token_urll = "https://login.example.com"
outputs = [
  { path = "relative", mode = 640 },
]
[[credentials.web.hooks]]
command = ["/bin/true"]
signal = "HUP"
[log]
level = "trace"
"""
    ) == [
        "rotator.toml:2: daemon.max_concurrent: must be a whole number",
        "rotator.toml:3: daemon.listen: is valid, but not here: move it to [metrics]",
        (
            "rotator.toml:6: defaults.refresh.floor: is not a duration: write a number of seconds "
            "(`90`, `0.5`) or a text of "
            'numbers with units (`"90s"`, `"15m"`, `"1h30m"`, `"30d"`); units: ms, s, m, h, d, w'
        ),
        "rotator.toml:6: defaults.refresh.assumed_lifetime: must be more than 0; 0 does not mean 'for ever'",
        'rotator.toml:7: credentials.web.token_url: is missing: add token_url = "https://…" here or in [defaults]',
        (
            'rotator.toml:7: credentials.web.client_secret: is missing: add client_secret = { file = "…" }, '
            'or client_authentication = "none" for a public client'
        ),
        "rotator.toml:8: credentials.web.token_urll: is not a known key: did you mean token_url?",
        "rotator.toml:9: credentials.web.outputs[0].path: must be an absolute path: start it with /",
        'rotator.toml:9: credentials.web.outputs[0].mode: must be a text of octal digits such as "0640"',
        (
            "rotator.toml:12: credentials.web.hooks[0]: must have one of command, signal and webhook, "
            "not command and signal"
        ),
        "rotator.toml:16: log.level: must be 'debug', 'info', 'warning' or 'error'",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("floor = 3", "1: floor: is valid, but not here: move it to refresh of [credentials.NAME] or [defaults]"),
        ("[daemons]", "1: daemons: is not a known key: did you mean daemon?"),
        (
            "[defaults]\nmin_remaining = 3",
            "2: defaults.min_remaining: is valid, but not here: move it to refresh of [credentials.NAME] or [defaults]",
        ),
        ("[metrics]\nlisten_on = ':1'", "2: metrics.listen_on: is not a known key: did you mean listen?"),
        (
            "[daemon]\nfleet_treshold = 1",
            "2: daemon.fleet_treshold: is not a known key: did you mean fleet_threshold in [metrics]?",
        ),
        ("[log]\nzzz = 1", "2: log.zzz: is not a known key: here there are level, format"),
        ("log = 3", "1: log: must be a table: write [log]"),
        (
            "[log]\nstate_directory = '/x'\n",
            "2: log.state_directory: is valid, but not here: move it to [daemon]",
        ),
    ],
)
def test_unknown_and_misplaced_keys(errors: Found, text: str, error: str) -> None:
    """K7: a key that is unknown or stands in the wrong table is an error with the nearest valid one."""
    assert errors(text) == [f"rotator.toml:{error}"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        # A14
        (
            "refresh = { assumed_lifetime = 0 }",
            "refresh.assumed_lifetime: must be more than 0; 0 does not mean 'for ever'",
        ),
        ('refresh_token_lifetime = "0d"', "refresh_token_lifetime: must be more than 0; 0 does not mean 'for ever'"),
        ("refresh = { rotation = true }", "refresh.rotation: must be 'required' or 'optional'"),
        ("refresh = { max_calls_per_hour = 0 }", "refresh.max_calls_per_hour: must be greater than or equal to 1"),
        ("refresh = { ratio = 1.0 }", "refresh.ratio: must be less than or equal to 0.95"),
        ("refresh = 3", "refresh: must be a table"),
        ('refresh = { backoff_max = "1s" }', "refresh.backoff_max: must be at least backoff_initial (5s)"),
        ('refresh = { max_lifetime = "10m" }', "refresh.max_lifetime: must be at least assumed_lifetime (1h)"),
        ('total_timeout = "30s"', "total_timeout: must be at least read_timeout (1m)"),
        ('connect_timeout = "2m"', "total_timeout: must be at least connect_timeout (2m)"),
        ('grant = "password"', "grant: must be 'refresh_token' or 'client_credentials'"),
        ("use_environment_proxies = 'yes'", "use_environment_proxies: must be true or false, without quotes"),
        (
            'client_authentication = "none"',
            'client_authentication: is "none", but there is a client_secret: remove one of the two',
        ),
        (
            'grant = "client_credentials"\nseed = { file = "/s" }',
            "seed: is not used with client_credentials, which has no refresh token: remove it",
        ),
        ('client_key = "/k"', "client_key: needs client_certificate: add it"),
        ('extra = { grant_type = "password" }', "extra.grant_type: is set by rotator itself: remove it"),
        ('extra = { scope = "a" }', "extra.scope: is set by rotator itself: remove it, use the setting scope"),
        ('token_url = "login.example.com"', "token_url: is not a URL that can be called: write https://host/path"),
        ('token_url = "https://a:99999/"', "token_url: is not a URL: write https://host/path"),
        ('token_url = "https://[::1/"', "token_url: is not a URL: write https://host/path"),
        (
            'token_url = "https://a.example/#x"',
            "token_url: must not have a #fragment (RFC 6749 section 3.2): cut it off",
        ),
        (
            'token_url = "https://a.example/{name}"',
            "token_url: cannot use {name} here: it works in client_secret, seed, extra, hooks, and where outputs go",
        ),
        (
            'client_id = { file = "/etc/{name}" }',
            "client_id: cannot use {name} here: it works in client_secret, seed, extra, hooks, and where outputs go",
        ),
        ('client_id = { env = "NOT_SET" }', "client_id: environment variable NOT_SET is not set: set it"),
        (
            "client_secret = 3",
            (
                'client_secret: must be a text in quotes, { file = "/path" }, { env = "NAME" }, { '
                'credential = "name" } '
                'or { command = ["program", "argument"] }'
            ),
        ),
        (
            'client_secret = { file = "/a", env = "B" }',
            (
                'client_secret: must be a text in quotes, { file = "/path" }, { env = "NAME" }, { '
                'credential = "name" } '
                'or { command = ["program", "argument"] }'
            ),
        ),
        (
            'client_secret = { command = "pass web" }',
            'client_secret: command must be a list of texts: ["/path/of/program", "argument"]; there is no shell',
        ),
        ('client_secret = { file = "secret" }', "client_secret: file must be an absolute path"),
        (
            'client_secret = { credential = "../a" }',
            "client_secret: credential must be a name without '/', as in LoadCredential= of the unit",
        ),
        (
            'proxy = "http://p.example"\nuse_environment_proxies = true',
            "use_environment_proxies: has no effect beside proxy: remove one of the two",
        ),
        ("outputs = [{}]", "outputs[0]: must have one of path and kubernetes_secret, not none of them"),
        (
            "outputs = [{ path = '/a', kubernetes_secret = { name = 'a', data = { t = 'raw' } } }]",
            "outputs[0]: must have one of path and kubernetes_secret, not both",
        ),
        (
            "outputs = [{ kubernetes_secret = { name = 'a', data = { t = 'raw' } }, mode = '0600' }]",
            "outputs[0].mode: is for files, and has no use beside kubernetes_secret: remove it",
        ),
        (
            "outputs = [{ kubernetes_secret = { name = 'a', data = { '..' = 'raw' } } }]",
            (
                'outputs[0].kubernetes_secret.data."..": cannot be a key of a Secret: use letters, digits, '
                "'-', '_' and '.'"
            ),
        ),
        (
            "outputs = [{ kubernetes_secret = { name = 'a', data = { t = 'token' } } }]",
            ("outputs[0].kubernetes_secret.data.t: has no placeholder: write {access_token} where the token belongs"),
        ),
        (
            "outputs = [{ kubernetes_secret = { name = 'A_{name}', data = { t = 'raw' } } }]",
            (
                "outputs[0].kubernetes_secret.name: makes A_web, which no Secret can be called: use a-z, 0-9, '-' "
                "and '.'"
            ),
        ),
        ("outputs = { path = '/a' }", "outputs: must be a list: [ … ]"),
        ("outputs = [{ path = '/a/' }]", "outputs[0].path: is a directory: add a file name, such as {name}"),
        (
            "outputs = [{ path = '/a', mode = '0440', in_place = true }]",
            'outputs[0].mode: keeps the owner from writing in place a second time: use "0640", or remove in_place',
        ),
        (
            "outputs = [{ path = '/a', mode = '0200' }]",
            "outputs[0].mode: must let the owner read the file: 0400 or more",
        ),
        (
            "outputs = [{ path = '/a', format = 'raw', template = '{access_token}' }]",
            "outputs[0].template: replaces format: remove one of the two",
        ),
        (
            "outputs = [{ path = '/a', template = 'constant' }]",
            "outputs[0].template: has no placeholder: write {access_token} where the token belongs",
        ),
        (
            "outputs = [{ path = '/run/t' }, { path = '/run/x/../t' }]",
            "outputs[1].path: is the same file as another output of web: choose another path",
        ),
        (
            "outputs = [{ path = '/var/lib/rotator/token' }]",
            (
                "outputs[0].path: lies in state_directory (/var/lib/rotator), which is private: choose a "
                "directory for readers"
            ),
        ),
        ("hooks = [{}]", "hooks[0]: must have one of command, signal and webhook, not none of them"),
        ("hooks = [{ signal = 'HUP' }]", "hooks[0].pid_file: is missing: a signal needs the file with the process id"),
        (
            "hooks = [{ command = ['/bin/true'], pid_file = '/p' }]",
            "hooks[0].pid_file: has no use beside command: remove it",
        ),
        (
            "hooks = [{ webhook = 'example.com' }]",
            "hooks[0].webhook: is not a URL that can be called: write https://host/path",
        ),
    ],
)
def test_bad_settings_of_a_credential(errors: Found, text: str, error: str) -> None:
    """A14 among others: a value or a pair of values that cannot work is an error with its cure."""
    (found,) = errors(f"{WEB}{text}\n")
    place, _, rest = found.partition(" ")
    assert rest == f"credentials.web.{error}"
    assert place in {f"rotator.toml:{line}:" for line in (5, 6, 7)}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        # B9
        (
            'read_timeout = "10s"',
            (
                "read_timeout: below 60s may give up on a server that has already replaced the refresh "
                "token: use 60s or more"
            ),
        ),
        (
            'token_url = "http://login.example.com/"',
            "token_url: uses http, so anyone on the way can read the tokens: use https",
        ),
        (
            f'token_url = "https://u:{planted("a")}@login.example.com/"',
            "token_url: has a password in it: use client_secret instead",
        ),
        (
            f'proxy = "http://u:{planted("a")}@proxy.example.com"',
            'proxy: has a password in it: use { file = "…" } if others may read this file',
        ),
        (
            f'client_secret = "{planted("a")}"',
            (
                "client_secret: is written in place, where every reader of this file and its backups sees it: "
                'use { file = "…" } or { credential = "…" }'
            ),
        ),
        (
            f'seed = "{planted("a")}"',
            (
                "seed: is written in place, where every reader of this file and its backups sees it: "
                'use { file = "…" } or { credential = "…" }'
            ),
        ),
        # L11
        (
            'refresh = { min_remaining = "50m" }',
            (
                "refresh.min_remaining: is more than a third of the lifetime: with tokens of 1h "
                "(refresh.assumed_lifetime) "
                "20m is used; shorten it, or ask for longer tokens"
            ),
        ),
        # H17
        (
            "outputs = [{ path = '/t', propagation = '30m' }]",
            (
                "outputs[0].propagation: is more than a third of the lifetime: with tokens of 1h "
                "(refresh.assumed_lifetime) "
                "20m is used; shorten it, or ask for longer tokens"
            ),
        ),
        # H17
        (
            (
                "outputs = [{ kubernetes_secret = { name = 'a', data = { t = 'raw' } } }]\n"
                "refresh = { assumed_lifetime = '5m' }"
            ),
            (
                "outputs[0].kubernetes_secret: takes 3m to reach every pod, more than a third of the lifetime: with "
                "tokens of 5m (refresh.assumed_lifetime) 100s is used; shorten it, or ask for longer tokens"
            ),
        ),
        (
            "outputs = [{ path = '/t', mode = '0644' }]",
            'outputs[0].mode: lets every user of this machine at the token: "0640" and a group is safer',
        ),
    ],
)
def test_doubtful_settings_draw_a_warning(warnings: Found, text: str, warning: str) -> None:
    """B9, H17, L11 among others: what works but is unwise loads with one warning."""
    assert warnings(f"{WEB}{text}\n") == [f"rotator.toml:6: credentials.web.{warning}"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost", "sandbox.localhost"])
def test_http_on_loopback_is_fine(warnings: Found, host: str) -> None:
    """Nobody listens on the way to the same machine."""
    assert warnings(f'{WEB}token_url = "http://{host}:8080/token"') == []


def test_a_newline_in_a_secret_file_is_told(warnings: Found, tmp_path: Path) -> None:
    """K2: a secret file that ends in a newline draws a warning with the file's name alone."""
    (tmp_path / "s").write_text(planted("a") + "\n")
    (tmp_path / "s").chmod(0o600)
    assert warnings(f'{WEB}client_secret = {{ file = "{tmp_path}/s" }}') == [
        (
            "rotator.toml:6: credentials.web.client_secret: file s ends in a newline, which is not "
            "taken as part of the value"
        )
    ]


def test_propagation_raises_the_margin(good: Good) -> None:
    """H16: the slowest reader of a credential's outputs sets the least remaining life of a token."""
    outputs = "outputs = [{ path = '/a', propagation = '1m' }, { path = '/b', propagation = '3m' }]"
    assert good(f"{WEB}{outputs}").credentials["web"].policy.min_remaining == 180
    larger = good(f"{WEB}{outputs}\nrefresh = {{ min_remaining = '5m' }}")
    assert larger.credentials["web"].policy.min_remaining == 300


def test_a_secret_is_refreshed_three_minutes_early(good: Good) -> None:
    """H16, H17: a mounted Secret takes up to 100 s to reach a pod, so 180 s are kept in any case."""
    secret = "kubernetes_secret = { name = '{name}-token', data = { token = '{access_token}' } }"
    for propagation, margin in (("0", 180), ("1m", 180), ("10m", 600)):
        config = good(f"{WEB}outputs = [{{ {secret}, propagation = '{propagation}' }}]".replace("'0'", "0"))
        assert config.credentials["web"].policy.min_remaining == margin
        (output,) = config.credentials["web"].outputs
        assert (output.title, output.propagation) == ("secret/{name}-token", margin)


def test_secrets_of_two_credentials_must_differ(errors: Found) -> None:
    """Two credentials that write one Secret are an error, told once for all that share the setting."""
    names = "".join(f"[credentials.u{number}]\n" for number in range(1000))
    outputs = "outputs = [{ kubernetes_secret = { name = 'token', data = { token = 'raw' } } }]"
    assert errors(f"{BASE}{outputs}\n{names}") == [
        (
            "rotator.toml:5: defaults.outputs[0].kubernetes_secret.name: is the same Secret as that of u0: choose "
            "another, such as {name}-token"
        )
    ]


@pytest.mark.parametrize(
    ("store", "output", "refused"),
    [("", "", True), ("a", "a", True), ("a", "", True), ("", "a", True), ("a", "b", False)],
)
def test_a_state_is_never_the_published_secret(
    errors: Found, good: Good, store: str, output: str, refused: bool
) -> None:  # fmt: skip
    """An output cannot be given the name of a state in the namespace of the store, or in one that may be that."""
    at = f", namespace = '{output}'" if output else ""
    text = (
        f"{WEB}outputs = [{{ kubernetes_secret = {{ name = 'rotator-state-x', data = {{ t = 'raw' }}{at} }} }}]\n"
        "[daemon]\nstore = 'kubernetes'\n[kubernetes]\n" + (f"namespace = '{store}'" if store else "")
    )
    if not refused:
        assert good(text).credentials
        return
    assert errors(text) == [
        (
            "rotator.toml:6: credentials.web.outputs[0].kubernetes_secret.name: makes rotator-state-x: names that "
            "begin with kubernetes.secret_prefix are kept for states, which hold refresh tokens: choose another"
        )
    ]


def test_the_drain_outlasts_every_request(good: Good, errors: Found) -> None:
    """A stop waits longer than any request may take: by default, and by rule."""
    slow = f'{WEB}read_timeout = "3m"\ntotal_timeout = "4m"\n'
    assert good(slow).daemon.drain_timeout == 255
    assert errors(f'{slow}[daemon]\ndrain_timeout = "4m"') == [
        (
            "rotator.toml:9: daemon.drain_timeout: must be longer than each total_timeout (4m in web), "
            "or a stop may lose an answer"
        )
    ]


def test_limits_of_concurrency_fit(errors: Found) -> None:
    """One server cannot be allowed more than all servers together."""
    assert errors("[daemon]\nmax_concurrent = 3") == [
        "rotator.toml:2: daemon.max_concurrent: must be at least max_concurrent_per_server (4)"
    ]


@pytest.mark.parametrize("listen", ["9774", ":9774", "::1:9774", "host:99999", "host:", "a b:1", "http://a:1", ""])
def test_bad_addresses(errors: Found, listen: str) -> None:
    """An address to listen on is host:port, an IPv6 host in brackets."""
    (found,) = errors(f'[metrics]\nlisten = "{listen}"')
    assert found.startswith("rotator.toml:2: metrics.listen: ")


def test_ipv6_addresses(good: Good) -> None:
    """Brackets are taken off an IPv6 host."""
    metrics = good('[metrics]\nlisten = "[::1]:0"').metrics
    assert (metrics.host, metrics.port) == ("::1", 0)


def test_multiprocess_metrics_draw_a_warning(warnings: Found) -> None:
    """M7: PROMETHEUS_MULTIPROC_DIR in the environment of a single process draws a warning."""
    environ = {"PROMETHEUS_MULTIPROC_DIR": "/m"}
    assert warnings(WEB, environ) == [
        (
            "rotator.toml: metrics: PROMETHEUS_MULTIPROC_DIR is set, but rotator is one process: take "
            "it out of the environment"
        )
    ]
    assert warnings(f"{WEB}[metrics]\nenabled = false", environ) == []


@pytest.mark.parametrize("name", ["'a b'", "'../x'", "'-a'", "'.a'", "'ä'", f"'{'a' * 102}'", "''", '"a\\n"'])
def test_bad_names(errors: Found, name: str) -> None:
    """A credential's name can become a file's name, so it is made of letters, digits, dot, dash, underscore."""
    (found,) = errors(f"{BASE}[credentials.{name}]")
    assert "is not a good name: use up to 101 letters, digits" in found
    assert "\n" not in found


def test_outputs_of_two_credentials_must_differ(errors: Found) -> None:
    """Two credentials that write one path are an error, told once for all that share the setting."""
    names = "".join(f"[credentials.u{number}]\n" for number in range(1000))
    assert errors(f"{BASE}outputs = [{{ path = '/run/token' }}]\n{names}") == [
        "rotator.toml:5: defaults.outputs[0].path: is the same file for u0 and u1: put {name} into it"
    ]


def test_an_error_shared_by_a_fleet_is_told_once(errors: Found) -> None:
    """A mistake in [defaults] is told once and there; one in equal credentials names the first."""
    names = "".join(f"[credentials.u{number}]\n" for number in range(1000))
    assert errors(f"{BASE}scopes = 'x'\n{names}") == [
        "rotator.toml:5: defaults.scopes: is not a known key: did you mean scope?"
    ]
    assert errors(f"{BASE}{names}".replace('client_id = "web"', "")) == [
        (
            'rotator.toml:5: credentials.u0.client_id: is missing: add client_id = "…" here or in [defaults] '
            "(and 999 more credentials like it)"
        )
    ]


def test_a_thousand_different_errors_are_cut_short(errors: Found) -> None:
    """More errors than anyone reads are counted."""
    names = "".join(f"[credentials.u{number}]\nx{number} = 1\n" for number in range(1000))
    found = errors(f"{BASE}{names}")
    assert len(found) == 101
    assert found[-1] == "rotator.toml: and 900 more like these"


def test_no_password_can_be_configured(errors: Found) -> None:
    """B19: there is no stored password to fall back on."""
    assert errors(f"{WEB}password = '{planted('a')}'")
    assert errors(f"{WEB}username = '{planted('a')}'")


def test_a_lease_must_outlast_a_request_and_its_save(good: Good, errors: Found) -> None:
    """C5 C6: the inequality is checked at the start, and the default keeps it."""
    shared = f'{WEB}total_timeout = "4m"\n[daemon]\nstore = "kubernetes"\n[kubernetes]\ntimeout = "10s"\n'
    kubernetes = good(shared).daemon.kubernetes
    assert kubernetes is not None
    assert kubernetes.lease_duration == 240 + 2 * 10 + 30
    assert kubernetes.spare == 30
    assert good(f'{shared}lease_duration = "261s"').daemon.kubernetes is not None
    assert errors(f'{shared}lease_duration = "260s"') == [
        (
            "rotator.toml:11: kubernetes.lease_duration: must be at least 261s: as long as the longest request "
            "(4m in web), its save (twice timeout) and a second to renew in, or another replica may refresh meanwhile"
        )
    ]


def test_a_store_is_in_one_place(errors: Found) -> None:
    """What has no use is an error, not a surprise."""
    assert errors(f"{WEB}[kubernetes]\nshards = 2\n") == [
        'rotator.toml:6: kubernetes: has no use: add store = "kubernetes" to [daemon], or remove it'
    ]
    both = f'{WEB}[daemon]\nstore = "kubernetes"\nstate_directory = "/var/lib/rotator"\n'
    assert errors(both) == [
        'rotator.toml:8: daemon.state_directory: has no use beside store = "kubernetes": remove one of the two'
    ]
