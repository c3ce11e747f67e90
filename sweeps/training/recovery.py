"""How much of a teacher's mask a student has found; see `data=teacher`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from masksweep.strategies.plan import Mask, variable_of
from masksweep.sweeps.components.datasets.teacher import Teacher
from masksweep.sweeps.training.setup import TrialStart

PRECISION, RECALL = "recovery/precision", "recovery/recall"


class Recovery(NamedTuple):
    """How much of the true mask was found, each in [0, 1]."""

    precision: float
    """Fraction of the kept entries of the matched units that are true connections; 0 if none is
    kept."""
    recall: float
    """Fraction of the true connections that are kept by the matched units."""


def of_masks(start: TrialStart, masks: Mapping[str, Mask]) -> dict[str, float]:
    """Returns the metrics `recovery/precision` and `recovery/recall`.

    Args:
        start: The start of the trial.
        masks: The masks by weight name.

    Returns:
        The two metrics. They are left out unless the data set is a teacher, and the first kernel
        of the model is masked and has the shape `[inputs, units]`.
    """
    data = start.trial.data
    first = next((name for name in start.weights if variable_of(name).endswith("kernel")), "")
    mask = masks.get(first)
    if not isinstance(data, Teacher) or mask is None or mask.shape != (data.inputs, mask.shape[-1]):
        return {}
    found = recovery(data.true_mask(), mask)
    return {PRECISION: found.precision, RECALL: found.recall}


def recovery(true: Mask, kept: Mask) -> Recovery:
    """Compares a student's mask with the teacher's, whatever the order of the units.

    Each unit of the teacher is matched to another unit of the student, so that as many true
    connections as possible are kept. Of several such matchings, the one with the fewest kept
    entries is taken. Units of the teacher without any connection, and the remaining units of the
    student, are left out. If the student has fewer units, the connections of the teacher's
    remaining units are not found.

    Args:
        true: The mask of the teacher's first kernel, `[inputs, units]`, with at least one
            connection.
        kept: The mask of the student's, `[inputs, any number of units]`.

    Example:
        >>> true = np.array([[True, False], [True, False], [False, True]])
        >>> kept = np.array([[False, True], [False, False], [True, True]])
        >>> recovery(true, kept)  # found: 2 of the 3 true connections, with 3 kept entries
        Recovery(precision=0.6666666666666666, recall=0.6666666666666666)
    """
    from scipy.optimize import linear_sum_assignment

    connected = true[:, true.any(axis=0)].astype(np.int64)
    common = connected.T @ kept.astype(np.int64)  # [teacher's units, student's units]
    sizes = kept.sum(axis=0)
    # integers, so that a common entry counts more than all kept entries together
    rows, columns = linear_sum_assignment(common * (kept.sum() + 1) - sizes, maximize=True)
    found, matched = int(common[rows, columns].sum()), int(sizes[columns].sum())
    return Recovery(found / matched if matched else 0.0, found / int(true.sum()))
