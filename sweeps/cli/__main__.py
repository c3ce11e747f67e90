"""`python -m masksweep.sweeps.cli`: the command `masksweep`."""

import sys

from masksweep.sweeps.cli.main import main

sys.exit(main())
