"""`python -m fettle`."""

import sys

from fettle.cli import main

sys.exit(main())
