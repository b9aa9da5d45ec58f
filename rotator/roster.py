"""Who is configured: the credentials of this process, through all reloads of its configuration."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from rotator.agenda import Agenda
from rotator.assembly import Assembly, InputsUnusable
from rotator.config import Config
from rotator.config.fixed import fixed_changes
from rotator.core.model import Reason
from rotator.credential import Credential, Plan
from rotator.ports import Problem
from rotator.workers import Workers

_asked: Final = attrgetter("endpoint", "client_id", "client_secret", "grant", "scope", "extra")
"""What a request says besides the token: a refusal may be due to it."""


@dataclass(slots=True)
class Reloads:
    """How often the configuration was taken anew or refused, and what became of the last try (instant)."""

    last_at: float
    last_good: bool = True
    good: int = 0
    bad: int = 0

    def count(self, now: float, *, good: bool) -> None:
        """Count one more."""
        self.good += good
        self.bad += not good
        self.last_good, self.last_at = good, now


class Roster:
    """The credentials in force by their names, and those that were taken out and may still be in use.

    Changed by the event loop alone; may be read by any thread.
    """

    def __init__(self, config: Config, assembly: Assembly, agenda: Agenda, workers: Workers) -> None:
        """Take a good configuration; all of it is due at once.

        Raises `InputsUnusable` if what is configured cannot be made into working parts.
        """
        self.config = config
        self._assembly = assembly
        self._clock = assembly.clock
        self._agenda = agenda
        self._workers = workers
        self.credentials: dict[str, Credential] = {}
        self._leaving: dict[str, Credential] = {}
        self.reloads = Reloads(self._clock.now())
        plans = assembly.plans(config)
        assembly.sweep_temporaries(plans.values())
        for name, plan in plans.items():
            self._add(name, plan)

    def _add(self, name: str, plan: Plan) -> None:
        credential = self.credentials[name] = Credential(name, plan)
        self._agenda.put(credential, 0.0)

    def all(self) -> tuple[Credential, ...]:
        """Return those in force."""
        return tuple(self.credentials.values())

    def everybody(self) -> tuple[Credential, ...]:
        """Return those in force and those that were taken out."""
        return (*self.credentials.values(), *self._leaving.values())

    def names(self) -> list[str]:
        """Return every name that `shown` may know, in order."""
        return sorted((*self.credentials, *self._leaving))

    def shown(self, name: str) -> Credential | None:
        """Return the one to show by this name: one that was taken out, too, while only memory holds its newest pair."""
        leaving = self._leaving.get(name)
        return self.credentials.get(name) or (leaving if leaving is not None and leaving.only_in_memory else None)

    def unknown(self, name: str) -> Problem:
        """Say that no credential has this name."""
        known = ", ".join(sorted(self.credentials)[:5]) or "none"
        return Problem(Reason.BAD_INPUT, f"no credential is called {name}; configured: {known}")

    def wake(self, *credentials: Credential) -> None:
        """Have these seen to now."""
        now = self._clock.now()
        for credential in credentials:
            self._agenda.put(credential, now)
        self._workers.wake()

    def plans(self, config: Config) -> dict[str, Plan] | tuple[str, ...]:
        """Prepare to take over a configuration, or say why that cannot be. Reads files, so not in the loop."""
        if fixed := fixed_changes(self.config, config):
            return fixed
        try:
            return self._assembly.plans(config)
        except InputsUnusable as error:
            return (str(error),)

    def take_over(self, config: Config, plans: dict[str, Plan]) -> None:
        """Put a configuration in force. No state is dropped, and nobody waits."""
        self._leaving = {name: credential for name, credential in self._leaving.items() if credential.in_use}
        for name in self.credentials.keys() - plans.keys():
            gone = self._leaving[name] = self.credentials.pop(name)
            gone.leaving = True
            self._agenda.put(gone, self._clock.now())
        for name, plan in plans.items():
            if name in self._leaving:
                # The same again: a second one beside it would spend the token that its request is spending.
                self.credentials[name] = self._leaving.pop(name)
                self.credentials[name].leaving = False
            credential = self.credentials.get(name)
            before = self.config.credentials.get(name)
            if credential is None:
                self._add(name, plan)
            elif config.credentials[name] != before:
                heals = before is None or _asked(config.credentials[name]) != _asked(before)
                self._assembly.rotator.replan(credential, plan, heals=heals)
                self.wake(credential)
        self.config = config
        if self._assembly.peers is not None:
            self._assembly.peers.follow(tuple(self.credentials))
        self._workers.wake()
