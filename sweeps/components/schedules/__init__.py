"""The schedules of the learning rate that a config can name, one in each file."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.schedules.base import Schedule

SCHEDULES = Registry("learning_rates", Schedule, __name__)
"""The registry of schedules."""

__all__ = ["SCHEDULES", "Schedule"]
