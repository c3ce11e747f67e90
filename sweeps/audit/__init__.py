"""Audits a saved model against masks from files. No code from a file is run.

This package may import `common` and `strategies`.
"""
