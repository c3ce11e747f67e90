"""Recording of sweeps: a spool on disk, and MLflow, which no other package uses.

It may import `config`, `results` and below.
"""
