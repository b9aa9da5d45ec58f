"""django-oauth-toolkit as it comes, with the client, the user and the paths that the rig expects.

Two environment variables say the rest: `TESTBED_DATABASE`, a file; `TESTBED_PROVIDER`, what of the toolkit's own
settings differs, as JSON.
"""

import json
import os
import secrets
from typing import Final

from tests.secrets_scan import planted


def new_token(_request: object) -> str:
    """Make an access or a refresh token that the search for secrets recognises."""
    return planted(secrets.token_urlsafe(24))


SECRET_KEY: Final = planted("django")
ALLOWED_HOSTS: Final = ["*"]
INSTALLED_APPS: Final = ["django.contrib.auth", "django.contrib.contenttypes", "oauth2_provider"]
ROOT_URLCONF: Final = "tests.testbed.urls"
DATABASES: Final = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["TESTBED_DATABASE"],
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 30},
    }
}
PASSWORD_HASHERS: Final = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the default costs a second of CPU a test
USE_TZ: Final = True
OAUTH2_PROVIDER: Final = {
    "SCOPES": {"read": "Read"},
    "ACCESS_TOKEN_GENERATOR": f"{__name__}.new_token",
    "REFRESH_TOKEN_GENERATOR": f"{__name__}.new_token",
} | json.loads(os.environ["TESTBED_PROVIDER"])
