"""Random walks of replicas that share a store: whatever parts them, no token is spent twice and none is lost."""

import base64
from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from rotator.core.model import RotationPolicy
from rotator.core.state import Status
from tests.line import NAME
from tests.model_server import ModelServer
from tests.replicas import LEASE, Release, Replica
from tests.shared_stores import WEB, RealStore, SecretDisk
from tests.world import Crash

NUMBER = st.integers(0, 2)
EVENTS = ("kill", "cut off", "connect", "deafen", "hear", "hear old news", "log in", "delete", "hand over", "patrol")
FATES: tuple[str | float, ...] = ("", "request lost", "reply lost", 2.0, 30.0, 150.0)
SPANS = (1, 5, LEASE / 2, LEASE + 1, 3 * LEASE, 200)


class Walk(RuleBasedStateMachine):
    """Anything at all may happen to two or three replicas, also while one of them stands still in whatever it does."""

    release: Release

    @initialize(replicas=st.integers(2, 3), grace=st.sampled_from([0.0, 10.0]), skew=st.sampled_from([0.0, 2.0]))
    def begin(self, replicas: int, grace: float, skew: float) -> None:
        """Log in once."""
        policy = RotationPolicy(replay_window=grace, jitter=0.0)
        self.release = Release(replicas, ModelServer(grace=grace, lifetime=600), policy, skews=(0.0, skew, -skew))
        self.release.login()
        self.known: dict[Replica, int] = {}

    @rule(seconds=st.sampled_from(SPANS))
    def time_passes(self, seconds: float) -> None:
        """Let time pass in which all take their turns."""
        self.release.run(seconds)

    @rule()
    def due(self) -> None:
        """Let a refresh fall due."""
        self.release.skip_to_due()
        self.release.run(2)

    @rule(number=NUMBER, event=st.sampled_from(EVENTS))
    def happens(self, number: int, event: str) -> None:
        """Let something happen between two turns."""
        self.let(event, number)

    @rule(
        number=NUMBER,
        touch=st.integers(1, 8),
        span=st.sampled_from(SPANS),
        meanwhile=st.lists(st.tuples(st.sampled_from(EVENTS), NUMBER), max_size=3),
    )
    def stands_still(self, number: int, touch: int, span: float, meanwhile: list[tuple[str, int]]) -> None:
        """Let a replica stand still at one of its next calls while others go on, and much happens to them."""

        def still() -> None:
            for event, other in meanwhile:
                self.let(event, other)
                self.release.run(span / len(meanwhile))
            if not meanwhile:
                self.release.run(span)

        self.replica(number).fate = touch, still

    @rule(number=NUMBER, touch=st.integers(1, 8))
    def dies_soon(self, number: int, touch: int) -> None:
        """Let a replica die at one of its next calls."""

        def die() -> None:
            raise Crash

        self.replica(number).fate = touch, die

    @rule(number=NUMBER, lose=st.sampled_from(["before", "after"]))
    def loses_an_answer(self, number: int, lose: str) -> None:
        """Let the next answer of a replica be lost."""
        self.replica(number).lose = lose

    def replica(self, number: int) -> Replica:
        """Return a living replica."""
        return self.release.alive[number % len(self.release.alive)]

    def let(self, event: str, number: int) -> None:
        """Let something happen to a replica, wherever it stands."""
        replica = self.replica(number)
        held = replica.credential.lock.locked() or replica.credential.delivering.locked()
        if held and event in ("hear old news", "log in", "patrol"):
            return  # it would wait
        happens: dict[str, Callable[[], object]] = {
            "kill": lambda: self.release.replace(replica),
            "cut off": lambda: setattr(replica.store, "away", True),
            "connect": lambda: setattr(replica.store, "away", False),
            "deafen": lambda: setattr(replica, "deaf", True),
            "hear": lambda: setattr(replica, "deaf", False),
            "hear old news": lambda: self.release.old_news(replica, number + 1),
            "log in": lambda: self.release.login_at(replica),
            "delete": self.release.delete_under_the_owner,
            "hand over": lambda: self.release.hand_over(replica),
            "patrol": lambda: replica.rotator.has_lost(replica.credential),
        }
        try:
            happens[event]()
        except Crash:
            self.release.replace(replica)

    @invariant()
    def nobody_is_asked_to_log_in_for_nothing(self) -> None:
        """A login is required only after a token of unknown fate was presented, with nothing at stake any more."""
        state = self.release.disk.state
        if state is not None and state.status is Status.REAUTHORIZATION_REQUIRED:
            assert self.release.excused, (state, self.release.server)

    @invariant()
    def nothing_goes_back(self) -> None:
        """What is stored, and what each replica knows and publishes, was issued after what was there before."""
        issued = list(self.release.server.issued)
        stored = [issued.index(token) for token in self.release.saved()]
        assert stored == sorted(stored), "a token set was saved over a newer one"
        for replica in self.release.alive:
            published = [tokens.refresh_token or "" for tokens in replica.sink.published]
            order = [issued.index(token) for token in published]
            assert order == sorted(order), f"what {replica.name} published went back"
            state = replica.credential.state
            if state is not None and state.tokens is not None:
                known = issued.index(state.tokens.refresh_token or "")
                assert known >= self.known.get(replica, 0), f"{replica.name} went back"
                self.known[replica] = known

    def teardown(self) -> None:
        """After a while of peace all is well, at most after a login."""
        if hasattr(self, "release"):
            self.release.make_peace()
            if self.release.excused:
                self.release.login()
            self.release.assert_well()


