"""What may go wrong at a station, from beginning to cure, in seconds. A token of an hour falls due after 2400."""

from typing import Final

from rotator.core.model import DAY, Answer, Reason, Refused, Unavailable
from rotator.ports import Notice, Problem
from tests.rules.station import FULL, Station

LIFETIME: Final = 3600.0
DUE: Final = 2400.0
MARGIN: Final = LIFETIME - DUE
MONTH: Final = 30 * DAY


def unreachable(token: str, now: float) -> Answer:
    """Have no connection come about."""
    return Unavailable(Reason.CONNECT, delivered=False, text="connection refused")


def answer_lost(token: str, now: float) -> Answer:
    """Have each answer get lost."""
    return Unavailable(Reason.READ_TIMEOUT, delivered=True, text="no answer in time")


def wrong_secret(token: str, now: float) -> Answer:
    """Have the client refused."""
    return Refused(Reason.INVALID_CLIENT, 401, "invalid_client")


def until_due(station: Station) -> None:
    """Log in and wait until the first refresh is about to fall due."""
    station.login(MONTH)
    station.run(DUE - 1)
    station.breaks(MARGIN + 1)


def server_down(station: Station, seconds: float) -> None:
    """Have the server be out of reach for so long."""
    until_due(station)
    station.fault = unreachable
    station.run(seconds)
    station.fault = None
    station.mended()
    station.run(1200)


def refused(station: Station) -> None:
    """Have the client's secret be wrong, until it is mended."""
    until_due(station)
    station.fault = wrong_secret
    station.run(600)
    station.fault = None
    station.run(301)  # it is tried every 15 minutes
    station.mended()
    station.run(600)


def answers_lost(station: Station) -> None:
    """Have no answer come back for five minutes."""
    until_due(station)
    station.fault = answer_lost
    station.run(300)
    station.fault = None
    station.run(MARGIN)  # the next try is when the token is nearly over
    station.cured_at = station.ends_at


def refresh_token_ends(station: Station, days: float) -> None:
    """Let the day come that is so many days before the end of a refresh token, and log in then."""
    station.login(MONTH, age=MONTH - days * DAY - 1800)
    station.run(1800)
    station.breaks(days * DAY)
    station.run(1800)
    station.login(MONTH)
    station.mended()
    station.run(600)


def grant_dies(station: Station) -> None:
    """Revoke the grant; somebody logs in."""
    until_due(station)
    station.server.disabled = True
    station.run(300)
    station.server.disabled = False
    station.login(MONTH)
    station.mended()
    station.run(600)


def nobody_logs_in(station: Station) -> None:
    """Let a new credential wait for its first login."""
    station.breaks()
    station.run(900)
    station.login(MONTH)
    station.mended()
    station.run(300)


def disk_fills_up(station: Station) -> None:
    """Have no room for any state when a refresh falls due."""
    until_due(station)
    station.store.problem = FULL
    station.run(500)
    station.store.problem = None
    station.mended()
    station.run(600)


def disk_fills_up_during_the_request(station: Station, problem: Problem = FULL) -> None:
    """Have no room for the new pair."""
    until_due(station)

    def fills_up(token: str, now: float) -> Answer:
        station.store.problem = problem
        return station.server.refresh(token, now)

    station.fault = fills_up
    station.run(300)
    station.store.problem = station.fault = None
    station.mended()
    station.run(300)


def unreadable(station: Station) -> None:
    """Start without being able to read what is stored."""
    station.login(MONTH)
    station.run(600)
    station.store.problem = FULL
    station.restart()
    station.breaks()
    station.run(300)
    station.store.problem = None
    station.mended()
    station.run(300)


def asked_again_and_again(station: Station) -> None:
    """Have somebody ask for a rotation every 20 seconds."""
    station.login(MONTH)
    for _ in range(120):
        station.run(20)
        station.ask()
    station.breaks()
    station.run(3600 - station.elapsed + 20)
    station.mended()  # by itself, when the hour is over
    station.run(600)


def output_fails(station: Station, seconds: float) -> None:
    """Have an output's directory be full for so long."""
    until_due(station)
    station.sink.problem = FULL
    station.run(seconds)
    station.sink.problem = None
    station.mended()
    station.run(600)


