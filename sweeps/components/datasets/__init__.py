"""The data sets that a config can name, one in each file. Only `keras` downloads its data."""

from masksweep.strategies.registry import Registry
from masksweep.sweeps.components.datasets.base import DataSet

DATASETS = Registry("datasets", DataSet, __name__)
"""The registry of data sets."""

__all__ = ["DATASETS", "DataSet"]
