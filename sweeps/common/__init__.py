"""Helpers for all other packages: text, files, locks, seeds, signals, safe reading of files.

Nothing here depends on what a trial is. It may import `strategies` only.
"""
