"""Follows a schedule in a training: changes the masks when they are due, and records each change.

This package may import `strategies.core`, `strategies.schedules` and the basic types.
"""
