"""How a command ends: the exit codes of sysexits.h, and the one exception that carries one."""

from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """Every exit code of rotator; `rotator --help` tells users what they mean."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    NOINPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    CANTCREAT = 73
    IOERR = 74
    TEMPFAIL = 75
    NOPERM = 77
    CONFIG = 78


MEANINGS: Final = {
    ExitCode.OK: "done, or all is well",
    ExitCode.USAGE: "the command line is wrong, or no credential has that name",
    ExitCode.DATAERR: "what was handed in on standard input is unusable",
    ExitCode.NOINPUT: "there is no terminal or input to read from",
    ExitCode.UNAVAILABLE: "no daemon, or a credential without a valid access token",
    ExitCode.SOFTWARE: "a bug in rotator",
    ExitCode.CANTCREAT: "a socket or address cannot be opened",
    ExitCode.IOERR: "a file cannot be written; a token set may not be saved",
    ExitCode.TEMPFAIL: "a passing failure: try again",
    ExitCode.NOPERM: "no permission, or the grant is dead: log in again",
    ExitCode.CONFIG: "the configuration is wrong, or a state was written by a newer rotator",
}


class Stop(Exception):  # noqa: N818 - it ends a command, which need not be an error of ours
    """Ends the command with an exit code and lines for people, each complete with its cure."""

    def __init__(self, code: ExitCode, *lines: str) -> None:
        super().__init__(*lines)
        self.code = code
        self.lines = lines


_CODES: Final = {
    ExitCode.NOPERM: (
        "invalid_grant", "token_reuse", "login_required", "reauthorization_required", "denied", "permission",
        "state_damaged",
    ),
    ExitCode.CONFIG: (
        "invalid_client", "unauthorized_client", "invalid_request", "invalid_scope",
        "unsupported_grant_type", "other_refusal", "bad_input", "redirect", "missing_directory",
        "state_newer",
    ),
    ExitCode.UNAVAILABLE: ("no_daemon", "no_answer", "not_owner"),
    ExitCode.IOERR: ("save_failed", "state_unreadable", "no_space", "read_only", "io_error"),
    ExitCode.USAGE: ("unknown_credential",),
    ExitCode.DATAERR: ("bad_request", "too_large"),
    ExitCode.SOFTWARE: ("bug",),
}  # fmt: skip


def code_of(reason: str) -> ExitCode:
    """Return the exit code for a failure's reason; what is not listed passes."""
    return next((code for code, reasons in _CODES.items() if reason in reasons), ExitCode.TEMPFAIL)
