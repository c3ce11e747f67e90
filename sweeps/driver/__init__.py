"""A sweep from its plan to its end, a trial that is reproduced, and the progress of both.

It may import everything but `bench` and `cli`.
"""
