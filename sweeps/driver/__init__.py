"""Runs a sweep from its plan to its end, reproduces trials, and shows the progress of both.

It may import everything but `bench` and `cli`.
"""
