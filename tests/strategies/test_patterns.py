"""Tests of all patterns: number and places of masked entries, seeds, files, and refusals."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from masksweep.strategies import PATTERNS, Invalid
from masksweep.strategies.core import npz
from masksweep.strategies.core.connections import cut_off
from masksweep.strategies.core.npz import read_arrays
from masksweep.strategies.core.weights import describe
from masksweep.strategies.patterns import Pattern, drawing
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.by_weight import ByWeight
from masksweep.strategies.patterns.columns import Columns
from masksweep.strategies.patterns.drawing import keep_lowest, keep_lowest_of_raw, raw
from masksweep.strategies.patterns.edges import Edges
from masksweep.strategies.patterns.explicit import Explicit
from masksweep.strategies.patterns.fans import keep_connected
from masksweep.strategies.patterns.file import File
from masksweep.strategies.patterns.n_m import NM
from masksweep.strategies.patterns.random import Random, densities
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.patterns.smallest import Smallest
from masksweep.strategies.patterns.snip import SNIP
from masksweep.strategies.plan import Mask, MaskedWeight, Plan, Weight
from masksweep.strategies.testing.pattern_checks import pattern_checks
from tests.support.patterns import ATTENTION, SEEDED, Broken, digests

Shape = tuple[int, ...]
SEEDS = st.integers(0, 2**40)
SPARSITIES = st.floats(0, 1, exclude_max=True)
SHAPES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple)
MANY = st.lists(SHAPES, min_size=1, max_size=4).map(
    lambda shapes: {f"layer{i}/kernel": shape for i, shape in enumerate(shapes)}
)
NAME = "hidden/kernel"


def mask_of(pattern: Pattern, shape: Shape, seed: int = 0) -> Mask:
    mask = pattern.masks({NAME: shape}, seed)[NAME]
    assert (mask.shape, mask.dtype) == (shape, np.dtype(bool))
    return mask


@pytest.mark.parametrize(
    "pattern",
    [Block(), Block(by="l1"), Columns(), NM(remainder="shorter"), Random()],
    ids=lambda pattern: str(pattern.name),
)
def test_a_scalar_has_a_mask(pattern: Pattern) -> None:
    mask_of(pattern, ())
    assert pattern.from_weights({NAME: np.ones(())}, 0)[NAME].shape == ()


# -- counts ----------------------------------------------------------------------------------


@given(MANY, SPARSITIES, SEEDS)
def test_random_uniform_counts_each_weight(
    shapes: dict[str, Shape], sparsity: float, seed: int
) -> None:
    masks = Random(sparsity).masks(shapes, seed)
    assert list(masks) == list(shapes)
    for name, mask in masks.items():
        assert mask.shape == shapes[name]
        assert (~mask).sum() == round(sparsity * mask.size)


@pytest.mark.parametrize("distribution", ["er", "erk"])
@given(shapes=MANY, sparsity=SPARSITIES, seed=SEEDS)
def test_random_er_counts_all_weights(
    distribution: Any, shapes: dict[str, Shape], sparsity: float, seed: int
) -> None:
    masks = Random(sparsity, distribution).masks(shapes, seed)
    total = sum(m.size for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == round(sparsity * total)
    density = densities(shapes, sparsity, distribution)
    assert all(0 <= d <= 1 for d in density.values())
    for name, mask in masks.items():
        assert abs(mask.sum() - density[name] * mask.size) <= 1


def test_er_leaves_the_window_out_and_erk_counts_it() -> None:
    shapes = {"a": (3, 3, 8, 16), "b": (40, 50)}
    for distribution, share in (("er", (8 + 16) / (8 * 16)), ("erk", 30 / (9 * 8 * 16))):
        density = densities(shapes, 0.9, distribution)
        assert density["a"] / density["b"] == pytest.approx(share / (90 / 2000))


def test_er_hands_on_what_a_full_weight_cannot_take() -> None:
    density = densities({"small": (2, 3), "large": (90, 90)}, 0.9, "er")
    assert density["small"] == 1
    assert density["large"] == pytest.approx((0.1 * 8106 - 6) / 8100)


@given(st.data(), st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), SEEDS)
def test_n_m_keeps_n_of_every_group(
    data: st.DataObject, m: int, groups: int, outputs: int, seed: int
) -> None:
    n = data.draw(st.integers(0, m))
    for shape in ((m * groups, outputs), (groups, m, outputs)):
        flat = mask_of(NM(n, m), shape, seed).reshape(-1, outputs)
        for start in range(0, len(flat), m):
            assert (flat[start : start + m].sum(axis=0) == n).all()


@given(SHAPES, st.integers(1, 4), st.integers(1, 4), SPARSITIES, SEEDS)
def test_block_keeps_whole_blocks(
    shape: Shape, high: int, wide: int, sparsity: float, seed: int
) -> None:
    flat = mask_of(Block(sparsity, (high, wide)), shape, seed).reshape(-1, shape[-1])
    blocks = [
        flat[row : row + high, column : column + wide]
        for row in range(0, flat.shape[0], high)
        for column in range(0, flat.shape[1], wide)
    ]
    assert all(block.all() or not block.any() for block in blocks)
    assert sum(not block.any() for block in blocks) == round(sparsity * len(blocks))


@given(SHAPES, SPARSITIES, SEEDS)
def test_columns_mask_whole_outputs(shape: Shape, sparsity: float, seed: int) -> None:
    units = mask_of(Columns(sparsity), shape, seed).reshape(-1, shape[-1])
    assert (units == units[0]).all()
    assert (~units[0]).sum() == round(sparsity * shape[-1])


@given(SHAPES.filter(lambda shape: len(shape) > 1), SPARSITIES, SEEDS)
def test_rows_mask_whole_inputs(shape: Shape, sparsity: float, seed: int) -> None:
    units = np.moveaxis(mask_of(Rows(sparsity), shape, seed), -2, 0).reshape(shape[-2], -1)
    assert (units == units[:, :1]).all()
    assert (~units[:, 0]).sum() == round(sparsity * shape[-2])


def test_rows_keep_a_bias_whole() -> None:
    assert mask_of(Rows(0.9), (10,)).all()


def test_columns_of_a_kernel_and_its_bias_agree() -> None:
    shapes = {"a/kernel": (5, 40), "a/bias": (40,), "b/kernel": (5, 40)}
    masks = Columns(0.5).masks(shapes, 0)
    np.testing.assert_array_equal(masks["a/kernel"][0], masks["a/bias"])
    assert (masks["b/kernel"][0] != masks["a/bias"]).any()


def test_columns_by_index() -> None:
    mask = mask_of(Columns(indices=(0, 3)), (2, 5))
    np.testing.assert_array_equal(mask, [[False, True, True, False, True]] * 2)


# -- connections -----------------------------------------------------------------------------

WIDE = st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple)


@given(st.data(), WIDE, SEEDS)
def test_random_keeps_fans_and_the_exact_count(
    data: st.DataObject, shape: Shape, seed: int
) -> None:
    """Also with the smallest number of entries that can meet the limits."""
    size, inputs, units = int(np.prod(shape)), shape[-2], shape[-1]
    fan_in = data.draw(st.integers(0, size // units))
    fan_out = data.draw(st.integers(0, size // inputs))
    count = data.draw(st.integers(max(fan_in * units, fan_out * inputs, 1), size))
    scores = raw(size, seed, NAME).reshape(shape)
    mask = keep_connected(scores, count, min_fan_in=fan_in, min_fan_out=fan_out, name=NAME)
    assert mask.shape == shape
    assert mask.sum() == count
    others = tuple(range(len(shape) - 2))
    assert mask.sum(axis=(*others, -2)).min() >= fan_in
    assert mask.sum(axis=(*others, -1)).min() >= fan_out


@given(MANY, SPARSITIES, SEEDS)
def test_without_limits_or_with_those_that_hold_anyway_random_is_as_before(
    shapes: dict[str, Shape], sparsity: float, seed: int
) -> None:
    plain = Random(sparsity).masks(shapes, seed)
    for name, mask in plain.items():
        if mask.ndim < 2 or not mask.any():
            continue
        others = tuple(range(mask.ndim - 2))
        fans = mask.sum(axis=(*others, -2)).min(), mask.sum(axis=(*others, -1)).min()
        limits = {"min_fan_in": int(fans[0]), "min_fan_out": int(fans[1])}
        again = Random(sparsity, **limits).masks({name: shapes[name]}, seed)[name]
        np.testing.assert_array_equal(again, mask)


@pytest.mark.parametrize("distribution", ["uniform", "er", "erk"])
def test_a_dense_and_a_convolution_kernel_stay_connected(distribution: Any) -> None:
    """Without the limits, some units of the Dense kernel have no kept entry."""
    shapes = {"conv/kernel": (3, 3, 16, 32), "hidden/kernel": (64, 100), "hidden/bias": (100,)}
    plain = Random(0.95, distribution).masks(shapes, 0)
    connected = Random(0.95, distribution, 1, 1).masks(shapes, 0)
    for name, mask in connected.items():
        assert mask.sum() == plain[name].sum()
    np.testing.assert_array_equal(connected["hidden/bias"], plain["hidden/bias"])
    assert (plain["hidden/kernel"].sum(axis=0) == 0).any()
    for axes in ((0, 1, 2), (0, 1, 3)):
        assert connected["conv/kernel"].sum(axis=axes).min() >= 1
    for axis in (0, 1):
        assert connected["hidden/kernel"].sum(axis=axis).min() >= 1


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"min_fan_in": 1}, "1: must be at most 0: hidden/kernel keeps 64 entries for 100 units"),
        ({"min_fan_out": 2}, "2: must be at most 1: hidden/kernel keeps 64 entries for 64 inputs"),
        ({"min_fan_in": 65}, "65: must be at most 64, the entries of each unit of hidden/kernel"),
        ({"min_fan_in": -1}, "-1: must be 0 or more"),
    ],
)
def test_fans_that_the_density_cannot_give_are_refused(limits: Any, words: str) -> None:
    (key,) = limits
    with pytest.raises(Invalid, match=f"^{key}={words}"):
        Random(0.99, **limits).masks({NAME: (64, 100)}, 0)


def masked(mask: Any, held: float = 0.0, layer: str = "Dense", name: str = NAME) -> MaskedWeight:
    mask = np.asarray(mask, bool)
    weight = Weight(name, mask.shape, "float32", layer)
    return MaskedWeight(weight, mask, np.full(mask.shape, held, np.float32))


def test_what_is_cut_off_is_counted() -> None:
    plan = Plan((masked([[1, 0, 0], [0, 0, 0]]), masked([0, 0, 0], name="hidden/bias")))
    (counts,) = cut_off(plan)
    assert (counts.units, counts.units_in_all, counts.inputs, counts.inputs_in_all) == (2, 3, 1, 2)
    assert str(counts) == "hidden/kernel 2 of 3 units, 1 of 2 inputs"


def test_what_is_held_at_another_value_than_zero_is_connected() -> None:
    (counts,) = cut_off(Plan((masked(np.zeros((2, 3)), held=0.5),)))
    assert (counts.units, counts.inputs) == (0, 0)


@pytest.mark.parametrize(
    ("layer", "units", "inputs"),
    [("Conv2D", 4, 2), ("Conv2DTranspose", 2, 4), ("DepthwiseConv2D", 13, 2)],
)
def test_a_convolution_counts_filters_and_channels(layer: str, units: int, inputs: int) -> None:
    """Each kind of layer has its own axes of units and inputs; see `cut_off`."""
    mask = np.zeros((3, 3, 3, 5), bool)
    mask[1, 2, 0, 0] = mask[0, 0, 0, 0] = mask[2, 1, 0, 0] = True
    mask[1, 1, 0, 0] = True
    if layer == "DepthwiseConv2D":
        mask[0, 1, 0, 3] = True
    (counts,) = cut_off(Plan((masked(mask, layer=layer),)))
    assert (counts.units, counts.inputs) == (units, inputs)


def test_the_axes_are_those_of_keras_layers() -> None:
    import keras

    for layer, units, inputs in (
        (keras.layers.Dense(7), 7, 5),
        (keras.layers.Conv2D(7, 3), 7, 5),
        (keras.layers.Conv2DTranspose(7, 3), 7, 5),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 10, 5),
        (keras.layers.SeparableConv2D(7, 3, depth_multiplier=2), 10, 5),
        (keras.layers.EinsumDense("abc,cde->abde", (8, 2, 3)), 6, 5),
        (keras.layers.EinsumDense("abc,bcd->ad", 7), 7, 40),
    ):
        flat = isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense))
        shape = (8, 5) if flat else (8, 8, 5)
        model = keras.Sequential([keras.Input(shape), layer])
        kernel = next(w for w in describe(model) if w.is_kernel)
        masked_kernel = MaskedWeight(
            kernel, np.zeros(kernel.shape, bool), np.zeros(kernel.shape, "float32")
        )
        (counts,) = cut_off(Plan((masked_kernel,)))
        assert (counts.units, counts.units_in_all) == (units, units), layer.name
        assert (counts.inputs, counts.inputs_in_all) == (inputs, inputs), layer.name


# -- seeds -----------------------------------------------------------------------------------

GOLDEN = {
    "random": "64814d39bf6a08ad",
    "random er": "ddfa1537ce7114e4",
    "random erk": "1179f8e47b4eaee9",
    "n_m": "70c270e4850d93a7",
    "block": "5fedc4bec182b9f4",
    "rows": "8e46e0355b5489ad",
    "columns": "12eb86956355595e",
    "axis": "58ca4df79362828b",
    "fan_in": "b7c83c8dccdca5cb",
    "heads": "fc65ef4c2a4646c1",
    "n_m axis": "ea11b8fbf51637fc",
    "random global": "6fc863accd373eb5",
}


def test_every_seeded_pattern_is_tried() -> None:
    others = {
        "autoregressive", "band", "by_weight", "causal", "complement", "edges", "explicit", "file",
        "grasp", "intersection", "magnitude", "smallest", "snip", "synflow", "union", "window",
        "zeros",
    }  # fmt: skip
    assert {p.name for p in SEEDED.values()} == set(PATTERNS) - others


def test_masks_never_change() -> None:
    """If this fails, all trials that were recorded before would get other masks now."""
    assert digests() == GOLDEN


def test_masks_are_those_of_any_other_process() -> None:
    """Masks do not depend on Python's hash seed, and making them does not load TensorFlow."""
    code = "import sys\nfrom tests.support.patterns import digests\n"
    code += "print(digests(), 'tensorflow' in sys.modules)"
    for hashes in ("1", "2"):
        process = subprocess.run(
            [sys.executable, "-c", code],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hashes, "PYTHONSAFEPATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert process.stdout.strip() == f"{digests()} False"


CHECKS = {name: pattern_checks(pattern) for name, pattern in SEEDED.items()}
CHECKS["heads"] = pattern_checks(SEEDED["heads"], ATTENTION)
CHECKS["explicit"] = pattern_checks(Explicit([[1, 0], [0, 1]]), {NAME: (2, 2)}, seeded=False)
CHECKS["edges"] = pattern_checks(Edges(pairs=[(0, 1), (23, 35)]), seeded=False)
CHECKS["by_weight"] = pattern_checks(ByWeight({"a/*": "rows", "*": {"name": "block"}}))


@pytest.mark.parametrize(("name", "check"), [(n, check) for n in CHECKS for check in CHECKS[n]])
def test_every_pattern_passes_the_published_checks(name: str, check: str) -> None:
    CHECKS[name][check]()


@pytest.mark.parametrize(
    ("way", "check"),
    [
        ("seed", "depends on the seed"),
        ("hash", "is the same in another process"),
        ("global", "is the same again"),
        ("dtype", "fits the weights"),
    ],
)
def test_a_broken_pattern_fails(way: str, check: str) -> None:
    with pytest.raises(AssertionError):
        pattern_checks(Broken(way))[check]()


# -- explicit masks and files ----------------------------------------------------------------

GIVEN = SHAPES.flatmap(lambda shape: arrays(bool, shape))


@given(GIVEN)
def test_explicit_takes_what_is_written(mask: Mask) -> None:
    for form in (mask.tolist(), mask.astype(int).tolist(), mask.astype(float).tolist()):
        np.testing.assert_array_equal(mask_of(Explicit(form), mask.shape), mask)
        np.testing.assert_array_equal(mask_of(Explicit({NAME: form}), mask.shape), mask)


@given(GIVEN)
def test_file_takes_what_is_written(tmp_path_factory: pytest.TempPathFactory, mask: Mask) -> None:
    path = str(tmp_path_factory.mktemp("masks") / "masks.npz")
    for dtype in (bool, "int8", "float32"):
        np.savez(path, **{NAME: mask.astype(dtype), "other/kernel": np.ones(3)})
        np.testing.assert_array_equal(mask_of(File(path), mask.shape), mask)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([[0, 1], [1]], "ragged"),
        ([[0, 1, 1], [1, 0, 0]], r"shape \[2, 3\]"),
        ([0, 1], r"shape \[2\]"),
        (1, r"shape \[\]"),
        ([[0, 2], [1, 1]], "0 and 1 only"),
        ([[0, 0.5], [1, 1]], "0 and 1 only"),
        ([[0, np.nan], [1, 1]], "0 and 1 only"),
        ([[0, None], [1, 1]], "0 and 1 only"),
        ([["0", "1"], ["1", "1"]], "0 and 1 only"),
        ({"hidden/bias": [[0, 1], [1, 0]]}, "hidden/bias"),
        ({}, "a mask for each target"),
    ],
)
def test_explicit_refuses(mask: Any, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        mask_of(Explicit(mask), (2, 2))


def test_explicit_wants_names_for_two_weights() -> None:
    for mask in ([[1]], {"a/kernel": [[1]]}):
        with pytest.raises(Invalid, match="b/kernel"):
            Explicit(mask).masks({"a/kernel": (1, 1), "b/kernel": (1, 1)}, 0)


def test_file_refuses_what_does_not_fit(tmp_path: Path) -> None:
    path = str(tmp_path / "masks.npz")
    np.savez(path, **{NAME: np.ones((2, 2)), "values": np.full((2, 2), 0.5)})
    with pytest.raises(Invalid, match="other/kernel"):
        File(path).masks({NAME: (2, 2), "other/kernel": (2, 2)}, 0)
    with pytest.raises(Invalid, match=r"shape \[2, 2\]"):
        mask_of(File(path), (4,))
    with pytest.raises(Invalid, match="0 and 1 only"):
        File(path).masks({"values": (2, 2)}, 0)


def archive(**members: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez_compressed(stream, **members)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr(NAME, content)
    return stream.getvalue()


UNREADABLE: dict[str, bytes | None] = {
    "missing": None,
    "empty": b"",
    "text": b"hidden/kernel: 1",
    "pickle": pickle.dumps({NAME: 1}),
    "pickles in it": archive(kernel=np.array([{}], dtype=object)),
    "cut off": archive(kernel=np.ones(9))[:-30],
    "one array": npy(np.ones(3)),
    "no array in it": zipped(b"hello"),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE)
def test_file_must_be_an_npz(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "masks.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Invalid) as caught:
        File(str(path))
    assert (caught.value.key, caught.value.value) == ("path", str(path))


def test_a_file_that_holds_far_more_than_its_size_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "masks.npz"
    path.write_bytes(archive(kernel=np.zeros(100_000, bool)))
    assert path.stat().st_size < 2000
    assert len(read_arrays(str(path))["kernel"]) == 100_000
    monkeypatch.setattr(npz, "MAX_ARRAY_BYTES", 100_000)
    with pytest.raises(Invalid, match="more than 100000 bytes, packed or unpacked"):
        read_arrays(str(path))


def test_a_shape_that_is_not_that_of_the_data_is_refused(tmp_path: Path) -> None:
    """The shape is checked before memory for the array is allocated."""
    path = tmp_path / "masks.npz"
    stream = io.BytesIO()
    header = {"descr": "|b1", "fortran_order": False, "shape": (2**50,)}
    np.lib.format.write_array_header_1_0(stream, header)
    path.write_bytes(zipped(stream.getvalue() + bytes(10)))
    with pytest.raises(Invalid, match="not a readable"):
        read_arrays(str(path))


def test_a_damaged_file_is_refused_or_read(tmp_path: Path) -> None:
    """No damaged byte leads to another exception than `Invalid`."""
    path = tmp_path / "masks.npz"
    whole = archive(kernel=np.arange(40))
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            read_arrays(str(path))
        except Invalid:
            refused += 1
    assert refused > len(whole) / 2


# -- knobs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, float("nan"), float("inf")])
@pytest.mark.parametrize("name", PATTERNS)
def test_sparsity_is_in_0_1(name: str, sparsity: float) -> None:
    pattern: Any = PATTERNS[name]
    if "sparsity" in [f.name for f in fields(pattern)]:
        with pytest.raises(Invalid, match="sparsity="):
            pattern(sparsity=sparsity)


@pytest.mark.parametrize("sparsity", ["0.9", None, [0.9], 1j, False])
@pytest.mark.parametrize("make", [Random, Rows, Block, SNIP, Smallest])
def test_a_sparsity_is_a_number(make: Any, sparsity: Any) -> None:
    with pytest.raises(Invalid) as caught:
        make(sparsity)
    assert str(caught.value) == f"sparsity={sparsity!r}: must be a number in [0, 1)"


@pytest.mark.parametrize("number", [0, 0.5, np.float32(0.5), np.float64(0.5), np.int64(0)])
def test_a_sparsity_may_be_a_number_of_numpy(number: Any) -> None:
    assert mask_of(Random(number), (4,)).mean() == 1 - number


@pytest.mark.parametrize("indices", [3, "3", [0.5], [None], [], [1, 1], [[0, 1]], iter([1])])
def test_indices_are_whole_numbers(indices: Any) -> None:
    for make in (Rows, Columns):
        with pytest.raises(
            Invalid, match=r"^indices=.*: must be units, each once, counted from 0$"
        ):
            make(indices=indices)


@pytest.mark.parametrize("indices", [range(1, 3), (1, 2), [2, 1], {1, 2}, np.array([1, 2])])
def test_indices_may_be_of_several_types(indices: Any) -> None:
    assert np.flatnonzero(~mask_of(Columns(indices=indices), (4,))).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: NM(3, 2), "n"),
        (lambda: NM(-1, 2), "n"),
        (lambda: NM(0, 0), "m"),
        (lambda: NM(2, 4).masks({NAME: (6, 2)}, 0), "m"),
        (lambda: Block(0.5, (0, 4)), "block"),
        (lambda: Random(0.5, "even"), "distribution"),  # type: ignore[arg-type]
        (lambda: Columns(indices=(-1,)), "indices"),
        (lambda: Columns(indices=(2,)).masks({NAME: (3, 2)}, 0), "indices"),
        (lambda: Explicit(), "mask"),
        (lambda: File(), "path"),
    ],
)
def test_refuses(make: Any, key: str) -> None:
    with pytest.raises(Invalid) as caught:
        make()
    assert caught.value.key == key


class FewNumbers:
    """A generator of random integers, many of which are equal."""

    def __init__(self, seed: int, name: str) -> None:
        self.generator = np.random.PCG64(seed)

    def random_raw(self, size: int) -> Any:
        return self.generator.random_raw(size) >> np.uint64(61) << np.uint64(self.shift)

    shift = 0


@pytest.mark.parametrize("shift", [None, 0, 46, 47, 60])
def test_large_masks_are_made_in_parts(shift: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are those of all integers at once, also if integers or their upper bits are equal."""
    monkeypatch.setattr(drawing, "RAW_PART", 64)
    if shift is not None:
        monkeypatch.setattr(FewNumbers, "shift", shift)
        monkeypatch.setattr(drawing, "_generator", FewNumbers)
    for size in (1, 64, 65, 1000):
        for count in {0, 1, size // 3, size - 1, size}:
            mask = keep_lowest_of_raw(size, count, seed=size, name="a/kernel")
            assert (mask == keep_lowest(raw(size, size, "a/kernel"), count)).all(), (size, count)
