"""`python -m rotator.cli` is `rotator`."""

import sys

from rotator.cli.commands import main

sys.exit(main())
