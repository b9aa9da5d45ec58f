"""The tables of the configuration file, one model each: keys, kinds, defaults and their descriptions.

The reference page and the JSON Schema are made from this file. Rules that span keys are in `checks`.
"""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from rotator.config.values import (
    AbsolutePath,
    Content,
    Document,
    Duration,
    Listen,
    Mode,
    NamePattern,
    PathPattern,
    PositiveDuration,
    Secret,
    Template,
    Text,
    Url,
)
from rotator.core.model import RotationPolicy

_POLICY: Final = RotationPolicy()
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}$"


class Table(BaseModel):
    """What all tables have in common: unknown keys are errors, `"yes"` is not `true`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class DaemonTable(Table):
    """Settings of the process as a whole."""

    store: Literal["files", "kubernetes"] = Field(
        "files",
        description="Where token sets are kept: `files` in the state directory, or Secrets in `kubernetes`, which "
        "several replicas share; see `[kubernetes]`.",
    )
    state_directory: AbsolutePath | None = Field(
        None,
        description="Where token sets are kept, mode 0700. One running rotator owns it. "
        "Default: `$STATE_DIRECTORY`, else `/var/lib/rotator`.",
        examples=["/var/lib/rotator"],
    )
    runtime_directory: AbsolutePath | None = Field(
        None,
        description="Holds the control socket. Default: `$RUNTIME_DIRECTORY`, else `/run/rotator`.",
        examples=["/run/rotator"],
    )
    spill_directory: AbsolutePath | None = Field(
        None,
        description="A place on another disk, one that outlives a reboot, for a token set that the state directory "
        "cannot take (disk full). In the systemd service it needs `ReadWritePaths=`. "
        "Without it such a token set lives in memory until the disk has room. Default: none.",
        examples=["/srv/rotator"],
    )
    control_socket: AbsolutePath | None = Field(
        None,
        description="The unix socket for `rotator status` and its like. "
        "Default: `rotator.sock` in the runtime directory.",
        examples=["/run/rotator/rotator.sock"],
    )
    control_socket_group: Text | None = Field(
        None,
        description="The group that may use the control socket. Default: the daemon's own.",
        examples=["rotator"],
    )
    drain_timeout: PositiveDuration | None = Field(
        None,
        description="How long a stop waits for a request in flight and its save. "
        "Must be longer than each `total_timeout`; a supervisor's own limit (`TimeoutStopSec=`, "
        "`terminationGracePeriodSeconds`) must be longer still. "
        "Default: the longest `total_timeout` and 15 s.",
        examples=["105s"],
    )
    max_concurrent: int = Field(32, ge=1, le=1000, description="Token requests in flight, in total.")
    max_concurrent_per_server: int = Field(
        4, ge=1, le=1000, description="Token requests in flight to one host and port."
    )
    on_dead_grant: Literal["stay", "exit"] = Field(
        "stay",
        description="What to do when a credential needs a new login: `stay` and alert, or `exit` with status 77, "
        "at the refusal that confirms it and, if somebody starts it again without a login, at each later one "
        "(`probe_interval`). For one credential under a supervisor that reacts to it.",
    )


class KubernetesTable(Table):
    """The store in Kubernetes: a Secret for each credential, and the Lease that says which replica refreshes.

    Used if `daemon.store` is `kubernetes`. Who may read these Secrets has the refresh tokens.
    """

    namespace: Text | None = Field(
        None, description="Where the Secrets and Leases are. Default: the pod's own.", examples=["tokens"]
    )
    secret_prefix: Text = Field(
        "rotator-state-",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="The Secret of the credential `home` is called `rotator-state-home`. It is never one of those that "
        "outputs write.",
    )
    lease: Text = Field(
        "rotator",
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Name of the Lease; with several shards `rotator-0`, `rotator-1` and so on. "
        "Rotators with other credentials need another one: who holds it refreshes what it knows, and nobody the rest.",
    )
    shards: int = Field(
        1,
        ge=1,
        le=64,
        description="In how many parts, each with a Lease of its own, the replicas share the credentials. "
        "It must be the same in all replicas, but for the minutes of a rollout that changes it.",
    )
    lease_duration: PositiveDuration | None = Field(
        None,
        description="How long after its last sign of life a replica keeps what it holds. Must be longer than the "
        "longest `total_timeout`, twice `timeout` and a second together. Default: those and 30 s.",
        examples=["130s"],
    )
    timeout: PositiveDuration = Field(5.0, description="For one request to the API server.")


class MetricsTable(Table):
    """Metrics, health and the status page over HTTP."""

    enabled: bool = Field(default=True, description="Serve `/metrics`, `/livez`, `/readyz` and `/status`.")
    listen: Listen = Field(
        "127.0.0.1:9774",
        description="Address and port. Nothing secret is served, but there is no access control either. A loopback "
        "address answers to no other host names than `localhost` and IP addresses.",
        examples=["127.0.0.1:9774", "[::1]:9774", "0.0.0.0:9774"],
    )
    status_page: bool = Field(
        default=True,
        description="Serve the status page for people at `/`, too: names, states, output paths and error texts, for "
        "whoever reaches the address.",
    )
    optional: bool = Field(
        default=False, description="Start even if the port is taken; the daemon then runs without metrics and says so."
    )
    fleet_threshold: int = Field(
        2000,
        ge=0,
        description="With more credentials than this, series per credential are replaced by distributions.",
    )


class LogTable(Table):
    """The log, on standard error. Tokens and secrets are never in it, at any level."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least severe level to write.")
    format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="`auto` writes text to a terminal and to systemd's journal, and JSON lines to everything else. "
        "The journal is given priorities and no times, in either format.",
    )


