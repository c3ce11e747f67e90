"""Where trials run: Ray's clusters, workers and jobs, which only this package knows, and processes
of this machine.

It may import `training` and below.
"""
