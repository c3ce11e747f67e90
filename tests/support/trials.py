"""Small trials for tests."""

from __future__ import annotations

from typing import Any

from masksweep.sweeps.config.trial import Trial, parse

BASE: dict[str, Any] = {
    "strategy": {"name": "weight_mask"},
    "pattern": {"name": "random", "sparsity": 0.5},
    "held": {"name": "zero"},
    "model": {"name": "mlp", "hidden": [12, 8]},
    "data": {"name": "digits"},
    "optimizer": {"name": "adam", "learning_rate": 0.01},
    "train": {"epochs": 2, "batch_size": 100},
    "audit": {"every": 1},
}


def trial(**sections: Any) -> Trial:
    """The base trial with some sections replaced; a string stands for `{"name": string}`."""
    configs = {
        k: {"name": v} if isinstance(v, str) and "name" in BASE.get(k, ()) else v
        for k, v in sections.items()
    }
    return parse({**BASE, **configs})
