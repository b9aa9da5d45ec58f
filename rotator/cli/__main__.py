"""`python -m rotator.cli` is `rotator`."""

import sys

from rotator.cli.main import main

sys.exit(main())