def down(station: Station) -> None:
    """Kill the daemon, and start it again."""
    station.login(MONTH)
    station.run(1800)
    station.is_up = station.works = False
    station.breaks(LIFETIME - 1800)
    station.run(600)
    station.is_up = station.works = True
    station.restart()
    station.mended()
    station.run(300)


def gone(station: Station) -> None:
    """Have Prometheus forget the target."""
    station.login(MONTH)
    station.run(1800)
    station.is_known = station.works = False
    station.breaks(LIFETIME - 1800)
    station.run(600)
    station.is_known = station.works = True
    station.mended()
    station.run(300)


def nobody_works(station: Station) -> None:
    """Have all workers be stuck."""
    until_due(station)
    station.works = False
    station.run(900)
    station.works = True
    station.mended()
    station.run(300)


def told(station: Station, good: dict[str, object], bad: dict[str, object], seconds: float = 600) -> None:
    """Have the daemon say something bad of itself for so long."""
    station.login(MONTH)
    station.tell(**good)
    station.run(600)
    station.tell(**bad)
    station.breaks()
    station.run(seconds)
    station.tell(**good)
    station.mended()
    station.run(300)


def clock_set_back(station: Station) -> None:
    """Set the machine's clock back by an hour for a while."""
    station.login(MONTH)
    station.run(600)
    station.clock.offset = -3600
    station.tell(clock_jumps_backward=1)
    station.breaks()
    station.run(1200)
    station.clock.offset = 0
    station.mended()
    station.run(300)


def bug(station: Station) -> None:
    """Let rotator meet an error of its own."""
    station.login(MONTH)
    station.run(600)
    station.metrics.notify(Notice("bug", "an error of rotator's own", "household-1", "critical"))
    station.breaks()
    station.run(600)
    station.mended()
    station.run(1200)


def no_rotation(station: Station) -> None:
    """Have the server keep refresh tokens as they are."""
    station.server.rotates = False
    until_due(station)
    station.run(600)


def fleet_down(station: Station, seconds: float) -> None:
    """Have the server of a whole fleet be out of reach for so long."""
    station.login(MONTH, spread=DUE)
    station.run(DUE)
    station.breaks(MARGIN)
    station.fault = unreachable
    station.run(seconds)
    station.fault = None
    station.mended()
    station.run(3600)


def one_of_many_fails(station: Station) -> None:
    """Have one credential of a fleet never get through."""
    station.login(MONTH, spread=DUE)
    first = station.server.count - len(station.credentials) + 1

    def fault(token: str, now: float) -> Answer:
        mine = station.server.issued[token].family == first
        return unreachable(token, now) if mine else station.server.refresh(token, now)

    station.fault = fault
    station.breaks()
    station.run(3 * 3600 + 600)


def lost_once(station: Station) -> None:
    """Lose the answer to a request that was carried out; the server forgives a repetition."""
    until_due(station)

    def once(token: str, now: float) -> Answer:
        station.fault = None
        station.server.refresh(token, now)  # carried out, and the answer lost
        return answer_lost(token, now)

    station.fault = once
    station.run(1800)


def restarted(station: Station) -> None:
    """Restart the daemon, as when the machine is booted."""
    station.login(MONTH)
    station.run(1800)
    station.is_up = station.works = False
    station.run(120)
    station.is_up = station.works = True
    station.restart()
    station.run(1800)


def busy(station: Station) -> None:
    """Have the server ask for patience for five minutes."""
    until_due(station)
    station.fault = lambda *_: Unavailable(Reason.RATE_LIMITED, delivered=False, retry_after=30)
    station.run(300)
    station.fault = None
    station.run(1800)


def short_disk(station: Station) -> None:
    """Have no room for any state for a minute."""
    until_due(station)
    station.store.problem = FULL
    station.run(60)
    station.store.problem = None
    station.run(600)


def short_output(station: Station) -> None:
    """Have an output's directory be full for a minute."""
    until_due(station)
    station.sink.problem = FULL
    station.run(60)
    station.sink.problem = None
    station.run(600)


def plain_hours(station: Station) -> None:
    """Let three hours pass, with refresh tokens of half an hour."""
    station.login(1800)
    station.run(3 * 3600)


def short_tokens(station: Station) -> None:
    """Let half an hour pass, with access tokens of 20 seconds."""
    station.server.lifetime = 20
    station.login(MONTH)
    station.run(1800)
