"""Tests of the patterns with a structure: slices, bands, fan-in, groups, causal and MADE masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

from masksweep import strategies
from masksweep.strategies import (
    NM,
    SNIP,
    ByWeight,
    Columns,
    Complement,
    Intersection,
    Invalid,
    Random,
    Union,
)
from masksweep.strategies.patterns import Pattern, combined
from masksweep.strategies.patterns.autoregressive import Autoregressive
from masksweep.strategies.patterns.axis import Axis
from masksweep.strategies.patterns.band import Band
from masksweep.strategies.patterns.block import Block
from masksweep.strategies.patterns.causal import Causal
from masksweep.strategies.patterns.fan_in import FanIn
from masksweep.strategies.patterns.heads import Heads
from masksweep.strategies.patterns.rows import Rows
from masksweep.strategies.patterns.smallest import Smallest
from masksweep.strategies.patterns.window import Window
from masksweep.strategies.patterns.zeros import Zeros
from masksweep.strategies.plan import Mask
from tests.support.patterns import ATTENTION

Shape = tuple[int, ...]
NAME = "hidden/kernel"
SHAPES = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)
SEEDS = st.integers(0, 2**40)


def mask_of(pattern: Pattern, shape: Shape, seed: int = 0) -> Mask:
    mask = pattern.masks({NAME: shape}, seed)[NAME]
    assert (mask.shape, mask.dtype) == (shape, np.dtype(bool))
    return mask


@given(SHAPES, st.data(), st.floats(0, 1, exclude_max=True), SEEDS)
def test_axis_masks_whole_slices(shape: Shape, data: Any, sparsity: float, seed: int) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    slices = np.moveaxis(mask_of(Axis(axis, sparsity), shape, seed), axis, 0)
    whole = slices.reshape(shape[axis], -1)
    assert (whole == whole[:, :1]).all()
    assert (~whole[:, 0]).sum() == round(sparsity * shape[axis])


def smallest_first(norms: list[int], sparsity: float) -> Mask:
    """Returns a mask of the slices: those with the smallest norms are masked, the first first."""
    order = sorted(range(len(norms)), key=lambda i: (norms[i], i))
    return ~np.isin(np.arange(len(norms)), order[: round(sparsity * len(norms))])


@given(SHAPES, st.data(), st.floats(0, 1, exclude_max=True), st.sampled_from(["l1", "l2"]), SEEDS)
def test_slices_with_the_smallest_norms_are_masked(
    shape: Shape, data: Any, sparsity: float, by: Any, seed: int
) -> None:
    """Small whole numbers have exact norms, and often equal ones."""
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    weight = np.random.default_rng(seed).integers(-6, 7, shape)
    slices = np.abs(np.moveaxis(weight, axis, 0).reshape(shape[axis], -1))
    norms = (slices ** (1 if by == "l1" else 2)).sum(axis=1).tolist()
    for pattern in (Axis(axis, sparsity, by=by), Columns(sparsity, by=by), Rows(sparsity, by=by)):
        if isinstance(pattern, Columns) and axis % len(shape) != len(shape) - 1:
            continue
        if isinstance(pattern, Rows) and axis % len(shape) != len(shape) - 2:
            continue
        mask = pattern.from_weights({NAME: weight.astype("float32")}, seed)[NAME]
        assert (mask.shape, mask.dtype) == (shape, np.dtype(bool))
        whole = np.moveaxis(mask, axis, 0).reshape(shape[axis], -1)
        assert (whole == smallest_first(norms, sparsity)[:, None]).all()
        assert mask_of(pattern, shape, seed).sum() == mask.sum()


@given(
    SHAPES,
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["l1", "l2"]),
    SEEDS,
)
def test_blocks_with_the_smallest_norms_are_masked(
    shape: Shape, sides: tuple[int, int], sparsity: float, by: Any, seed: int
) -> None:
    weight = np.random.default_rng(seed).integers(-6, 7, shape)
    pattern = Block(sparsity, sides, by)
    mask = pattern.from_weights({NAME: weight.astype("float32")}, seed)[NAME]
    assert (mask.shape, mask.dtype) == (shape, np.dtype(bool))
    flat, kept = (array.reshape(-1, shape[-1]) for array in (np.abs(weight), mask))
    corners = [
        np.s_[row : row + sides[0], column : column + sides[1]]
        for row in range(0, flat.shape[0], sides[0])
        for column in range(0, flat.shape[1], sides[1])
    ]
    norms = [int((flat[corner] ** (1 if by == "l1" else 2)).sum()) for corner in corners]
    for corner, whole in zip(corners, smallest_first(norms, sparsity), strict=True):
        assert (kept[corner] == whole).all()


def test_a_block_is_ranked_by_its_norm() -> None:
    weights = {NAME: np.array([[3.0, 0, 2, 2], [0, 0, 0, 0]])}
    masks = [Block(0.5, (2, 2), by).from_weights(weights, 0)[NAME] for by in ("l1", "l2")]  # type: ignore[arg-type]
    assert [mask[0].tolist() for mask in masks] == [
        [False, False, True, True],
        [True, True, False, False],
    ]


def test_the_two_norms_differ() -> None:
    weights = {NAME: np.array([[3.0, 2.0], [0.0, 2.0]])}
    other = {NAME: np.array([[3.0, 2.0], [0.0, 2.0], [0.0, 2.0]])}
    assert Columns(0.5, by="l2").from_weights(other, 0)[NAME].tolist() == [[False, True]] * 3
    assert Columns(0.5, by="l1").from_weights(weights, 0)[NAME].tolist() == [[False, True]] * 2
    assert Columns(0.5, by="l2").from_weights(weights, 0)[NAME].tolist() == [[True, False]] * 2


def test_a_units_kernel_and_bias_are_masked_together() -> None:
    """Their norm is that of both; a weight with other units has norms of its own."""
    weights = {
        "a/kernel": np.array([[0.0, 2.0, 1.0], [0.0, 1.0, 0.0]]),
        "a/bias": np.array([3.0, 0.0, 1.0]),
        "a/depthwise_kernel": np.array([[1.0, 0.0]]),
        "b/kernel": np.array([[0.0, 9.0, 9.0]]),
    }
    masks = Columns(0.4, by="l1").from_weights(weights, 0)
    assert masks["a/kernel"].tolist() == [[True, True, False]] * 2
    assert masks["a/bias"].tolist() == [True, True, False]
    assert masks["a/depthwise_kernel"].tolist() == [[True, False]]
    assert masks["b/kernel"].tolist() == [[False, True, True]]


def test_axis_and_rows_by_index() -> None:
    assert (~mask_of(Axis(1, indices=(0, 2)), (2, 3, 4))).sum(axis=(0, 2)).tolist() == [8, 0, 8]
    assert mask_of(Rows(indices=range(2)), (3, 2)).astype(int).tolist() == [[0, 0], [0, 0], [1, 1]]


def kept_heads(masks: dict[str, Mask]) -> dict[str, list[int]]:
    """Returns the heads of each weight that are kept; each is kept or masked as a whole."""
    kept = {}
    for name, mask in masks.items():
        axis = 0 if "output" in name or name.endswith("bias") else 1
        heads = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1)
        assert (heads == heads[:, :1]).all()
        kept[name] = np.flatnonzero(heads[:, 0]).tolist()
    return kept


@given(st.floats(0, 1, exclude_max=True), SEEDS)
def test_a_head_is_masked_in_all_kernels_of_its_layer(sparsity: float, seed: int) -> None:
    """A key is masked if both heads that use it are."""
    kept = kept_heads(Heads(sparsity).masks(ATTENTION, seed))
    for layer in ("first/attention", "second/attention"):
        heads = kept[f"{layer}/query/kernel"]
        assert len(heads) == 8 - round(sparsity * 8)
        assert kept[f"{layer}/query/bias"] == kept[f"{layer}/attention_output/kernel"] == heads
        assert kept[f"{layer}/key/kernel"] == sorted({head // 2 for head in heads})
        assert kept[f"{layer}/attention_output/bias"] == [*range(12)]


def test_two_attention_layers_of_one_name_have_heads_of_their_own() -> None:
    shape, names = (4, 16, 2), [f"a/{p}/kernel{n}" for p in ("query", "value") for n in ("", "#1")]
    query, other_query, value, other_value = kept_heads(
        Heads().masks(dict.fromkeys(names, shape), 0)
    ).values()
    assert query == value != other_query == other_value


def test_the_heads_with_the_smallest_norms_are_masked() -> None:
    """The norm of a head is that of all its weights, with the key that it shares with another."""
    weights = {
        "a/query/kernel": np.array([[[3.0], [0], [1], [1]]]),
        "a/key/kernel": np.array([[[0.0], [2]]]),
        "a/attention_output/kernel": np.array([[[0.0]], [[2]], [[2]], [[1]]]),
    }
    # l1: 3, 2, 1 + 2 + 2, 1 + 2 + 1; the squares of l2: 9, 4, 1 + 4 + 4, 1 + 4 + 1
    for by, heads, keys in (("l1", [2, 3], [1]), ("l2", [0, 2], [0, 1])):
        kept = kept_heads(Heads(by=by).from_weights(weights, 0))  # type: ignore[arg-type]
        assert kept == dict(zip(weights, (heads, keys, heads), strict=True))


def make_model(make: Any) -> Any:
    keras.utils.set_random_seed(3)
    start = keras.Input((5, 6))
    return keras.Model(start, layers.Dense(2)(make()(start, start)))


@pytest.mark.parametrize(
    ("make", "masked_keys"),
    [
        (lambda: layers.MultiHeadAttention(4, 3, name="attention"), [1, 2, 3]),
        (lambda: layers.GroupQueryAttention(3, 4, 2, name="attention"), [1]),
    ],
)
def test_a_model_with_masked_heads_is_that_without_their_outputs(
    make: Any, masked_keys: list[int]
) -> None:
    model = make_model(make)
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    # what the heads 1, 2 and 3 give is multiplied by zero, and nothing else of the model changes
    output = next(v for v in model.weights if "attention_output/kernel" in v.path)
    kernel = output.numpy()
    output.assign(kernel * np.array([1, 0, 0, 0])[:, None, None])
    expected = model(x).numpy()
    output.assign(kernel)
    assert np.abs(model(x) - expected).max() > 0.01

    by_default = strategies.apply(make_model(make), Heads(indices=(1, 2, 3)))
    np.testing.assert_allclose(by_default.export_plain()(x), expected, atol=1e-6)
    targets = ["*attention*/*kernel", "*attention*/*bias"]
    masked = strategies.apply(model, Heads(indices=(1, 2, 3)), targets=targets)
    np.testing.assert_allclose(masked(x), expected, atol=1e-6)
    for part, heads in (("query", [1, 2, 3]), ("key", masked_keys), ("value", masked_keys)):
        kernel = masked.dense_weights()[f"attention/{part}/kernel"]
        assert np.flatnonzero((kernel == 0).all(axis=(0, 2))).tolist() == heads


@given(SHAPES, st.none() | st.integers(0, 4), st.none() | st.integers(0, 4))
def test_band_keeps_the_diagonals_of_numpy(
    shape: Shape, lower: int | None, upper: int | None
) -> None:
    mask = mask_of(Band(lower, upper), shape)
    if len(shape) == 1:
        assert mask.all()
        return
    full = np.ones(shape[-2:], bool)
    expected = np.tril(
        np.triu(full, -99 if lower is None else -lower), 99 if upper is None else upper
    )
    assert (mask == expected).all()


@given(SHAPES, st.integers(1, 5), SEEDS)
def test_fan_in_is_constant(shape: Shape, count: int, seed: int) -> None:
    inputs = int(np.prod(shape[:-1]))
    if len(shape) > 1 and count > inputs:
        with pytest.raises(Invalid, match=f"count={count}: must be at most {inputs}"):
            mask_of(FanIn(count), shape, seed)
        return
    mask = mask_of(FanIn(count), shape, seed).reshape(-1, shape[-1])
    assert mask.sum(axis=0).tolist() == [count if len(shape) > 1 else 1] * shape[-1]


@given(SHAPES, st.data(), st.integers(1, 6), SEEDS)
def test_n_m_along_an_axis_may_end_in_a_shorter_group(
    shape: Shape, data: Any, m: int, seed: int
) -> None:
    axis, n = data.draw(st.integers(-len(shape), len(shape) - 1)), data.draw(st.integers(0, m))
    mask = np.moveaxis(mask_of(NM(n, m, axis, "shorter"), shape, seed), axis, 0)
    for start in range(0, shape[axis], m):
        group = mask[start : start + m]
        assert (group.sum(axis=0) == min(n, len(group))).all()
    if shape[axis] % m:
        with pytest.raises(Invalid, match=f"m={m}: must be a divisor of the {shape[axis]} entries"):
            mask_of(NM(n, m, axis), shape, seed)


@given(SHAPES, st.data(), st.integers(1, 6), SEEDS)
def test_n_m_keeps_the_largest_of_each_group(shape: Shape, data: Any, m: int, seed: int) -> None:
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    n = data.draw(st.integers(0, m))
    pattern = NM(n, m, axis, "shorter", "magnitude")
    weight = np.random.default_rng(seed).integers(-3, 4, shape)
    mask = pattern.from_weights({NAME: weight.astype("float16")}, seed)[NAME]
    assert (mask.shape, mask.dtype) == (shape, np.dtype(bool))
    assert mask_of(pattern, shape).sum() == mask.sum()
    rows = (-1, shape[-1]) if axis is None else shape
    along = [np.moveaxis(a.reshape(rows), axis or 0, 0) for a in (np.abs(weight), mask)]
    sizes, mask = (a.reshape(len(a), -1) for a in along)
    for start in range(0, len(sizes), m):
        for group, kept in zip(sizes[start : start + m].T, mask[start : start + m].T, strict=True):
            order = sorted(range(len(group)), key=lambda i: (-group[i], i))
            assert sorted(order[:n]) == np.flatnonzero(kept).tolist()


def test_two_of_four_as_sparse_tensor_cores_need_it() -> None:
    """The groups are along the inputs, as in the paper; of equal magnitudes, the first is kept."""
    weight = np.array([[1.0, 0.5], [-4, 0.5], [2, 0.5], [3, 0.5]])
    mask = NM(by="magnitude").from_weights({NAME: weight}, 0)[NAME]
    assert mask.T.astype(int).tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]


@given(st.lists(SHAPES, min_size=1, max_size=4), st.floats(0, 1, exclude_max=True), SEEDS)
def test_a_global_budget_is_exact_over_all_weights(
    shapes: list[Shape], sparsity: float, seed: int
) -> None:
    named = {f"layer{i}/kernel": shape for i, shape in enumerate(shapes)}
    masks = Random(sparsity, "global").masks(named, seed)
    size = sum(m.size for m in masks.values())
    assert sum(int((~m).sum()) for m in masks.values()) == round(sparsity * size)


@given(SHAPES, SEEDS)
def test_patterns_are_combined(shape: Shape, seed: int) -> None:
    first, second = Random(0.5), Columns(0.5)
    one = mask_of(first, shape, seed)
    other = mask_of(second, shape, combined._seed(seed, 1))
    settings = {"name": "random", "sparsity": 0.5}
    assert (mask_of(Union((first, second)), shape, seed) == one & other).all()
    assert (mask_of(Union((settings, "columns")), shape, seed) == one & other).all()
    assert (mask_of(Intersection((first, second)), shape, seed) == one | other).all()
    assert (mask_of(Complement(settings), shape, seed) == ~one).all()


def test_the_parts_of_a_union_are_independent() -> None:
    mask = mask_of(Union((Random(0.5), Random(0.5))), (200, 200))
    assert mask.mean() == pytest.approx(0.25, abs=0.02)


def test_combined_patterns_see_the_weights() -> None:
    weights = {NAME: np.array([[0.0, 3.0], [-1.0, 0.0]])}
    masks = Union((Zeros(), Columns(indices=(1,)))).from_weights(weights, 0)
    assert masks[NAME].tolist() == [[False, False], [True, False]]


@given(st.lists(SHAPES, min_size=1, max_size=4), st.floats(0, 1, exclude_max=True), SEEDS)
def test_smallest_keeps_the_largest(shapes: list[Shape], sparsity: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    weights = {f"layer{i}/kernel": generator.normal(size=s) for i, s in enumerate(shapes)}
    for scope in ("weight", "global"):
        masks = Smallest(sparsity, scope).from_weights(weights, 0)  # type: ignore[arg-type]
        kept, sizes = masks, {name: np.abs(w) for name, w in weights.items()}
        if scope == "global":
            sizes = {"all": np.concatenate([a.ravel() for a in sizes.values()])}
            kept = {"all": np.concatenate([m.ravel() for m in masks.values()])}
        for name, mask in kept.items():
            assert (~mask).sum() == round(sparsity * mask.size)
            if mask.any() and not mask.all():
                assert sizes[name][~mask].max() <= sizes[name][mask].min()


def test_smallest_can_rank_the_weights_of_a_checkpoint(tmp_path: Path) -> None:
    path = str(tmp_path / "trained.npz")
    trained_weights = {NAME: np.array([[1.0, -4.0], [3.0, 2.0]]), "b/kernel": np.ones(3)}
    np.savez(path, **trained_weights)
    start = {NAME: np.array([[9.0, 0.0], [0.0, 9.0]])}
    pattern = Smallest(0.5, path=path)
    expected = [[False, True], [True, False]]
    assert pattern.from_weights(start, 0)[NAME].tolist() == expected
    assert mask_of(pattern, (2, 2)).tolist() == expected
    assert Smallest(0.5).from_weights(start, 0)[NAME].tolist() != expected
    both = Smallest(4 / 7, "global", path).masks({NAME: (2, 2), "b/kernel": (3,)}, 0)
    assert both["b/kernel"].tolist() == [False, False, False]
    for shape, words in (((4,), "float64 of shape (2, 2)"), ((2, 3), "shape (2, 3) for hidden")):
        with pytest.raises(Invalid, match="path=") as error:
            mask_of(pattern, shape)
        assert words in str(error.value)
    with pytest.raises(Invalid, match="a file with weights for c/kernel"):
        pattern.masks({"c/kernel": (2, 2)}, 0)
    for wrong in (np.array([[1, np.nan]]), np.array([["a", "b"]]), np.array([[True, False]])):
        np.savez(path, **{NAME: wrong})
        with pytest.raises(Invalid, match="a file with numbers of shape"):
            mask_of(pattern, (1, 2))
    with pytest.raises(Invalid, match="no such file"):
        Smallest(path=str(tmp_path / "none.npz"))


def test_another_pattern_for_each_weight() -> None:
    shapes = {"a/kernel": (8, 6), "b/kernel": (8, 6), "c/kernel": (6, 6), "c/bias": (6,)}
    half = {"name": "random", "sparsity": 0.5, "distribution": "global"}
    of = {"b/*": "columns", "[ab]/kernel": Random(0.5, "global"), "c/kernel": half}
    for choice in (of, [*of.items()], [[g, p] for g, p in of.items()]):
        masks = ByWeight(choice).masks(shapes, 7)
        assert list(masks) == list(shapes)
        assert (masks["b/kernel"] == Columns().masks(shapes, 7)["b/kernel"]).all()
        for name in ("a/kernel", "c/kernel"):
            alone = Random(0.5, "global").masks({name: shapes[name]}, 7)[name]
            assert (masks[name] == alone).all()
        assert masks["c/bias"].all()
    one = ByWeight({"*/kernel": Random(0.5, "global")}).masks(shapes, 7)
    assert sum(int((~m).sum()) for m in one.values()) == round(0.5 * (48 + 48 + 36))
    sees = ByWeight({"a/*": "zeros", "*": Smallest(0.5, "global")})
    weights = {n: np.arange(np.prod(s)).reshape(s) for n, s in shapes.items()}
    assert (~sees.from_weights(weights, 0)["a/kernel"]).sum() == 1
    assert not sees.from_weights(weights, 0)["c/bias"].any()


@pytest.mark.parametrize(
    "choice",
    [
        {"first/kernel": Columns(0.5, by="l2"), "*": Smallest(0.5, "global")},
        {"first/kernel": SNIP(0.5), "*": Random(0.5)},
    ],
    ids=["values", "gradients"],
)
def test_apply_takes_a_dict_as_by_weight_does(choice: dict[str, Pattern]) -> None:
    def masks_of(pattern: Any) -> list[Mask]:
        keras.utils.set_random_seed(3)
        model = keras.Sequential(
            [keras.Input((5,)), layers.Dense(6, name="first"), layers.Dense(6, name="second")]
        )
        x, y = np.random.default_rng(0).normal(size=(2, 32, 6))
        masked = strategies.apply(
            model, pattern, targets=["*/kernel"], seed=4, data=(x[:, :5], y), loss="mse"
        )
        return [w.mask for w in masked.plan.weights]

    pairs = [*zip(masks_of(choice), masks_of(ByWeight(choice)), strict=True)]
    assert all((first == second).all() for first, second in pairs)
    assert [int(mask.sum()) for mask, _ in pairs] == [15, 18]
    assert ByWeight(choice).needs_model == isinstance(choice["first/kernel"], SNIP)


def test_what_a_pruned_model_has_as_zeros_stays_zero() -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(6), layers.Dense(1)])
    kernel = model.layers[0].kernel
    pruned = Smallest(0.5).from_weights({NAME: kernel.numpy()}, 0)[NAME]
    kernel.assign(np.where(pruned, kernel, 0))
    plain, _ = trained(model, Zeros())
    assert ((plain.layers[0].kernel.numpy() != 0) == pruned).all()
    assert (plain.layers[1].kernel.numpy() != 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mask_of(Axis(2), (3, 4)), "axis=2: must be an axis of hidden/kernel, which has 2"),
        (lambda: mask_of(Axis(0, indices=(3,)), (3, 4)), "below 3, the length of axis 0"),
        (lambda: mask_of(NM(axis=2), (4, 4)), "axis=2: must be an axis of"),
        (lambda: NM(remainder="drop"), "remainder=drop: must be refuse or shorter"),  # type: ignore[arg-type]
        (lambda: NM(by="l1"), "by=l1: must be random or magnitude"),  # type: ignore[arg-type]
        (lambda: NM(2, 3, by="magnitude").masks({NAME: (4, 4)}, 0), "a divisor of the 4 inputs"),
        (lambda: Rows(by="l3"), "by=l3: must be random, l1 or l2"),  # type: ignore[arg-type]
        (lambda: Block(by="norm"), "by=norm: must be random, l1 or l2"),  # type: ignore[arg-type]
        (lambda: Axis(indices=(1,), by="l1"), "by=l1: must be random if indices is given"),
        (lambda: mask_of(Axis(2, by="l1"), (3, 4)), "axis=2: must be an axis of hidden/kernel"),
        (lambda: ByWeight(), "of=None: must be patterns by glob on weight names"),
        (lambda: ByWeight({}), "of={}: must be patterns by glob"),
        (lambda: ByWeight(["random"]), "must be patterns by glob"),
        (lambda: ByWeight([("a", "random"), ("a", "rows")]), "globs, each once"),
        (lambda: ByWeight({"*": "colums"}), "of=colums: must have the name of a pattern"),
        (lambda: ByWeight({"*": None}), "of=None: must have the name of a pattern"),
        (lambda: ByWeight({"*": "magnitude"}), "a pattern without rounds"),
        (lambda: ByWeight({"*": {"name": "edges", "path": "x.csv"}}), "path=x.csv: no such file"),
        (
            lambda: mask_of(ByWeight({"hid*": "band", "out*": "band"}), (3, 4)),
            "of=out*: matches no weight; the weights are hidden/kernel",
        ),
        (
            lambda: Union([{"name": "by_weight", "of": {"*": "band"}}]),
            "with pairs [glob, pattern], because the order of globs counts",
        ),
        (lambda: mask_of(Rows(indices=(3,)), (3, 4)), "below 3, the inputs of hidden/kernel"),
        (lambda: Rows(indices=(1, 1)), "each once"),
        (
            lambda: mask_of(Heads(), (3, 4)),
            "targets=hidden/kernel: must be weights of attention layers only, such as "
            'targets=["*/query/kernel"]',
        ),
        (lambda: Heads().masks({"a/query/kernel": (3, 4)}, 0), "targets=a/query/kernel"),
        (
            lambda: Heads().masks({"a/query/kernel": (3, 4, 2), "a/key/kernel": (3, 3, 2)}, 0),
            "a/key/kernel=3: must be heads of which the layer has a multiple; it has 4",
        ),
        (
            lambda: Heads(indices=(1, 8)).masks(ATTENTION, 0),
            "indices=[8]: must be below 8, the heads of first/attention",
        ),
        (lambda: Band(lower=-1), "lower=-1: must be 0 or more"),
        (lambda: Smallest(0.5, "layer"), "scope=layer: must be weight or global"),  # type: ignore[arg-type]
        (lambda: Union(()), "of=(): must be a list of patterns"),
        (lambda: Union(Random(0.5)), "must be a list of patterns"),  # type: ignore[arg-type]
        (lambda: Complement(), "of=None: must be a pattern"),
        (lambda: Union(("colums",)), "of=colums: must have the name of a pattern: autoregressive"),
        (lambda: Union((0.5,)), "of=0.5: must have the name of a pattern"),
        (lambda: Union(("magnitude",)), "of=magnitude: must be a pattern without rounds"),
        (lambda: Union(({"name": "file", "path": "x"},)), "path=x: no such file"),
        (lambda: Complement({"name": "rows", "share": 1}), "must have settings of rows"),
        (lambda: Complement({"name": "rows", "sparsity": 2}), "sparsity=2: must be"),
        (lambda: FanIn(0), "count=0: must be 1 or more"),
        (lambda: Causal("C"), "kind=C: must be A or B"),  # type: ignore[arg-type]
        (lambda: Window(), "kept=None: must be nested lists of 0 and 1"),
        (
            lambda: mask_of(Window([[0, 1]]), (3, 3, 2, 4)),
            "window of hidden/kernel=shape [1, 2]: must be of shape [3, 3]",
        ),
        (
            lambda: mask_of(Window([0, 2]), (2, 3, 4)),
            "window of hidden/kernel=[2]: must be 0 and 1",
        ),
        (lambda: mask_of(Autoregressive(), (3, 4)), "two or more kernels"),
        (
            lambda: Autoregressive().masks({"a/kernel": (3, 4), "b/kernel": (5, 3)}, 0),
            r"b/kernel=[5, 3]: must be a kernel [4, units]",
        ),
        (
            lambda: Autoregressive().masks({"a/kernel": (3, 4), "b/kernel": (4, 4)}, 0),
            "a multiple of the 3 inputs",
        ),
        (
            lambda: Autoregressive().masks({"a/kernel": (1, 4), "b/kernel": (4, 4)}, 0),
            "two inputs or more",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call: Any, words: str) -> None:
    with pytest.raises(Invalid) as error:
        call()
    assert words in str(error.value)


# -- what the masks are for, seen in the gradients of a trained model ---------------------------


def dependence(model: Any, x: Any) -> Mask:
    """Returns which outputs depend on which inputs, `[outputs, inputs]`, for one sample."""
    x = tf.constant(x[:1], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reshape(model(x), [-1])
    jacobian = tape.jacobian(y, x)
    return np.asarray(jacobian).reshape(y.shape[0], -1) != 0


def trained(model: Any, pattern: Any) -> Any:
    """Returns the exported plain model, after some steps with AdamW."""
    masked = strategies.apply(model, pattern)
    masked.compile(keras.optimizers.AdamW(0.05, weight_decay=0.1), "mse")
    shape = (32, *model.input_shape[1:])
    x = np.random.default_rng(0).normal(size=shape)
    masked.fit(x, np.zeros((32, *model.output_shape[1:])), verbose=0, epochs=3)
    assert strategies.audit(masked).ok
    return masked.export_plain(), x


@pytest.mark.parametrize("shuffled", [False, True])
def test_an_autoregressive_model_looks_at_earlier_inputs_only(shuffled: bool) -> None:
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(24, "tanh"),
            layers.Dense(24, "tanh"),
            layers.Dense(10),  # two outputs for each input
        ]
    )
    plain, x = trained(model, Autoregressive(shuffled))
    depends = dependence(plain, x).reshape(5, 2, 5)
    for i in range(5):
        assert not depends[i, :, i:].any()
        assert depends[i, :, :i].all()


@pytest.mark.parametrize("window", [(5,), (3, 3), (4, 2)])
def test_a_causal_model_looks_at_earlier_places_only(window: Shape) -> None:
    keras.utils.set_random_seed(3)
    convolution: Any = layers.Conv1D if len(window) == 1 else layers.Conv2D
    options = {"padding": "same", "activation": "tanh"}
    model = keras.Sequential(
        [
            keras.Input((7, 1) if len(window) == 1 else (4, 4, 1)),
            convolution(6, window, name="first", **options),
            convolution(6, window, name="later", **options),
            convolution(1, window, name="last", **options),
        ]
    )
    masks = {"first/kernel": Causal("A"), "*/kernel": Causal("B")}
    plain, x = trained(model, masks)
    depends = dependence(plain, x)
    assert not np.triu(depends).any()
    row = 1 if len(window) == 1 else 4
    above = np.diagonal(depends, -row)  # the place before, or that in the row above
    assert above.all()


def test_a_window_is_the_same_for_all_channels() -> None:
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    shapes: dict[str, Shape] = {"conv/kernel": (3, 3, 2, 4), "output/kernel": (8, 3)}
    for kept in (cross, cross.tolist()):
        masks = Window(kept).masks(shapes, seed=0)
        for channel, filter_ in np.ndindex(2, 4):
            np.testing.assert_array_equal(masks["conv/kernel"][:, :, channel, filter_], cross)
        assert masks["output/kernel"].all()
    (mask,) = Window([0, 1, 1]).masks({"conv/kernel": (3, 2, 4)}, seed=0).values()
    assert not mask[0].any()
    assert mask[1:].all()
