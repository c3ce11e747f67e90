"""Checks for models, data sets and optimizers of Masksweep and of other distributions.

It may import `components` and `strategies`. Nothing else of Masksweep imports it; tests do.
"""

from masksweep.sweeps.components.testing.dataset_check import check_dataset
from masksweep.sweeps.components.testing.model_check import check_model
from masksweep.sweeps.components.testing.optimizer_check import check_optimizer

__all__ = ["check_dataset", "check_model", "check_optimizer"]
