"""The config groups whose options are components, with the registry of each group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from masksweep.strategies.held import HELD
from masksweep.strategies.patterns import PATTERNS
from masksweep.strategies.registry import STRATEGIES, Registry
from masksweep.strategies.schedules import SCHEDULES
from masksweep.sweeps.components.datasets import DATASETS
from masksweep.sweeps.components.losses import OWN_LOSSES
from masksweep.sweeps.components.metrics import OWN_METRICS
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.components.optimizers import OPTIMIZERS
from masksweep.sweeps.components.schedules import SCHEDULES as LEARNING_RATES

GROUPS: Mapping[str, Registry[Any]] = {
    "strategy": STRATEGIES,
    "pattern": PATTERNS,
    "held": HELD,
    "schedule": SCHEDULES,
    "model": MODELS,
    "data": DATASETS,
    "optimizer": OPTIMIZERS,
}
REGISTRIES: Mapping[str, Registry[Any]] = {
    **GROUPS,
    "learning_rate": LEARNING_RATES,
    "loss": OWN_LOSSES,
    "metric": OWN_METRICS,
}
"""The registries of all kinds of components: also of those that settings of a group name."""