class RefreshTable(Table):
    """When to refresh and how hard to try. The defaults suit nearly everybody."""

    ratio: float = Field(
        round(_POLICY.lifetime_ratio, 4),
        ge=0.1,
        le=0.95,
        description="Refresh when this share of the access token's lifetime is over.",
    )
    min_remaining: Duration = Field(
        _POLICY.min_remaining,
        description="Refresh at least this long before expiry. An output's `propagation` raises it. "
        "More than a third of the lifetime has no effect.",
    )
    jitter: float = Field(
        _POLICY.jitter,
        ge=0,
        le=0.3,
        description="Refresh earlier by up to this share of the lifetime, so that credentials spread out.",
    )
    floor: PositiveDuration = Field(_POLICY.floor, description="Shortest time between two refreshes of one credential.")
    assumed_lifetime: PositiveDuration = Field(
        _POLICY.assumed_lifetime, description="Lifetime of an access token when the answer names none."
    )
    max_lifetime: PositiveDuration = Field(
        _POLICY.max_lifetime, description="A longer `expires_in` is cut down to this."
    )
    backoff_initial: PositiveDuration = Field(
        _POLICY.backoff_initial, description="First wait after a failure; it doubles, with chance, from there."
    )
    backoff_max: PositiveDuration = Field(_POLICY.backoff_max, description="Longest wait between tries.")
    refused_retry: PositiveDuration = Field(
        _POLICY.refused_retry,
        description="Wait after a refusal such as `invalid_client`. A changed secret file ends it at once.",
    )
    replay_window: Duration = Field(
        _POLICY.replay_window,
        description="A request that may or may not have been carried out is repeated once within this time of its "
        "start, as servers with a grace period allow; later only when the access token is nearly over. `0`: never.",
    )
    confirm_after: Duration = Field(
        _POLICY.confirm_after,
        description="Wait between the first `invalid_grant` and the one that is believed.",
    )
    probe_interval: Duration = Field(
        _POLICY.probe_interval,
        description="Once a new login is required, ask again this often: a disabled user may be enabled again. "
        "`0`: never.",
    )
    suspect_after: int = Field(
        _POLICY.suspect_after,
        ge=1,
        le=100,
        description="Refusals in a row, other than `invalid_grant`, before the grant counts as suspect.",
    )
    max_calls_per_hour: int = Field(
        _POLICY.max_calls_per_hour,
        ge=1,
        le=100_000,
        description="Fuse: more token requests than this within an hour stop the credential for a while and raise an "
        "alert. Short lifetimes raise it.",
    )
    rotation: Literal["required", "optional"] = Field(
        "required" if _POLICY.rotation_required else "optional",
        description="`required`: an answer without a new refresh token raises an alert at once; "
        "its access token is used all the same.",
    )
    keep_generations: int = Field(
        _POLICY.keep_generations,
        ge=1,
        le=20,
        description="How many earlier refresh tokens are kept in the state, in case the newest was lost.",
    )


