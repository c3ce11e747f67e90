"""Compares a saved model with masks and held values. Each weight is read in blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from masksweep.strategies.core.npz import ArrayFile, open_arrays, regions
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.held.constant import Constant
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns.explicit import to_mask
from masksweep.strategies.plan import Array, collapse_constant
from masksweep.sweeps.audit import mask_files, opening, stored
from masksweep.sweeps.audit.findings import Block, Finding, audit_weight
from masksweep.sweeps.audit.mask_files import StoredMask
from masksweep.sweeps.audit.stored import StoredModel, StoredWeight
from masksweep.sweeps.common.spinner import show_status

Blocks = Callable[[int], Iterator[Array]]
"""`blocks(entries)` yields an array in blocks of at most `entries` entries, as `regions` does."""


@dataclass(frozen=True)
class HeldModel:
    """The held values are the weights of another saved model."""

    path: str

    def __post_init__(self) -> None:
        opening.check(self.path)


@dataclass(frozen=True)
class HeldArrays:
    """The held values are the arrays of a `.npz` file, which have the names of the masks."""

    path: str

    def __post_init__(self) -> None:
        with open_arrays(self.path):
            pass


def audit_files(
    path: str, masks: str, held: Zero | Constant | HeldArrays | HeldModel, weight: str | None = None
) -> list[Finding]:
    """Compares the masked entries of a saved model with their held values, bit for bit.

    Args:
        path: Path of the saved model.
        masks: Path of the file with the masks.
        held: The values that masked entries must have.
        weight: Name of the weight that the mask belongs to, if the file has one mask without a
            name.

    Returns:
        A finding for each masked weight, in the order of the masks.

    Raises:
        Invalid: A file cannot be read, or the files do not fit each other.
    """
    opening.check(path)
    with ExitStack() as files:
        masks_by_name = files.enter_context(mask_files.open_masks(masks))
        files.enter_context(show_status(f"Auditing {Path(path).name}"))
        model = files.enter_context(opening.open_model(path))
        masked = _masked(model, masks, masks_by_name, weight)
        findings = [
            audit_weight(m.weight.name, m.weight.shape, _blocks(m, blocks), m.weight.by_place)
            for m, blocks in zip(masked, _held_blocks(held, masked, files), strict=True)
        ]
    if not any(f.masked for f in findings):
        names = ", ".join(f.weight for f in findings)
        raise Invalid("masks", names, "nothing is masked, so there is nothing to audit")
    return findings


@dataclass(frozen=True)
class _Masked:
    key: str
    """Name of the mask in its file."""
    weight: StoredWeight
    mask: StoredMask


def _masked(
    model: StoredModel, path: str, masks: Mapping[str, StoredMask], name: str | None
) -> list[_Masked]:
    """Returns each mask with its weight. Raises `Invalid` if they are ambiguous or do not fit."""
    if mask_files.UNNAMED_MASK in masks:
        mask = masks[mask_files.UNNAMED_MASK]
        w = _weight_of(model, path, mask, name)
        masked = [_Masked(w.name, w, mask)]
    else:
        require(name is None, "--weight", name, "left out: the file has a name for each mask")
        weights = {key: model.find(key) for key in masks}
        unknown = [key for key, w in weights.items() if w is None]
        if unknown:
            wrong = ", ".join(unknown[: stored.MAX_LISTED_WEIGHTS])
            raise Invalid("path", path, f"names {wrong}; the model's weights are {model.listed()}")
        masked = [_Masked(key, w, masks[key]) for key, w in weights.items() if w]
    names = [w.weight.name for w in masked]
    for m in masked:
        name, shape, mask_shape = m.weight.name, m.weight.shape, m.mask.shape
        require(names.count(name) == 1, "path", path, f"a file with one mask for {name}")
        shown = f"shape {list(mask_shape)}"
        require(mask_shape == shape, f"mask of {name}", shown, f"of shape {list(shape)}")
        # if one axis is 0, another may be longer than NumPy allows
        require(0 not in shape, f"mask of {name}", shown, "of a weight that has entries")
    return masked


def _weight_of(model: StoredModel, path: str, mask: StoredMask, name: str | None) -> StoredWeight:
    if name is not None:
        weight = model.find(name)
        if weight is None:
            raise Invalid("--weight", name, f"the model's weights are {model.listed()}")
        return weight
    shape, fitting = list(mask.shape), model.of_shape(mask.shape)
    if len(fitting) != 1:
        names = ", ".join(w.name for w in fitting[: stored.MAX_LISTED_WEIGHTS])
        reason = (
            f"of that shape are {names}; say which with --weight"
            if fitting
            else (f"no weight has that shape; they are {model.listed()}")
        )
        raise Invalid("path", path, f"one mask of shape {shape}, without a name: {reason}")
    return fitting[0]


def _held_blocks(
    held: Zero | Constant | HeldArrays | HeldModel, masked: Sequence[_Masked], files: ExitStack
) -> list[Blocks]:
    """Returns the blocks of the held values of each masked weight."""
    if isinstance(held, HeldModel):
        return _blocks_of_model(files.enter_context(opening.open_model(held.path)), masked)
    if isinstance(held, HeldArrays):
        return _blocks_of_arrays(held.path, files.enter_context(open_arrays(held.path)), masked)
    if isinstance(held, Constant):
        for m in masked:
            whole = m.weight.dtype.kind not in "bui" or held.value.is_integer()
            require(whole, "--held", held.value, f"whole for {m.weight.name}, {m.weight.dtype}")
    # zeros without memory: these held values depend only on the shapes and dtypes of the weights
    like = {m.key: np.broadcast_to(np.zeros((), m.weight.dtype), m.weight.shape) for m in masked}
    values = held.values(like)
    return [stored.sliced(values[m.key]) for m in masked]


def _blocks_of_model(model: StoredModel, masked: Sequence[_Masked]) -> list[Blocks]:
    weights = [model.find(m.weight.name) or model.find(m.key) for m in masked]
    missing = [m.weight.name for m, weight in zip(masked, weights, strict=True) if weight is None]
    if missing:
        wrong = ", ".join(missing[: stored.MAX_LISTED_WEIGHTS])
        reason = f"is without {wrong}; the model's weights are {model.listed()}"
        raise Invalid("path", model.path, reason)
    other_weights = [weight for weight in weights if weight]
    for m, weight in zip(masked, other_weights, strict=True):
        other, expected = (f"{w.dtype} of shape {list(w.shape)}" for w in (weight, m.weight))
        require(other == expected, m.weight.name, other, f"held values: {expected}")
    return [weight.blocks for weight in other_weights]


def _blocks_of_arrays(
    path: str, arrays: Mapping[str, ArrayFile], masked: Sequence[_Masked]
) -> list[Blocks]:
    missing = [m.key for m in masked if m.key not in arrays]
    limit = stored.MAX_LISTED_WEIGHTS
    missing_names, names = ", ".join(missing[:limit]), ", ".join(list(arrays)[:limit])
    reason = f"a file with values for {missing_names}; it has {names}"
    require(not missing, "path", path, reason)

    def cast(array: ArrayFile, dtype: np.dtype) -> Blocks:
        def blocks(entries: int) -> Iterator[Array]:
            for block in array.blocks(entries):
                with np.errstate(over="ignore"):
                    yield block.astype(dtype)

        return blocks

    for m in masked:
        array, shape = arrays[m.key], m.weight.shape
        fits = array.shape == shape and (array.dtype.kind in "buif" or array.is_bfloat16)
        dtype_and_shape = f"{array.dtype} of shape {array.shape}"
        require(fits, m.weight.name, dtype_and_shape, f"numbers of shape {shape}")
    return [cast(arrays[m.key], m.weight.dtype) for m in masked]


def _blocks(masked: _Masked, held_blocks: Blocks) -> Iterator[Block]:
    weight = masked.weight
    entries, all_blocks = weight.entries, (weight.blocks, masked.mask.blocks, held_blocks)
    parts = (blocks(entries) for blocks in all_blocks)
    for region, values, mask_values, held in zip(
        regions(weight.shape, entries), *parts, strict=True
    ):
        mask = to_mask(mask_values, values.shape, f"mask of {weight.name}")
        finite = bool((mask | np.isfinite(collapse_constant(held))).all())
        require(finite, weight.name, "NaN or infinite", "held at finite numbers")
        yield Block(tuple(part.start for part in region), values, mask, held)
