"""The `init` held value: masked entries keep their initial values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from masksweep.strategies.held.base import Held
from masksweep.strategies.plan import Array
from masksweep.strategies.registry import register


@register
@dataclass(frozen=True)
class Init(Held):
    """The initial value of each masked entry: the weight is frozen."""

    name: ClassVar[str] = "init"

    def values(self, initial: Mapping[str, Array]) -> dict[str, Array]:
        return {n: a.copy() for n, a in initial.items()}
