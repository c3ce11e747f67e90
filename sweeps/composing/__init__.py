"""From the command line to the jobs of a sweep: composed by Hydra, which only this package knows,
and checked where the config is a stranger's.

It may import `config` and below.
"""
