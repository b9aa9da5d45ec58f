# ruff: noqa: D102 - the port says what each method does
"""A desk that holds data: what web pages, metrics and control socket are tested against."""

from collections.abc import Iterator

from rotator.core.model import Reason, TokenSet
from rotator.core.standing import CredentialView, OutputView, Standing
from rotator.ports import Counts, Problem, Pulse, Readiness

NOW = 1_900_000_000.0
OUTPUT = OutputView(
    name="/run/rotator/web.token", is_hook=False, current=True, generation=4, delivered_at=NOW - 600.0,
    expires_at=NOW + 3000.0, failures=0, reason=None, text="",
)  # fmt: skip
VIEW = CredentialView(
    name="web", grant="refresh_token", standing=Standing.VALID, generation=4, issued_at=NOW - 600.0,
    expires_at=NOW + 3000.0, refresh_issued_at=NOW - 600.0, refresh_expires_at=NOW + 86400.0 * 30,
    refresh_life_began_at=NOW - 600.0, next_at=NOW + 1800.0, next_why="due",
    last_attempt_at=NOW - 600.0, last_success_at=NOW - 600.0, failures=0,
    reason=None, text="", clock_suspect=False, fuse_blown=False, refreshing=False, unsaved=False,
    access_token_fingerprint="0f1e2d3c", refresh_token_fingerprint="4b5a6978", outputs=(OUTPUT,),
)  # fmt: skip


class DataDesk:
    """Implements `rotator.ports.Desk` on data that a test may replace; remembers what it was asked to do."""

    def __init__(self, *views: CredentialView) -> None:
        self.credentials = {view.name: view for view in views}
        self.token_sets: dict[str, TokenSet] = {}
        self.life = Pulse(live=True, sweep_age_seconds=0.5)
        self.served = Readiness(ready=True, reasons=(), credentials=len(views))
        self.numbers = Counts(
            started_at=NOW - 7200.0, sweep_lag_seconds=0.0, under_way=0, clock_jumps_forward=0, clock_jumps_backward=0,
            reloads_good=0, reloads_bad=0, last_reload_good=True, last_reload_at=NOW - 7200.0,
        )  # fmt: skip
        self.lacks: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []

    def views(self) -> Iterator[CredentialView]:
        for name in sorted(self.credentials):
            yield self.credentials[name]

    def find(self, name: str) -> CredentialView | None:
        return self.credentials.get(name)

    def tokens(self, name: str) -> TokenSet | None:
        return self.token_sets.get(name)

    def lack(self, name: str) -> str:
        return self.lacks.get(name, "")

    def pulse(self) -> Pulse:
        return self.life

    def readiness(self) -> Readiness:
        return self.served

    def counts(self) -> Counts:
        return self.numbers

    async def rotate(self, name: str) -> CredentialView | Problem:
        return self._do("rotate", name)

    async def login(self, name: str, username: str, password: str) -> CredentialView | Problem:
        return self._do("login", name)

    async def adopt(self, name: str, pair: str) -> CredentialView | Problem:
        return self._do("adopt", name)

    async def reload(self) -> tuple[str, ...]:
        self.asked.append(("reload", ""))
        return ()

    def _do(self, what: str, name: str) -> CredentialView | Problem:
        self.asked.append((what, name))
        return self.credentials.get(name) or Problem(Reason.BAD_INPUT, f"no credential is named {name}")
