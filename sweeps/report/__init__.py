"""What came out of a sweep: verdicts, tests, the recommendation, tables, plots and the page.

It may import `tracking`, `config`, `results` and below.
"""
