"""Masks that keep every unit and every input of a kernel connected."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import require
from masksweep.strategies.patterns.drawing import keep_lowest
from masksweep.strategies.plan import Mask

T = TypeVar("T", bound=np.generic)


def keep_connected(
    scores: NDArray[np.uint64], count: int, *, min_fan_in: int, min_fan_out: int, name: str
) -> Mask:
    """Returns a mask with exactly `count` kept entries that connects each unit and each input.

    Each unit keeps its `min_fan_in` entries with the lowest scores, and each input its
    `min_fan_out` entries with the lowest scores. If these are fewer than `count`, the other entries
    with the lowest scores are kept too, as in `keep_lowest`.

    If `count` is too small for both sets of entries, only the larger set is kept first. Then
    entries of it are moved until the other limit is met too. So each `count` is possible that is at
    least `min_fan_in * units` and at least `min_fan_out * inputs`.

    Args:
        scores: Random numbers, `[..., inputs, units]`; for a convolution
            `[*window, inputs, filters]`. The fan-in of a unit is the number of its kept entries
            over all inputs and the whole window. The fan-out of an input is the number of its kept
            entries over all units and the whole window.
        count: Number of kept entries.
        min_fan_in: Least number of kept entries of each unit.
        min_fan_out: Least number of kept entries of each input.
        name: Name of the weight, for the message.

    Returns:
        A boolean mask of the scores' shape; True = kept.

    Raises:
        Invalid: The limits need more entries than are kept, or than the weight has.

    Example:
        >>> scores = np.arange(6, dtype=np.uint64).reshape(2, 3)
        >>> keep_connected(scores, 3, min_fan_in=1, min_fan_out=1, name="a").astype(int)
        array([[0, 1, 1],
               [1, 0, 0]])
    """
    cube = scores.reshape(-1, *scores.shape[-2:])
    window, inputs, units = cube.shape
    for key, limit, groups, entries in (
        ("min_fan_in", min_fan_in, units, window * inputs),
        ("min_fan_out", min_fan_out, inputs, window * units),
    ):
        singular, plural = ("unit", "units") if key == "min_fan_in" else ("input", "inputs")
        allowed = f"at most {entries}, the entries of each {singular} of {name}"
        require(limit <= entries, key, limit, allowed)
        largest = count // groups
        allowed = f"at most {largest}: {name} keeps {count} entries for {groups} {plural}"
        require(limit <= largest, key, limit, allowed)
    by_unit = _lowest(cube, min_fan_in)
    by_input = _swap_axes(_lowest(_swap_axes(cube), min_fan_out))
    forced = by_unit | by_input
    if int(forced.sum()) > count:
        if min_fan_in * units >= min_fan_out * inputs:
            forced = _exchange(by_unit, cube, min_fan_out)
        else:
            forced = _swap_axes(_exchange(_swap_axes(by_input), _swap_axes(cube), min_fan_in))
    mask = forced.copy()
    mask[~forced] = keep_lowest(cube[~forced], count - int(forced.sum()))
    whole_mask: Mask = mask.reshape(scores.shape)
    return whole_mask


def _swap_axes(cube: NDArray[T]) -> NDArray[T]:
    """Returns `[window, inputs, units]` as `[window, units, inputs]`."""
    return np.swapaxes(cube, 1, 2)


def _lowest(cube: NDArray[np.uint64], least: int) -> Mask:
    """Returns a mask that keeps the `least` lowest scores of each unit (last axis)."""
    flat = cube.reshape(-1, cube.shape[-1])
    mask = np.zeros(flat.shape, bool)
    order = np.argsort(flat, axis=0, kind="stable")[:least]
    np.put_along_axis(mask, order, True, axis=0)
    return mask.reshape(cube.shape)


def _exchange(kept: Mask, scores: NDArray[np.uint64], least: int) -> Mask:
    """Moves kept entries between inputs, until each input keeps at least `least` entries.

    The number of kept entries of each unit stays the same. An input with too few kept entries gets
    entries from the input that has the most. As that input has more, there is a place in the window
    and a unit where it keeps an entry and the other input does not.

    Args:
        kept: The mask, `[window, inputs, units]`. It must keep `least * inputs` entries or more.
        scores: Scores of the entries, in the same shape; of several places, the one with the lowest
            score is chosen.
        least: Least number of kept entries of each input.
    """
    kept = kept.copy()
    degrees = kept.sum(axis=(0, 2))
    for needy in np.flatnonzero(degrees < least):
        while degrees[needy] < least:
            donor = int(degrees.argmax())
            free = kept[:, donor] & ~kept[:, needy]
            places = np.argwhere(free)
            place, unit = places[scores[:, needy][free].argmin()]
            kept[place, donor, unit], kept[place, needy, unit] = False, True
            degrees[donor] -= 1
            degrees[needy] += 1
    return kept
