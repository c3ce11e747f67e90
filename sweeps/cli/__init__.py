"""The command line program `masksweep`, one file for each command. May import everything."""
