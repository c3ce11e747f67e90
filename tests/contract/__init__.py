"""One suite that every strategy passes; a new strategy adds one entry to `cases.CASES`."""
