"""The data sets that a config can name, a file for each: generated or shipped with a package."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.datasets.base import DataSet

DATASETS = Registry("datasets", DataSet, __name__)
"""Every data set by name."""

__all__ = ["DATASETS", "DataSet"]
