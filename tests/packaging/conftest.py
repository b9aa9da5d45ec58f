"""What the tests of packages are given."""

from tests.packaging.builds import built

__all__ = ["built"]
