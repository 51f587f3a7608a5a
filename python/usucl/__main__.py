"""``python -m usucl``, for starters such as torchrun that run a module."""

import sys

from usucl.cli import main

sys.exit(main())
