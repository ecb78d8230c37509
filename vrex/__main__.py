"""``python -m vrex``: the command line."""

import sys

from vrex.sw.cli.main import main

sys.exit(main())