class ClusterWalk(Walk):
    """The same with the real store and a real Secret as output, over networks that lose things, and rollouts."""

    disk: SecretDisk

    @initialize(replicas=st.integers(2, 3), grace=st.sampled_from([0.0, 10.0]), renews=st.booleans())
    def begin(self, replicas: int, grace: float, renews: bool) -> None:
        """Log in once, and publish: a Secret is made unseen. The clocks agree: two Leases want that."""
        policy = RotationPolicy(replay_window=grace, jitter=0.0)
        self.disk = SecretDisk()
        self.release = Release(replicas, ModelServer(grace=grace, lifetime=600), policy, disk=self.disk, renews=renews)
        self.release.login()
        self.release.run(2)
        self.known = {}

    @rule(number=NUMBER, fates=st.lists(st.sampled_from(FATES), min_size=1, max_size=6))
    def requests_are_lost(self, number: int, fates: list[str | float]) -> None:
        """Let some of the next requests of a replica to the API server be lost, or come late."""
        store = self.replica(number).store
        assert isinstance(store, RealStore)
        store.network.fates.extend(fates)

    @rule(
        number=NUMBER,
        where=st.sampled_from(["form", "answer", "Secret"]),
        span=st.sampled_from((5, LEASE + 1, 130, 200)),
        again=st.booleans(),
    )
    def stands_still_at_the_worst(self, number: int, where: str, span: float, again: bool) -> None:
        """Let an owner stand still just before it sends or writes, so long that others may refresh, perhaps twice."""

        def still() -> None:
            self.release.run(span)
            if again:
                self.release.skip_to_due()
                self.release.run(5)

        owners = [one for one in self.release.alive if one.term(NAME) is not None]
        if not owners:
            return
        owner = owners[number % len(owners)]
        assert isinstance(owner.store, RealStore)
        if where == "form":
            owner.before_leaving = still
        elif where == "answer":
            owner.after_answer = still
        else:
            owner.store.network.before_write[WEB] = still
        self.release.skip_to_due()
        self.release.run(2)

    @rule(number=NUMBER)
    def rolls_out(self, number: int) -> None:
        """Replace a replica in a rollout that renames the Lease: there may be two owners."""
        self.release.roll_out(self.replica(number))
        self.release.run(2)

    @invariant()
    def what_all_publish_never_goes_back(self) -> None:
        """Whoever writes the Secret writes a token that was issued after the one that is there."""
        texts = [base64.b64decode(secret["data"]["token"]).decode() for secret in self.disk.published]
        order = [int(text.rpartition("-")[2]) for text in texts]
        assert order == sorted(order), "the Secret went back"

    def teardown(self) -> None:
        """After a while of peace the Secret is fresh, too."""
        super().teardown()
        if hasattr(self, "release"):
            state = self.release.disk.state
            assert state is not None
            assert state.tokens is not None
            token = base64.b64decode(self.disk.api.secrets[WEB]["data"]["token"]).decode()
            assert token == state.tokens.access_token, "the Secret is behind"


Walk.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, derandomize=True, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
ClusterWalk.TestCase.settings = settings(Walk.TestCase.settings, max_examples=60)
TestWalk = Walk.TestCase
TestClusterWalk = ClusterWalk.TestCase
