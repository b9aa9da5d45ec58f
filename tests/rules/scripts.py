"""Which alert has to tell of which fault, how soon and how early. Times are seconds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rotator.core.model import DAY, RotationPolicy
from rotator.ports import LeaseView
from tests.rules import faults
from tests.rules.faults import LIFETIME, MARGIN, MONTH
from tests.rules.station import FULL, Station

EACH: Final = 2000
FLEET: Final = 0
"""Values of `metrics.fleet_threshold`: series for each credential, and none."""
_PLAIN: Final = RotationPolicy(jitter=0.0)
_FIXED_END: Final = replace(_PLAIN, refresh_token_lifetime=MONTH, refresh_token_slides=False)


@dataclass(frozen=True, slots=True)
class Script:
    """One fault from its beginning to its cure, and what is expected of one alert."""

    alert: str
    fault: str
    """In words, for the table of lead times."""
    act: Callable[..., None]
    how: dict[str, Any] = field(default_factory=dict)
    within: float = 0.0
    """The alert fires at most so long after the fault."""
    ahead: float | None = None
    """It fires at least so long before the end of what the fault endangers."""
    others: tuple[str, ...] = ()
    """Alerts that rightly fire, too."""
    lingers: float = 0.0
    """It may go on firing for so long after the cure."""
    thresholds: tuple[int, ...] = (EACH, FLEET)
    policy: RotationPolicy = _PLAIN
    credentials: int = 1

    def station(self, threshold: int) -> Station:
        """Play the script: with many credentials, as a fleet that has been watched for a day, if less closely."""
        names = (f"household-{number + 1}" for number in range(self.credentials))
        many = self.credentials > 1
        station = Station(
            *names, policy=self.policy, threshold=threshold, history=DAY if many else 0.0,
            scrape_interval=60.0 if many else 30.0,
        )  # fmt: skip
        self.act(station, **self.how)
        return station


_EXPIRING: Final = "RotatorAccessTokenExpiring"
_EXPIRED: Final = "RotatorAccessTokenExpired"
_DAYS: Final = "RotatorRefreshTokenExpiring"
_OVERDUE: Final = "RotatorRefreshOverdue"
_SAVE: Final = "RotatorSaveFailing"
_PUBLISH: Final = "RotatorPublishFailing"
_REFRESHES: Final = "RotatorRefreshBudgetBurning"
_TOKENS: Final = "RotatorAvailabilityBudgetBurning"

_LED: Final = {"leases": (LeaseView("rotator", held=True),)}
_NOT_LED: Final = {"leases": (LeaseView("rotator", held=False),)}
_AT_ODDS: Final = {"leases": (LeaseView("rotator", held=False, stranger="rotator-1"),)}

SCRIPTS: Final = (
    Script(
        _EXPIRING, "the server cannot be reached when a refresh falls due",
        faults.server_down, {"seconds": 900}, MARGIN / 2 + 120, 500,
    ),
    Script(
        _EXPIRED, "the same, until the token is over",
        faults.server_down, {"seconds": MARGIN + 600}, MARGIN + 90, others=(_EXPIRING, _TOKENS),
    ),
    Script(
        _DAYS, "a refresh token of 30 days has 7 left",
        faults.refresh_token_ends, {"days": 7}, 400, 6.9 * DAY, policy=_FIXED_END,
    ),
    Script(
        "RotatorRefreshTokenExpiringSoon", "a refresh token of 30 days has 2 left",
        faults.refresh_token_ends, {"days": 2}, 400, 1.9 * DAY, others=(_DAYS,), policy=_FIXED_END,
    ),
    Script(
        "RotatorReauthorizationRequired", "the server has revoked the grant when a refresh falls due",
        faults.grant_dies, within=60, ahead=1100,
    ),
    Script("RotatorLoginRequired", "nobody logs in to a new credential", faults.nobody_logs_in, within=630),
    Script(
        "RotatorRefreshRefused", "the client secret is wrong when a refresh falls due",
        faults.refused, within=180, ahead=1000, others=(_EXPIRING,),
    ),
    Script(
        "RotatorAmbiguousAnswer", "no answer comes back to a refresh, nor to the second try",
        faults.answers_lost, within=360, ahead=800, others=(_EXPIRING,),
    ),
    Script(
        "RotatorPairUnsaved", "the disk fills up while a request is under way",
        faults.disk_fills_up_during_the_request, within=60, others=(_SAVE,),
    ),
    Script("RotatorStateUnreadable", "the stored state cannot be read at a start", faults.unreadable, within=90),
    Script("RotatorFuseBlown", "`rotator rotate` is called every 20 s", faults.asked_again_and_again, within=60),
    Script(
        _PUBLISH, "an output's directory is full when a new token comes",
        faults.output_fails, {"seconds": 300}, 180, 1000,
    ),
    Script(
        "RotatorOutputExpiring", "the same, for longer",
        faults.output_fails, {"seconds": 900}, MARGIN / 2 + 180, 420, others=(_PUBLISH,),
    ),
    Script("RotatorAbsent", "the daemon is down", faults.down, within=240, ahead=1500, thresholds=(EACH,)),
    Script(
        "RotatorAbsent", "the target is gone from Prometheus", faults.gone, within=240, ahead=1500, thresholds=(EACH,),
    ),
    Script(
        "RotatorSweepStalled", "the sweep has stopped",
        faults.told, {"good": {"sweep_lag_seconds": 0.0}, "bad": {"sweep_lag_seconds": 60.0}}, 90, thresholds=(EACH,),
    ),
    Script(_OVERDUE, "nobody gets to what is due", faults.nobody_works, within=420, ahead=780, others=(_EXPIRING,)),
    Script(
        _SAVE, "the disk is full when a refresh falls due",
        faults.disk_fills_up, within=180, ahead=1000, others=(_OVERDUE,),
    ),
    Script(
        _SAVE, "the disk fills up while a request is under way, and `spill_directory` takes the new pair",
        faults.disk_fills_up_during_the_request, {"problem": replace(FULL, kept=True)}, within=180,
    ),
    Script(
        "RotatorClockSuspect", "the clock is set back by an hour", faults.clock_set_back, within=90, thresholds=(EACH,),
    ),
    Script(
        "RotatorNoLeader", "no replica holds the Lease",
        faults.told, {"good": _LED, "bad": _NOT_LED}, 270,
        thresholds=(EACH,),
    ),
    Script(
        "RotatorReplicasDiffer", "two that share a Lease have different credentials",
        faults.told, {"good": _LED, "bad": _AT_ODDS}, 330, others=("RotatorNoLeader",),
        thresholds=(EACH,),
    ),
    Script(
        "RotatorConfigReloadFailed", "a reload is refused",
        faults.told, {"good": {"last_reload_good": True}, "bad": {"last_reload_good": False}}, 30, thresholds=(EACH,),
    ),
    Script(
        "RotatorRotationMissing", "the server stops replacing refresh tokens",
        faults.no_rotation, within=60, thresholds=(EACH,), policy=replace(_PLAIN, rotation_required=True),
    ),
    Script("RotatorBug", "an error of rotator's own", faults.bug, within=60, lingers=300, thresholds=(EACH,)),
    Script(
        _REFRESHES, "the server of 100 credentials cannot be reached",
        faults.fleet_down, {"seconds": 700}, 660, 480,
        others=(_EXPIRING,), lingers=300, thresholds=(FLEET,), credentials=100,
    ),
    Script(
        _TOKENS, "the same, until tokens are over",
        faults.fleet_down, {"seconds": 2400}, MARGIN + 700,
        others=(_EXPIRING, _EXPIRED, _REFRESHES), lingers=3600, thresholds=(FLEET,), credentials=100,
    ),
    Script(
        _TOKENS, "one of 72 credentials cannot be refreshed for hours",
        faults.one_of_many_fails, within=2 * 3600 + LIFETIME,
        others=(_EXPIRING, _EXPIRED), thresholds=(FLEET,), credentials=72,
    ),
)  # fmt: skip

ROUTINE: Final = (
    Script("", "the server is down for 8 minutes when a refresh falls due", faults.server_down, {"seconds": 480}),
    Script(
        "", "the server of a fleet is down for 8 minutes",
        faults.fleet_down, {"seconds": 480}, thresholds=(FLEET,), credentials=100,
    ),
    Script("", "an answer is lost, and the server has a grace window", faults.lost_once),
    Script("", "the daemon is restarted, the machine booted", faults.restarted),
    Script("", "the server is busy for 5 minutes", faults.busy),
    Script(
        "", "a replica is killed, and another takes over when the Lease has run out",
        faults.told, {"good": _LED, "bad": _NOT_LED, "seconds": 150},
        thresholds=(EACH,),
    ),
    Script("", "the disk is full for a minute", faults.short_disk),
    Script("", "an output fails for a minute", faults.short_output),
    Script(
        "", "refresh tokens of half an hour, which slide",
        faults.plain_hours, policy=replace(_PLAIN, refresh_token_lifetime=1800.0),
    ),
    Script(
        "", "refreshed as late as can be configured",
        faults.plain_hours, policy=replace(_PLAIN, lifetime_ratio=0.95, refresh_token_lifetime=MONTH),
    ),
    Script("", "access tokens of 20 seconds, looked at every 30", faults.short_tokens),
)  # fmt: skip
