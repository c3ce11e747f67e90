"""Masks that leave every unit and every input of a kernel connected."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.base import Mask, require
from masksweep.strategies.patterns.base import keep_lowest

T = TypeVar("T", bound=np.generic)


def keep_connected(
    scores: NDArray[np.uint64], count: int, *, min_fan_in: int, min_fan_out: int, name: str
) -> Mask:
    """A mask that keeps exactly `count` entries, and enough of each unit and each input.

    Each unit keeps its `min_fan_in` lowest scores and each input its `min_fan_out` lowest; what is
    left of the count are the lowest of the other entries, as in `keep_lowest`. Where `count` is too
    small for both sets, one of them is kept alone, and entries of it are exchanged until the other
    limit is met too: so any count of at least `min_fan_in * units` and `min_fan_out * inputs` will
    do.

    Args:
        scores: `[..., inputs, units]`, random; of a convolution `[window, inputs, filters]`. A
            unit's fan-in is counted over all axes but the last, an input's fan-out over all but
            the last but one, so the whole window counts in both.
        count: How many entries are kept.
        min_fan_in: Kept entries of each unit, at least.
        min_fan_out: Kept entries of each input, at least.
        name: Of the weight, for the message.

    Raises:
        Invalid: The limits ask for more entries than are kept, or than there are.

    Example:
        >>> scores = np.arange(6, dtype=np.uint64).reshape(2, 3)
        >>> keep_connected(scores, 3, min_fan_in=1, min_fan_out=1, name="a").astype(int)
        array([[0, 1, 1],
               [1, 0, 0]])
    """
    cube = scores.reshape(-1, *scores.shape[-2:])
    window, inputs, units = cube.shape
    for key, least, among, entries in (
        ("min_fan_in", min_fan_in, units, window * inputs),
        ("min_fan_out", min_fan_out, inputs, window * units),
    ):
        one, several = ("unit", "units") if key == "min_fan_in" else ("input", "inputs")
        allowed = f"at most {entries}, the entries of each {one} of {name}"
        require(least <= entries, key, least, allowed)
        most = count // among
        allowed = f"at most {most}: {name} keeps {count} entries for {among} {several}"
        require(least <= most, key, least, allowed)
    by_unit = _lowest(cube, min_fan_in)
    by_input = _swapped(_lowest(_swapped(cube), min_fan_out))
    forced = by_unit | by_input
    if int(forced.sum()) > count:
        if min_fan_in * units >= min_fan_out * inputs:
            forced = _exchanged(by_unit, cube, min_fan_out)
        else:
            forced = _swapped(_exchanged(_swapped(by_input), _swapped(cube), min_fan_in))
    mask = forced.copy()
    mask[~forced] = keep_lowest(cube[~forced], count - int(forced.sum()))
    found: Mask = mask.reshape(scores.shape)
    return found


def _swapped(cube: NDArray[T]) -> NDArray[T]:
    """`[window, inputs, units]` as `[window, units, inputs]`."""
    return np.swapaxes(cube, 1, 2)


def _lowest(cube: NDArray[np.uint64], least: int) -> Mask:
    """The `least` lowest entries of each unit (last axis)."""
    flat = cube.reshape(-1, cube.shape[-1])
    mask = np.zeros(flat.shape, bool)
    order = np.argsort(flat, axis=0, kind="stable")[:least]
    np.put_along_axis(mask, order, True, axis=0)
    return mask.reshape(cube.shape)


def _exchanged(kept: Mask, scores: NDArray[np.uint64], least: int) -> Mask:
    """As many kept entries of each unit, moved so that each input keeps `least` of them.

    An input with too few takes entries over from the one with the most. That one has more, so
    there is a place in the window and a unit where it keeps an entry and the other does not.
    There must be `least` entries for each input in all.
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
