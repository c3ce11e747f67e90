"""A constant learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.strategies.registry import register
from masksweep.sweeps.components.schedules.base import Schedule


@register
@dataclass(frozen=True)
class Constant(Schedule):
    """A constant learning rate, after the warm-up."""

    name: ClassVar[str] = "constant"

    def build(self, rates: Sequence[Any]) -> Any:
        from masksweep.sweeps.components.keras_schedules import ConstantRate

        return ConstantRate(rates[0])
