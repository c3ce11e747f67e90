"""What is recorded of a sweep and read back: the spool on disk, and MLflow, which only this package
knows.

It may import `config`, `results` and below.
"""
