"""Several who want a new token at once: one request, one answer for all, and books that stay clean."""

import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from rotator.adapters.control_client import ControlClient
from tests.needs import needs
from tests.process.life import Life, begin_rotation, events, rotate, wait_for_generation
from tests.process.rig import PATIENCE, DaemonProcess, answered_within, wait_until
from tests.process.trace import traced, worker_of
from tests.secrets_scan import planted

ROUNDS = 5
NAMES = tuple("abcdefghij")


def test_fifty_refreshes_from_three_callers_meet_no_invalid_grant(life: Life) -> None:
    """C21: a server without any grace revokes the family on the first reuse; nobody gives it a reason."""
    life.server.sandbox.change(access_lifetime=3600)
    life.configure(credentials="\n".join(f"[credentials.{name}]" for name in NAMES))
    for name in NAMES:
        life.put_pair(age=0, name=name)
    failed: list[object] = []

    def ask_for_all(daemon: DaemonProcess) -> None:
        client = ControlClient(life.socket, PATIENCE)
        while min(daemon.shown(name)["generation"] for name in NAMES) <= ROUNDS:
            for _, answer in client.post_all(f"/v1/rotate/{name}" for name in NAMES):
                if not isinstance(answer, dict) or answer["credentials"][0]["reason"]:
                    failed.append(answer)

    with life.daemon() as daemon:
        callers = [threading.Thread(target=ask_for_all, args=(daemon,)) for _ in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        generations = sum(daemon.shown(name)["generation"] - 1 for name in NAMES)
        assert events(daemon, "refresh_failed") == []
        assert {line["why"] for line in events(daemon, "refreshed")} == {"asked"}  # at the default level
    books = life.books
    assert failed == []
    assert books.refresh_grants == generations >= ROUNDS * len(NAMES)
    assert books.token_requests == {"granted": generations}
    assert books.replays_outside_grace == books.replays_in_grace == books.families_revoked == 0
    assert books.most_simultaneous == 1


def _connections(process: subprocess.Popen[str]) -> set[str]:
    """Return the connections that a command holds now; it makes a new one for each question to the daemon."""
    found = set()
    for file in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            found.add(str(file.readlink()))
    return {target for target in found if target.startswith("socket:")}


def _ask_together(life: Life, **changes: str) -> list[tuple[int, str]]:
    """Have four people type `rotator rotate home` while one request hangs, then let it have its answer."""
    life.server.sandbox.script(["hang"])
    people = [
        subprocess.Popen(
            life.command("rotate", "home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=life.environment(),
        )
        for _ in range(4)
    ]
    wait_until(lambda: life.server.sandbox.script_left == [], "the request is under way")
    seen: list[set[str]] = [set() for _ in people]

    def all_wait() -> bool:
        for person, connections in zip(people, seen, strict=True):
            connections.update(_connections(person))
        return all(len(connections) > 3 for connections in seen)

    wait_until(all_wait, "everybody has asked, and then how it goes, again and again")
    life.server.sandbox.change(**changes)
    return [(person.wait(PATIENCE), person.communicate()[0]) for person in people]


def test_people_who_ask_at_once_share_one_request_and_its_answer(life: Life) -> None:
    """C10, C12: through `rotator rotate`: everybody gets the winner's result."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    with life.daemon():
        results = _ask_together(life)
    assert set(results) == {(0, "home: rotated, generation 2; access token: 59 min left of 60 min\n")}
    assert life.books.token_requests == {"granted": 1}


def test_people_who_ask_at_once_share_the_error(life: Life) -> None:
    """C12: everybody gets the winner's error, and nobody sends the request once more."""
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    with life.daemon():
        results = _ask_together(life, client_secret=planted("another-secret"))
        assert life.books.token_requests == {"invalid_client": 1}
    assert {code for code, _ in results} == {78}
    assert all("home: not rotated: " in text and "invalid_client" in text for _, text in results)


def test_a_hundred_who_ask_share_one_request(life: Life) -> None:
    """C10: a hundred askers while a request is under way: one request, a hundred equal answers."""
    life.server.sandbox.change(access_lifetime=3600)
    life.server.sandbox.script(["hang"])
    life.put_pair(age=0)
    with life.daemon() as daemon:
        client = ControlClient(life.socket, PATIENCE)
        tickets = [client._exchange("POST", "/v1/rotate/home?wait=0") for _ in range(100)]
        wait_until(lambda: life.server.sandbox.script_left == [], "the request is under way")
        life.server.sandbox.change()
        answers = [client._finish(ticket, float("inf")) for ticket in tickets]
        assert {answer["credentials"][0]["generation"] for answer in answers if isinstance(answer, dict)} == {2}
        assert len([answer for answer in answers if isinstance(answer, dict)]) == 100
        assert life.books.token_requests == {"granted": 1}
        assert rotate(daemon)["generation"] == 3


def test_neither_asking_nor_a_reload_waits_for_a_save_that_hangs(life: Life) -> None:
    """E11, L3: on a disk that hangs the daemon takes further requests and another configuration, and stays alive."""
    needs("strace attach")
    life.server.sandbox.change(access_lifetime=3600)
    life.put_pair(age=0)
    with life.daemon() as daemon:
        daemon.wait_until(life.has_good_token, "the token is published")
        life.server.sandbox.script(["hang"])
        begin_rotation(life, daemon)
        before = life.on_disk()
        with traced(worker_of(daemon.pid), life.directory / "trace", "fsync:delay_enter=8000000:when=1"):
            life.server.sandbox.change()
            wait_until(lambda: life.books.token_requests.total() == 1, "the answer was given")
            wait_until(lambda: "fsync(" in (life.directory / "trace").read_text(), "the save hangs")
            ControlClient(life.socket, 0.1).post("/v1/rotate/home")
            life.configure(credentials=f'[credentials.home]\noutputs = [{{ path = "{life.directory}/out/other" }}]')
            assert daemon.post("/v1/reload") == {"problems": []}
            assert answered_within(1, lambda: daemon.get("/v1/health")["live"])
            assert answered_within(1, lambda: daemon.page("/livez"))
            assert life.on_disk() == before
            wait_for_generation(daemon, 2)
        daemon.wait_until(lambda: life.has_good_token("other"), "the new output is written")
        assert daemon.shown()["outputs"][0]["name"].endswith("other")
