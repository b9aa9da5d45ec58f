"""rotator keeps OAuth 2.0 tokens fresh: it refreshes, saves, and only then publishes."""

from typing import Final

VERSION: Final = "0.1.0"
