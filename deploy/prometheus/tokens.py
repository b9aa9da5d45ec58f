"""Alerts about tokens: what ends when, and what keeps it from being renewed."""

from typing import Final

from deploy.prometheus.rule import END, WHY, Alert, asked, ending, for_each, for_fleet

_NEEDS_LOGIN: Final = 'rotator_state{state=~"login_required|reauthorization_required"} == 1'


def _in_state(state: str) -> str:
    return f'rotator_state{{state="{state}"}} == 1'


def _ends_within(days: int, share: float) -> str:
    """Compare with some days, or with a share of the token's own life if that is shorter."""
    return (
        "rotator_refresh_token_expiry_timestamp_seconds - time()\n"
        f"    < clamp_max({share} * rotator_refresh_token_lifetime_seconds, {days} * 86400)\n"
        f"  unless ignoring (state) {_NEEDS_LOGIN}"
    )


_LEFT: Final = (
    asked(
        "round(rotator_refresh_token_expiry_timestamp_seconds{})",
        "its refresh token ends at {{ . | first | value | humanizeTimestamp }}",
    )
    + "; before that, a person must log in"
)

TOKENS: Final = (
    Alert(
        "RotatorAccessTokenExpiring",
        "Refreshing fails, and 85 % of the access token's lifetime are over. When it ends, consumers fail.",
        (
            for_each(
                "rotator_access_token_age_seconds > 0.85 * rotator_access_token_lifetime_seconds\n"
                "  and ignoring (reason) (\n"
                "    rotator_failing or\n"
                "    rotator_clock_timestamp_seconds\n"
                "      - ignoring (credential) group_right () rotator_next_refresh_timestamp_seconds > 60\n"
                "  )\n"
                f"  unless ignoring (state) {_NEEDS_LOGIN}",
                "critical",
                END + " and cannot be refreshed" + WHY,
            ),
            for_fleet(
                "rotator_fleet_access_tokens_expiring",
                "critical",
                "credentials fail to refresh in the last 15 % of their access token's lifetime",
            ),
        ),
    ),
    Alert(
        "RotatorAccessTokenExpired",
        "Consumers of this token fail now. rotator goes on trying; find out what keeps it from refreshing.",
        (
            for_each(
                "rotator_access_token_valid == 0\n"
                "  unless ignoring (state)\n"
                '    rotator_state{state=~"login_required|reauthorization_required|starting|state_unreadable"} == 1',
                "critical",
                "no valid access token; " + ending("ended") + WHY,
                "1m",
            ),
            for_fleet(
                "rotator_fleet_credentials_without_token",
                "critical",
                "credentials have no valid access token",
                "1m",
            ),
        ),
    ),
    Alert(
        "RotatorRefreshTokenExpiring",
        "Nothing is broken yet. Have the person to whom the account belongs log in before the day comes.",
        (
            for_each(_ends_within(7, 0.3), "warning", _LEFT, "5m"),
            for_fleet(
                'rotator_fleet_refresh_tokens_expiring{within="7d"}',
                "warning",
                "credentials have a refresh token that ends within 7 days",
                "5m",
            ),
        ),
    ),
    Alert(
        "RotatorRefreshTokenExpiringSoon",
        "When the refresh token ends, the next access token is the last. Somebody must log in today.",
        (
            for_each(_ends_within(2, 0.1), "critical", _LEFT, "5m"),
            for_fleet(
                'rotator_fleet_refresh_tokens_expiring{within="2d"}',
                "critical",
                "credentials have a refresh token that ends within 2 days",
                "5m",
            ),
        ),
    ),
    Alert(
        "RotatorReauthorizationRequired",
        "The authorization server has refused the refresh token twice: the grant is dead. Only a new login helps.",
        (
            for_each(_in_state("reauthorization_required"), "critical", "somebody must log in again; " + END),
            for_fleet(
                'rotator_fleet_credentials{state="reauthorization_required"}',
                "warning",
                "credentials need a new login",
            ),
        ),
    ),
    Alert(
        "RotatorLoginRequired",
        "It is configured, and nobody has ever logged in.",
        (
            for_each(_in_state("login_required"), "warning", "waits for its first login; " + END, "10m"),
            for_fleet(
                'rotator_fleet_credentials{state="login_required"}',
                "warning",
                "credentials wait for their first login",
                "10m",
            ),
        ),
    ),
    Alert(
        "RotatorRefreshRefused",
        "The server answers and says no, which seldom heals by itself: a client secret was changed, say.",
        (
            for_each(
                'max without (state) (rotator_state{state=~"refused|suspect"}) == 1',
                "warning",
                "the authorization server refuses" + WHY + "; " + END,
                "2m",
            ),
            for_fleet(
                'rotator_fleet_credentials{state=~"refused|suspect"}',
                "warning",
                "credentials are refused by the authorization server",
                "2m",
            ),
        ),
    ),
    Alert(
        "RotatorAmbiguousAnswer",
        "A refresh was sent and its answer lost. The server may have replaced the refresh token, and the new one is "
        "lost then. rotator tries the old one again when the access token is nearly over.",
        (
            for_each(_in_state("ambiguous"), "warning", "the answer to a refresh was lost; " + END + WHY, "1m"),
            for_fleet(
                'rotator_fleet_credentials{state="ambiguous"}',
                "warning",
                "credentials lost the answer to a refresh",
                "5m",
            ),
        ),
    ),
    Alert(
        "RotatorPairUnsaved",
        "The newest token set is in the memory of the process and nowhere else. Do not stop or restart rotator; make "
        "the state directory writable.",
        (
            for_each("rotator_pair_unsaved == 1", "critical", "its newest tokens are lost if rotator stops" + WHY),
            for_fleet(
                "rotator_fleet_unsaved_pairs", "critical", "credentials have tokens that are lost if rotator stops"
            ),
        ),
    ),
    Alert(
        "RotatorStateUnreadable",
        "What is stored cannot be read, so there is no token to refresh. It was not overwritten.",
        (
            for_each(_in_state("state_unreadable"), "critical", "its stored state cannot be read" + WHY, "1m"),
            for_fleet(
                'rotator_fleet_credentials{state="state_unreadable"}',
                "critical",
                "credentials have a stored state that cannot be read",
                "1m",
            ),
        ),
    ),
    Alert(
        "RotatorFuseBlown",
        "There were far more token requests than its lifetimes need: rotator holds back until the hour is over, or "
        "until the access token is nearly over.",
        (
            for_each("rotator_fuse_blown == 1", "warning", "too many token requests; " + END),
            for_fleet("rotator_fleet_fuses_blown", "warning", "credentials made too many token requests"),
        ),
    ),
)