class KubernetesSecretTable(Table):
    """A Secret in a cluster: the one that `$KUBECONFIG` names, the one this pod is in, or that of `~/.kube/config`.

    Only what stands here is written; other keys, labels and annotations of the Secret stay as they are.
    The expiry, the generation and the credential's name stand in its annotations.
    Needs the extra `token-rotator[kubernetes]`.
    """

    name: NamePattern = Field(
        description="The Secret's name. `{name}` stands for the credential's name.", examples=["{name}-token"]
    )
    namespace: Text | None = Field(
        None, description="Its namespace. Default: the pod's own, or the kubeconfig's.", examples=["shop"]
    )
    data: Annotated[dict[str, Content], Field(min_length=1)] = Field(
        description="Keys of the Secret, and what stands under each: one of the formats, or a template, as for files.",
        examples=[{"token": "{access_token}"}],
    )
    type: str | None = Field(None, description="Its type. Default: as the server has it, `Opaque`.")
    labels: dict[str, str] = Field({}, description="Labels to set.", examples=[{"app": "shop"}])
    annotations: dict[str, str] = Field({}, description="Annotations to set, beside our own.")
    adopt: bool = Field(
        default=False, description="Take over a Secret that somebody else made. Without it such a one is left alone."
    )


class OutputTable(Table):
    """Where programs read the token: exactly one of `path`, a file, and `kubernetes_secret`.

    A file is replaced as a whole, so no reader sees half of it. `format` to `in_place` are for files.
    """

    path: PathPattern | None = Field(
        None,
        description="The file. `{name}` stands for the credential's name. Must not lie in the state directory.",
        examples=["/run/rotator/{name}.token"],
    )
    kubernetes_secret: KubernetesSecretTable | None = Field(
        None,
        description="A Secret instead of a file.",
        examples=[{"name": "{name}-token", "data": {"token": "{access_token}"}}],
    )
    format: Literal["raw", "header", "env", "json", "id_token"] | None = Field(
        None,
        description="`raw`: the access token alone; `header`: `Authorization: Bearer …`; `env`: lines for a shell or "
        "`EnvironmentFile=`; `json`: everything but the refresh token; `id_token`: the id token alone. Default: `raw`.",
    )
    template: Template | None = Field(
        None,
        description="Instead of a format: a text with `{access_token}`, `{id_token}`, `{token_type}`, `{scope}`, "
        "`{expires_at}` (seconds since the epoch), `{expires_at_iso}`, `{generation}`; "
        "`{{` and `}}` stand for braces.",
        examples=['header = "Authorization: {token_type} {access_token}"'],
    )
    mode: Mode = Field(
        0o640,
        description="Permissions, set on every write, as octal text.",
        json_schema_extra={"default": "0640"},
    )
    owner: Text | None = Field(
        None, description="User name or id. Needs the right to change owners. Default: the daemon's."
    )
    group: Text | None = Field(
        None,
        description="Group name or id; the daemon must be in it. Default: the daemon's.",
        examples=["rotator-readers"],
    )
    newline: bool = Field(default=False, description="End the file with a newline.")
    symlink: Literal["follow", "refuse"] = Field(
        "follow", description="If the path is a symbolic link: write to where it points, or refuse."
    )
    in_place: bool = Field(
        default=False,
        description="Write into the existing file instead of replacing it, for a bind-mounted single file. "
        "A reader may then see half a token.",
    )
    propagation: Duration = Field(
        0.0,
        description="How long until every reader has noticed a new token, "
        "e.g. the interval at which they re-read the file. Raises `refresh.min_remaining`. "
        "For a Secret at least 3 min, the time that a mounted one takes to reach a pod.",
        examples=["60s"],
    )
    required: bool = Field(default=True, description="The daemon counts as ready only if this output is good.")


class HookTable(Table):
    """What to do after the outputs are written. Exactly one of `command`, `signal` and `webhook`.

    A hook gets no token: it says that there is a new one. `{name}` stands for the credential's name.
    """

    command: Annotated[list[str], Field(min_length=1)] | None = Field(
        None,
        description="Program and arguments; there is no shell. It runs as the daemon's user, under its unit's rules, "
        "and cannot have systemd reload a service: a path unit does, see docs/how-to/systemd.md.",
        examples=[["/usr/local/bin/token-changed", "{name}"]],
    )
    signal: Literal["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH"] | None = Field(
        None,
        description="Signal for the process whose id stands in `pid_file`; it must run as the daemon's user.",
        examples=["HUP"],
    )
    pid_file: PathPattern | None = Field(
        None, description="Holds the id of the process to signal.", examples=["/run/collector/pid"]
    )
    webhook: Secret | None = Field(
        None, description="URL that gets a POST without the token.", examples=["https://example.com/hook"]
    )
    timeout: PositiveDuration = Field(
        30.0,
        description="The hook has failed if it takes longer. A stop waits for none: what it cuts short is run again "
        "at the next start.",
    )


