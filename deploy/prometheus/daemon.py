"""Alerts about outputs and about the daemon itself."""

from typing import Final

from deploy.prometheus.rule import Alert, Rule, for_each, for_fleet

_SEEN: Final = "last_over_time(rotator_build_info[1d])"

OUTPUTS: Final = (
    Alert(
        "RotatorPublishFailing",
        "The tokens are fresh, and cannot be written or handed over. Consumers go on with the one before.",
        (
            for_each(
                "rotator_output_consecutive_failures > 0",
                "warning",
                "{{ $labels.sink }} cannot be brought up to date",
                "2m",
            ),
            for_fleet("rotator_fleet_outputs_failing", "warning", "outputs cannot be brought up to date", "2m"),
        ),
    ),
    Alert(
        "RotatorOutputExpiring",
        "An output cannot be written, and what it holds is over or nearly so. Its consumers fail, or will.",
        (
            for_each(
                "rotator_output_consecutive_failures > 0 and rotator_output_current == 0\n"
                "  unless\n"
                "    rotator_output_token_expiry_timestamp_seconds\n"
                "        - ignoring (credential, sink) group_left () rotator_clock_timestamp_seconds\n"
                "      >= ignoring (sink) group_left () (0.15 * rotator_access_token_lifetime_seconds)",
                "critical",
                "{{ $labels.sink }} cannot be written and holds no token that lasts",
                "1m",
            ),
            for_fleet(
                "rotator_fleet_outputs_expiring",
                "critical",
                "outputs cannot be written and hold no token that lasts",
                "1m",
            ),
        ),
    ),
)

DAEMON: Final = (
    Alert(
        "RotatorAbsent",
        "Nothing is known of its tokens. If rotator is down, none is refreshed: each ends within its own lifetime.",
        (
            Rule(
                f"up == 0 and on (job, instance) {_SEEN}\n"
                "or\n"
                f"  group by (job, namespace) ({_SEEN})\n"
                "    unless on (job, namespace) (rotator_build_info or up == 0)\n"
                "or\n"
                f"  absent({_SEEN})",
                "critical",
                "rotator {{ $labels.instance }} {{ $labels.job }} does not answer Prometheus; no token is watched",
                "3m",
            ),
        ),
    ),
    Alert(
        "RotatorSweepStalled",
        "The daemon has stopped looking for what is due, so nothing is refreshed. A supervisor that watches /livez or "
        "the watchdog would have restarted it.",
        (
            Rule(
                "rotator_sweep_lag_seconds > 15",
                "critical",
                "{{ $labels.instance }} has not looked for due tokens for {{ $value | humanizeDuration }}",
                "1m",
            ),
        ),
    ),
    Alert(
        "RotatorRefreshOverdue",
        "A token request is due and is not sent: the state cannot be saved, or there is more to do than is allowed "
        "at once.",
        (
            Rule(
                "rotator_fleet_overdue_seconds > 300",
                "warning",
                "{{ $labels.instance }} is {{ $value | humanizeDuration }} late with a token request",
                "1m",
            ),
        ),
    ),
    Alert(
        "RotatorSaveFailing",
        "No refresh is sent while the state cannot be saved, so that no refresh token is spent in vain. Access tokens "
        "end one by one.",
        (
            Rule(
                "rotator_fleet_saves_failing > 0",
                "warning",
                "{{ $labels.instance }} cannot save the state of {{ $value }} credentials, and does not refresh them",
                "2m",
            ),
        ),
    ),
    Alert(
        "RotatorClockSuspect",
        "The clock jumped, or differs from Prometheus's by more than half a minute. rotator is careful by itself; "
        "consumers and the authorization server may not be.",
        (
            Rule(
                "abs(rotator_clock_timestamp_seconds - timestamp(rotator_clock_timestamp_seconds)) > 30\n"
                "or\n"
                "  rotator_fleet_clock_suspects > 0\n"
                "or\n"
                "  sum without (direction) (increase(rotator_clock_jumps_total[15m])) > 0\n"
                "or\n"
                "  rotator_clock_suspicions_total > 0 and time() - rotator_start_timestamp_seconds < 3600",
                "warning",
                "the clock of {{ $labels.instance }} is or was wrong",
                "1m",
            ),
        ),
    ),
    # Longer than a Lease outlives a replica that was killed: two minutes by default.
    Alert(
        "RotatorNoLeader",
        "No replica holds the Lease, so nobody refreshes its credentials; each access token ends in its own time.",
        (
            Rule(
                "max by (job, namespace, lease) (rotator_owner) == 0",
                "critical",
                "no replica of {{ $labels.job }}{{ with $labels.namespace }} in {{ . }}{{ end }} holds the Lease "
                "{{ $labels.lease }}",
                "4m",
            ),
        ),
    ),
    # Some Lease durations are over by then; longer than an upgrade that replaces one replica after another.
    Alert(
        "RotatorReplicasDiffer",
        "Two replicas share a Lease and have different credentials in their configurations. Who holds the Lease "
        "refreshes its own; what only the other has is refreshed by nobody.",
        (
            Rule(
                "max by (job, namespace, lease) (rotator_replicas_differ) == 1",
                "warning",
                "replicas of {{ $labels.job }}{{ with $labels.namespace }} in {{ . }}{{ end }} share the Lease "
                "{{ $labels.lease }} and have different credentials",
                "5m",
            ),
        ),
    ),
    Alert(
        "RotatorConfigReloadFailed",
        "The new configuration was refused and the old one goes on. After a restart there would be none.",
        (
            Rule(
                "rotator_config_last_reload_successful == 0",
                "warning",
                "{{ $labels.instance }} has refused its new configuration",
            ),
        ),
    ),
    Alert(
        "RotatorRotationMissing",
        'A credential with `rotation = "required"` was granted an access token without a new refresh token. It is '
        "used all the same; the server no longer does what was agreed.",
        (
            Rule(
                'increase(rotator_normalised_fields_total{oddity="rotation_missing"}[1h]) > 0',
                "warning",
                "a server of {{ $labels.instance }} has stopped replacing refresh tokens",
            ),
        ),
    ),
    Alert(
        "RotatorBug",
        "rotator met an error of its own making and went on. The log has it; please report it.",
        (
            Rule(
                "increase(rotator_bugs_total[15m]) > 0",
                "warning",
                "{{ $labels.instance }} met an error of its own",
            ),
        ),
    ),
)
