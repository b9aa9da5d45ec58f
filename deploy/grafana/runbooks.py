"""Where the runbooks are read."""

from typing import Final

RUNBOOKS: Final = "https://example.com/rotator/docs/runbooks"
