"""Reads the configuration: one file and its `conf.d`, to one frozen `Config` or to all errors at once."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from rotator.config import build
from rotator.config.checks import Finding, check_credential, check_whole
from rotator.config.places import File, Place, dotted, locate, unknown_key
from rotator.config.schema import NAME_PATTERN, CredentialTable, DaemonTable, LogTable, MetricsTable, Root, Table
from rotator.config.settings import Config, ConfigError, CredentialConfig

MOST_ERRORS: Final = 100
M = TypeVar("M", bound=Table)

_PLAIN_WORDS: Final = {
    "bool_type": "must be true or false, without quotes",
    "dict_type": "must be a table",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "list_type": "must be a list: [ … ]",
    "model_type": "must be a table",
    "string_type": "must be a text in quotes",
    "missing": "is missing: add it",
}


def load(path: Path, directory: Path | None, environ: Mapping[str, str]) -> Config | tuple[ConfigError, ...]:
    """Read `path` and `directory`/*.toml in name order (default: `conf.d` beside the file, if it is there).

    Never raises for what users write. Settings that are no secrets are read from their files,
    variables and commands here; secrets are not.
    """
    loading = _Loading(environ)
    loading.read_files(path, directory)
    return loading.result()


@dataclass(slots=True)
class _Shared:
    """What all credentials with the same raw table have in common."""

    first: str
    raw: Mapping[str, Any]
    settings: CredentialConfig | None
    findings: list[Finding]
    count: int = 1


class _Loading:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._files: list[File] = []
        self._unread: list[ConfigError] = []
        self._findings: list[Finding] = []
        self._sections: dict[str, dict[str, Any]] = {name: {} for name in Root.model_fields}

    def read_files(self, path: Path, directory: Path | None) -> None:
        """Read and merge; a key in a later file replaces the earlier one, a credential must not."""
        beside = directory if directory is not None else path.parent / "conf.d"
        try:
            more = sorted(file for file in beside.iterdir() if file.suffix == ".toml" and file.name[0] != ".")
        except OSError as error:
            more = []
            if directory is not None or not isinstance(error, FileNotFoundError | NotADirectoryError):
                self._fail(beside, f"cannot be listed ({error.strerror}): create the directory or correct its permissions")
        for file in (path, *more):
            self._read(file)

    def _fail(self, path: Path, text: str, line: int | None = None) -> None:
        self._unread.append(ConfigError(str(path), line, "", text))

    def _read(self, path: Path) -> None:
        try:
            text = path.read_bytes().decode()
        except OSError as error:
            self._fail(path, f"cannot be read ({error.strerror}): create it or correct its permissions")
            return
        except UnicodeDecodeError as error:
            self._fail(path, f"is not UTF-8 text (byte {error.start + 1}): save it as UTF-8")
            return
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            words = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a value too large or too deep"
            place = re.search(r" \(at line (\d+), column \d+\)$", words)
            reason = "".join(sign if sign.isprintable() else "?" for sign in words)
            self._fail(path, f"is not TOML: {reason}", int(place[1]) if place else None)
            return
        file = File(path, text, table)
        self._files.append(file)
        for name, section in table.items():
            self._merge(file, name, section)

    def _merge(self, file: File, name: str, section: object) -> None:
        if name not in self._sections:
            self._findings.append(Finding((name,), unknown_key((name,))))
        elif not isinstance(section, dict):
            self._findings.append(Finding((name,), f"must be a table: write [{name}]"))
        else:
            merged = self._sections[name]
            if name == "credentials":
                for twice in merged.keys() & section.keys():
                    first = next(other for other in self._files if other.depth((name, twice)) == 2)  # noqa: PLR2004
                    self._findings.append(
                        Finding((name, twice), f"is also in {first.path}: keep it in one of the two files")
                    )
            merged.update(section)

    def result(self) -> Config | tuple[ConfigError, ...]:
        """Validate, check and build; nothing stops at the first error."""
        daemon = self._validate(DaemonTable, ("daemon",), self._sections["daemon"])
        metrics = self._validate(MetricsTable, ("metrics",), self._sections["metrics"])
        log = self._validate(LogTable, ("log",), self._sections["log"])
        self._validate(CredentialTable, ("defaults",), self._sections["defaults"])
        credentials = self._credentials()
        if not self._sections["credentials"] and not self._unread:
            self._findings.append(
                Finding(("credentials",), "is empty: add a table [credentials.NAME]", fatal=False)
            )
        config = None
        if daemon and metrics and log:
            longest = max((one.endpoint.total_timeout for one in credentials.values()), default=90.0)
            config = Config(
                daemon=build.daemon_config(daemon, self._environ, longest),
                metrics=build.metrics_config(metrics),
                log=build.log_config(log),
                credentials=credentials,
                files=tuple(file.path for file in self._files),
                warnings=(),
            )
            self._findings += check_whole(config, self._environ)
        errors = self._unread + self._reports(finding for finding in self._findings if finding.fatal)
        if errors or config is None:
            return tuple(errors)
        return replace(config, warnings=tuple(self._reports(finding for finding in self._findings if not finding.fatal)))

    def _credentials(self) -> dict[str, CredentialConfig]:
        defaults = self._sections["defaults"]
        pool = build.Pool()
        known: dict[str, _Shared] = {}
        credentials: dict[str, CredentialConfig] = {}
        for name, raw in self._sections["credentials"].items():
            if not re.fullmatch(NAME_PATTERN, name):
                self._findings.append(
                    Finding(
                        ("credentials", name),
                        "is not a good name: use up to 101 letters, digits, '.', '_' and '-', starting with a letter or digit",
                    )
                )
                continue
            if not isinstance(raw, dict):
                self._findings.append(Finding(("credentials", name), f"must be a table: write [credentials.{name}]"))
                continue
            # Equal tables are validated once: a fleet's settings differ in nothing but the name.
            key = json.dumps(raw, sort_keys=True, default=repr)
            shared = known.get(key)
            if shared is None:
                shared = known[key] = self._credential(name, raw, _merged(defaults, raw), pool)
            else:
                shared.count += 1
            if shared.settings is not None:
                credentials[name] = shared.settings
        for shared in known.values():
            others = f" (and {shared.count - 1} more with the same settings)" if shared.count > 1 else ""
            for finding in shared.findings:
                inherited = _has(defaults, finding.place) and not _has(shared.raw, finding.place)
                place = ("defaults", *finding.place) if inherited else ("credentials", shared.first, *finding.place)
                self._findings.append(Finding(place, finding.text + ("" if inherited else others), finding.fatal))
        return credentials

    def _credential(self, name: str, raw: Mapping[str, Any], table: dict[str, Any], pool: build.Pool) -> _Shared:
        try:
            valid = CredentialTable.model_validate(table, context={"environ": self._environ})
        except ValidationError as error:
            return _Shared(name, raw, None, list(_findings(error, ())))
        findings = list(check_credential(valid, self._environ))
        failed = any(finding.fatal for finding in findings)
        return _Shared(name, raw, None if failed else pool.one(build.credential_config(valid, pool)), findings)

    def _validate(self, model: type[M], place: Place, table: Mapping[str, Any]) -> M | None:
        try:
            return model.model_validate(table, context={"environ": self._environ})
        except ValidationError as error:
            self._findings += _findings(error, place)
            return None

    def _reports(self, findings: Iterable[Finding]) -> list[ConfigError]:
        unique = list(dict.fromkeys(findings))  # what comes from [defaults] is found once per kind of credential
        reports = [
            ConfigError(*locate(self._files, finding.place), dotted(finding.place), finding.text)
            for finding in unique[:MOST_ERRORS]
        ]
        if len(unique) > MOST_ERRORS:
            reports.append(ConfigError(str(self._files[0].path), None, "", f"and {len(unique) - MOST_ERRORS} more"))
        return reports


def _merged(defaults: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """Lay a credential over the defaults: `refresh` and `extra` key by key, everything else as a whole."""
    merged = {**defaults, **raw}
    for name in ("refresh", "extra"):
        below, above = defaults.get(name), raw.get(name)
        if isinstance(below, dict) and isinstance(above, dict):
            merged[name] = {**below, **above}
    return merged


def _has(table: object, place: Place) -> bool:
    for key in place:
        if isinstance(table, Mapping) and key in table:
            table = table[key]
        elif isinstance(table, list) and isinstance(key, int) and key < len(table):
            table = table[key]
        else:
            return False
    return True


def _findings(error: ValidationError, place: Place) -> Iterable[Finding]:
    for one in error.errors(include_url=False, include_input=False):
        where = (*place, *one["loc"])
        if one["type"] == "extra_forbidden":
            yield Finding(where, unknown_key(("defaults", *where) if not place else where))
        else:
            words = one["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            yield Finding(where, _PLAIN_WORDS.get(one["type"], words))
