"""From the command line to the jobs of a sweep: Hydra composes the configs of the jobs.

Configs from other people are checked first. Only this package uses Hydra. It may import `config`
and the packages below it.
"""
