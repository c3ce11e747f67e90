"""Schedules of the mask: they change the masks in the course of a training. NumPy only."""

from masksweep.strategies.registry import Registry
from masksweep.strategies.schedules.base import MaskSchedule

SCHEDULES = Registry("schedules", MaskSchedule, __name__)
"""Every schedule of the mask by name."""

__all__ = ["SCHEDULES", "MaskSchedule"]
