"""Weights and outputs of a program's model at one step, which audits compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from masksweep.strategies.plan import Array
from masksweep.sweeps.components.datasets.named import Part, Split
from masksweep.sweeps.components.datasets.pipeline import first_samples
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.setup import TrialStart

PROBE_SAMPLES = 256
"""Number of samples on which outputs are compared: those of the live and the saved model, and
those before and after the training."""


@dataclass(frozen=True)
class Snapshot:
    """Weights and outputs of a program's model at one step."""

    weights: Mapping[str, Array]
    """Effective dense weights by name."""
    raw: Mapping[str, Array]
    """Raw variables of the masked weights by name, where they have the weight's shape."""
    outputs: Array
    """Outputs on the first `PROBE_SAMPLES` validation (else test) samples, `[samples, outputs]`.
    Several outputs stand side by side."""


def take_snapshot(start: TrialStart, program: Program) -> Snapshot:
    """Weights and outputs of the program's model as they are now."""
    return Snapshot(program.effective(), program.raw(), program.predict(probe(start)))


def probe(start: TrialStart) -> Part:
    """Inputs on which outputs are compared."""
    return probe_samples(start)[0]


def probe_samples(start: TrialStart) -> Split:
    """The first validation samples; test samples if there are none."""
    return first_samples(start.data.validation or start.data.test, PROBE_SAMPLES)
