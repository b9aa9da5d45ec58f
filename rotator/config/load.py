"""Reads the configuration: one file and its `conf.d`, to one `Config` or to all errors at once."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from rotator.config import build
from rotator.config.checks import Finding, check_credential, check_store, check_whole
from rotator.config.files import File, Place, depth, list_files, read_file
from rotator.config.places import Finder, dotted, unknown_key
from rotator.config.schema import (
    NAME_PATTERN,
    CredentialTable,
    DaemonTable,
    KubernetesTable,
    LogTable,
    MetricsTable,
    Root,
    Table,
)
from rotator.config.settings import Config, ConfigError, CredentialConfig
from rotator.config.values import UnreadableError

MOST_FINDINGS: Final = 100
M = TypeVar("M", bound=Table)

_PLAIN_WORDS: Final = {
    "bool_type": "must be true or false, without quotes",
    "dict_type": "must be a table",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "list_type": "must be a list: [ … ]",
    "missing": "is missing: add it",
    "model_type": "must be a table",
    "string_type": "must be a text in quotes",
}


def load(
    path: Path, directory: Path | None, environ: Mapping[str, str], *, looking: bool = False
) -> Config | tuple[ConfigError, ...]:
    """Read `path` and `directory`/*.toml in name order (default: `conf.d` beside it, if there).

    Never raises for what users write. Settings that are no secrets are read from their files,
    variables and commands here and now; secrets are read when they are used. Whoever is only `looking`
    at the state sends no request: what of a credential can be read inside the unit alone counts as absent (case I8).
    """
    paths = list_files(path, directory)
    if isinstance(paths, ConfigError):
        return (paths,)
    read = [read_file(one) for one in paths]
    unread = tuple(one for one in read if isinstance(one, ConfigError))
    loading = _Loading([one for one in read if isinstance(one, File)], environ, looking=looking)
    config = loading.config()
    if errors := (*unread, *loading.reports(fatal=True)):
        return errors
    return replace(config, warnings=loading.reports(fatal=False))


@dataclass(slots=True)
class _Shared:
    """What all credentials with equal tables have in common."""

    first: str
    settings: CredentialConfig
    findings: list[Finding]
    count: int = 0


class _Loading:
    """One pass over the files. Nothing stops at the first error; a wrong key counts as absent."""

    def __init__(self, files: list[File], environ: Mapping[str, str], *, looking: bool) -> None:
        self._files = files
        self._environ = environ
        self._looking = looking
        self._findings: list[Finding] = []
        self._sections: dict[str, dict[str, Any]] = {name: {} for name in Root.model_fields}
        for number, file in enumerate(files):
            for name, section in file.table.items():
                self._merge(files[:number], name, section)

    def _merge(self, earlier: list[File], name: str, section: object) -> None:
        """Take in a section: a later key replaces an earlier one, a credential must not."""
        if name not in self._sections:
            self._findings.append(Finding((name,), unknown_key((name,))))
            return
        if not isinstance(section, dict):
            self._findings.append(Finding((name,), f"must be a table: write [{name}]"))
            return
        merged = self._sections[name]
        for twice in sorted(merged.keys() & section.keys() if name == "credentials" else ()):
            place = (name, twice)
            other = next(file.path for file in earlier if depth(file.table, place) == len(place))
            text = f"is also in {other}: keep it in one of the two files"
            self._findings.append(Finding(place, text))
        merged.update(section)

    def config(self) -> Config:
        """Validate, check and build. The result is good only if there are no fatal findings."""
        daemon = self._section("daemon", DaemonTable)
        kubernetes = self._section("kubernetes", KubernetesTable)
        metrics = self._section("metrics", MetricsTable)
        log = self._section("log", LogTable)
        self._section("defaults", CredentialTable)
        credentials = self._credentials()
        if not self._sections["credentials"]:
            text = "is empty: add a table [credentials.NAME]"
            self._findings.append(Finding(("credentials",), text, fatal=False))
        requests = {credential.endpoint.total_timeout for credential in credentials.values()}
        config = Config(
            daemon=build.daemon_config(daemon, kubernetes, self._environ, max(requests, default=0.0)),
            metrics=build.metrics_config(metrics),
            log=build.log_config(log),
            credentials=credentials,
            files=tuple(file.path for file in self._files),
            warnings=(),
        )
        self._findings += check_store(daemon, self._sections["kubernetes"])
        for finding in check_whole(config, self._environ):
            if finding.place[0] == "credentials":
                place = self._written_at(str(finding.place[1]), finding.place[2:])
                self._findings.append(replace(finding, place=place))
            else:
                self._findings.append(finding)
        return config

    def _section(self, name: str, model: type[M]) -> M:
        table, findings = self._validated(model, self._sections[name], (name,))
        self._findings += findings
        return table

    def _validated(self, model: type[M], raw: Mapping[str, Any], place: Place) -> tuple[M, list[Finding]]:
        """Validate what is good of a table, and say what is not."""
        try:
            return model.model_validate(raw, context={"environ": self._environ}), []
        except ValidationError as error:
            findings = list(_findings(error, place, forgiving=self._looking and model is CredentialTable))
            wrong = {one["loc"][0] for one in error.errors(include_input=False, include_url=False)}
            good = {key: value for key, value in raw.items() if key not in wrong}
            table, more = self._validated(model, good, place)
            return table, findings + more

    def _credentials(self) -> dict[str, CredentialConfig]:
        pool = build.Pool()
        known: dict[str, _Shared] = {}
        credentials: dict[str, CredentialConfig] = {}
        for name, raw in self._sections["credentials"].items():
            if problem := _name_problem(name, raw):
                self._findings.append(Finding(("credentials", name), problem))
                continue
            # Equal tables are validated once: a fleet differs in little but the name.
            key = json.dumps(raw, sort_keys=True, default=repr)
            if key not in known:
                known[key] = self._credential(name, raw, pool)
            known[key].count += 1
            credentials[name] = known[key].settings
        for shared in known.values():
            self._findings += self._placed(shared)
        return credentials

    def _credential(self, name: str, raw: Mapping[str, Any], pool: build.Pool) -> _Shared:
        merged = _merged(self._sections["defaults"], raw)
        table, findings = self._validated(CredentialTable, merged, ())
        told = {finding.place[0] for finding in findings}
        findings += (finding for finding in check_credential(table, self._environ) if finding.place[0] not in told)
        return _Shared(name, pool.one(build.credential_config(table, pool)), findings)

    def _placed(self, shared: _Shared) -> Iterator[Finding]:
        """Put findings where the key was written: in `[defaults]` or in the first such credential."""
        more = f" (and {shared.count - 1} more credentials like it)" if shared.count > 1 else ""
        for finding in shared.findings:
            place = self._written_at(shared.first, finding.place)
            text = finding.text if place[0] == "defaults" else finding.text + more
            yield replace(finding, place=place, text=text)

    def _written_at(self, name: str, place: Place) -> Place:
        """Return the whole place of what is at `place` of a credential: inherited or its own."""
        own = depth(self._sections["credentials"][name], place)
        inherited = own < len(place) == depth(self._sections["defaults"], place)
        return ("defaults", *place) if inherited else ("credentials", name, *place)

    def reports(self, *, fatal: bool) -> tuple[ConfigError, ...]:
        """Return what was found, in the files' order."""
        # What stands in [defaults] is found once more with each kind of credential.
        found = list(dict.fromkeys(one for one in self._findings if one.fatal is fatal))
        finder = Finder(self._files)
        reports = [ConfigError(*finder.find(one.place), dotted(one.place), one.text) for one in found[:MOST_FINDINGS]]
        order = {str(file.path): number for number, file in enumerate(self._files)}
        reports.sort(key=lambda one: (order.get(one.file, 0), one.line or 0))
        if more := len(found) - len(reports):
            reports.append(ConfigError(reports[-1].file, None, "", f"and {more} more like these"))
        return tuple(reports)


def _name_problem(name: str, raw: object) -> str | None:
    if not re.fullmatch(NAME_PATTERN, name):
        return "is not a good name: use up to 101 letters, digits, '.', '_' and '-', starting with a letter or digit"
    return None if isinstance(raw, dict) else f"must be a table: write [credentials.{name}]"


def _merged(defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a credential over the defaults: `refresh` and `extra` key by key, others as a whole."""
    merged = {**defaults, **raw}
    for name in ("refresh", "extra"):
        below, above = defaults.get(name), raw.get(name)
        if isinstance(below, dict) and isinstance(above, dict):
            merged[name] = {**below, **above}
    return merged


def _findings(error: ValidationError, place: Place, *, forgiving: bool) -> Iterable[Finding]:
    for one in error.errors(include_url=False, include_input=False):
        where = (*place, *one["loc"])
        if one["type"] == "extra_forbidden":
            yield Finding(where, unknown_key(where if place else ("defaults", *where)))
        else:
            words = one["msg"].removeprefix("Value error, ").replace("Input should", "must")
            unreadable = isinstance(one.get("ctx", {}).get("error"), UnreadableError)
            yield Finding(where, _PLAIN_WORDS.get(one["type"], words), fatal=not (forgiving and unreadable))
