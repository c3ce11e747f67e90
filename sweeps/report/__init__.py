"""Reports on the results of a sweep: verdicts, tests, recommendation, tables, plots, HTML page.

This package may import `tracking`, `config`, `results` and below.
"""
