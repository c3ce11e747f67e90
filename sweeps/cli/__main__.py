"""Entry point of `python -m masksweep.sweeps.cli`, which is the command `masksweep`."""

import sys

from masksweep.sweeps.cli.main import main

sys.exit(main())
