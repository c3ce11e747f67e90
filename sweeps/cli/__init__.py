"""The command `masksweep`: one file for each of its commands. It may import everything."""
