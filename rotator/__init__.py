"""rotator keeps OAuth 2.0 tokens fresh: it refreshes, saves, and only then publishes."""

from typing import Final

VERSION: Final = "0.1.0"
DATED: Final = "2026-11-25"
"""The day of this version, UTC; manual pages and packages carry it."""