class CredentialTable(Table):
    """One credential: a grant at a token endpoint, and what is done with its tokens.

    `token_url` and `client_id` are required, here or in `[defaults]`.
    """

    token_url: Url | None = Field(
        None, description="The token endpoint.", examples=["https://ce-api.example.com/v2/token"]
    )
    grant: Literal["refresh_token", "client_credentials"] = Field(
        "refresh_token", description="How to renew: with a refresh token, or with the client's own credentials."
    )
    client_id: Text | None = Field(None, description="As issued by the authorization server.", examples=["my-client"])
    client_secret: Secret | None = Field(
        None,
        description="As issued. Read again before each use, so a changed file needs no reload. "
        "In the file's path and its like, `{name}` stands for the credential's name.",
        examples=[{"file": "/etc/rotator/client-secret"}],
    )
    client_authentication: Literal["client_secret_post", "client_secret_basic", "client_secret_basic_raw", "none"] = (
        Field(
            "client_secret_post",
            description="How the client proves itself: form fields; HTTP Basic as RFC 6749 says; "
            "HTTP Basic without percent-encoding, "
            "for servers that do not decode; not at all (public client, or client certificate).",
        )
    )
    scope: Text | None = Field(
        None,
        description="Scopes to ask for, separated by blanks. Default: none, the server decides.",
        examples=["openid"],
    )
    extra: dict[str, Secret] = Field(
        {},
        description="Further form fields of each token request.",
        examples=[{"audience": "https://api.example.com"}],
    )
    ca_file: AbsolutePath | None = Field(
        None,
        description="PEM file with the certificate authorities to trust instead of the system's.",
        examples=["/etc/ssl/certs/internal-ca.pem"],
    )
    client_certificate: AbsolutePath | None = Field(
        None, description="PEM file with the client's TLS certificate, and its key unless `client_key` is set."
    )
    client_key: AbsolutePath | None = Field(None, description="PEM file with the key of `client_certificate`.")
    proxy: Url | None = Field(
        None, description="HTTP proxy for token requests. Default: none.", examples=["http://proxy.example.com:3128"]
    )
    use_environment_proxies: bool = Field(
        default=False, description="Take the proxy from `HTTPS_PROXY` and its like, minding `NO_PROXY`."
    )
    connect_timeout: PositiveDuration = Field(10.0, description="For the connection, TLS included.")
    read_timeout: PositiveDuration = Field(
        60.0,
        description="Wait for the answer. Be generous: "
        "giving up on a server that has already replaced the refresh token may lose it.",
    )
    total_timeout: PositiveDuration = Field(
        90.0,
        description="For one refresh, repetitions included. The look-up of the server's name has limits of its own "
        "(`timeout` and `attempts` in resolv.conf): a resolver that hangs comes on top, and nothing is sent after it.",
    )
    seed: Document | None = Field(
        None,
        description="Holds the first refresh token, bare or as a token answer in JSON. State beats seed; "
        "a seed that changes is a new login, until somebody logs in after that.",
        examples=[{"credential": "seed-{name}"}],
    )
    refresh: RefreshTable = Field(RefreshTable(), description="When to refresh and how hard to try.")
    refresh_token_lifetime: PositiveDuration | None = Field(
        None,
        description="How long a refresh token lives when the answer does not say: "
        "the basis of the warning days before. Default: unknown.",
        examples=["30d"],
    )
    refresh_token_slides: bool = Field(
        default=_POLICY.refresh_token_slides,
        description="Each refresh starts that lifetime anew. `false`: it ends at a fixed time after the login.",
    )
    outputs: list[OutputTable] = Field([], description="Files and Secrets to write the token to.")
    hooks: list[HookTable] = Field([], description="What to do afterwards.")


class Root(Table):
    """The configuration of rotator."""

    daemon: DaemonTable = Field(DaemonTable(), description="Settings of the process as a whole.")
    kubernetes: KubernetesTable = Field(KubernetesTable(), description="The store in Kubernetes.")
    metrics: MetricsTable = Field(MetricsTable(), description="Metrics and health over HTTP.")
    log: LogTable = Field(LogTable(), description="The log.")
    defaults: CredentialTable = Field(CredentialTable(), description="What a credential does not set itself.")
    credentials: dict[Annotated[str, Field(pattern=NAME_PATTERN)], CredentialTable] = Field(
        {}, description="The credentials by name: letters, digits, `.`, `_`, `-`."
    )
