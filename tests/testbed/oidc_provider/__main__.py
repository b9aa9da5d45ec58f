"""Install oidc-provider, outside the clone: `python -m tests.testbed.oidc_provider`."""

from tests.testbed.oidc_provider import PACKAGES

PACKAGES.install()
