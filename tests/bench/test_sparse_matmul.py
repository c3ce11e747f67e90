"""Tests of TensorFlow's table of sparse against dense products: its figures, ours, the claims."""

from __future__ import annotations

import io
from collections.abc import Callable
from math import inf, isfinite

import numpy as np
import pytest
from rich.console import Console

from masksweep.sweeps.bench import sparse_matmul
from masksweep.sweeps.bench.sparse_matmul import (
    COLUMN_COUNTS,
    PRODUCTS,
    Cell,
    Dense,
    Product,
    Ratios,
    Result,
    published,
)
from masksweep.sweeps.bench.sparse_matmul_report import bracket, check_claims, crossing_table, table
from masksweep.sweeps.training import timing

OLD = {row.cell: row.ratio for row in published()}
CROSSINGS = {1: inf, 10: 0.37, 25: 0.096, 128: 0.02}
"""Crossover densities by columns of B. Each lies between the two published densities."""
KERNELS = {"sparse": "SparseTensorDenseMatMul", "flagged": "SparseMatMul", "plain": "MatMul"}


def test_the_figures_are_those_of_tensorflows_documentation() -> None:
    import tensorflow as tf

    lines = [line.split() for line in tf.sparse.sparse_dense_matmul.__doc__.splitlines()]
    rows = [line for line in lines if len(line) == 8 and line[2] == "False"]
    if not rows:
        pytest.skip("this TensorFlow has the table no more")
    assert len(rows) == 48
    documented = []
    for density, n, _, m, k, *figures in rows:
        cell = Cell(float(density), int(n), int(m), int(k))
        documented.append(sparse_matmul.PublishedRow(cell, *map(float, figures)))
    assert documented == published()


def test_a_published_ratio_is_that_of_its_times() -> None:
    for row in published():
        assert row.ratio == pytest.approx(row.sparse_s / row.dense_s, rel=1e-5)


@pytest.mark.parametrize("product", PRODUCTS)
def test_each_iteration_needs_the_product_before(product: Product) -> None:
    dense, sparse, b = sparse_matmul.operands(Cell(0.5, 2, 3, 5))
    a, expected = dense.numpy(), b.numpy()
    a_operand = sparse if product == "sparse" else dense
    for _ in range(4):
        first = expected if product == "loop" else a @ expected
        expected = expected + np.float32(0.5) * first[0, 0]
    actual = sparse_matmul.repeated_product(product)(a_operand, b, 0.5, 4)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    np.testing.assert_array_equal(sparse_matmul.repeated_product(product)(a_operand, b, 0.0, 4), b)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_product_is_the_kernel_that_it_says(product: Product) -> None:
    graph = sparse_matmul.repeated_product(product).get_concrete_function().graph.as_graph_def()
    ops = {node.op for function in graph.library.function for node in function.node_def}
    assert ops & set(KERNELS.values()) == ({KERNELS[product]} if product in KERNELS else set())


@pytest.mark.parametrize("density", [0.01, 0.2, 0.8])
def test_a_has_its_density_and_both_forms_are_equal(density: float) -> None:
    import tensorflow as tf

    dense, sparse, b = sparse_matmul.operands(Cell(density, 3, 200, 300))
    assert (dense.shape, b.shape) == ((200, 300), (300, 3))
    assert np.count_nonzero(dense) / 60_000 == pytest.approx(density, rel=0.1)
    np.testing.assert_array_equal(tf.sparse.to_dense(sparse), dense)


def test_times_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MIN_STRETCH_SECONDS", 0.001)
    times = sparse_matmul.measure(Cell(0.2, 2, 8, 6))
    assert tuple(times) == PRODUCTS
    assert all(seconds > 0 and isfinite(seconds) for seconds in times.values())


def test_all_is_measured_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "MIN_STRETCH_SECONDS", 1e-6)
    monkeypatch.setattr(sparse_matmul, "ROUNDS", 1)
    monkeypatch.setattr(sparse_matmul, "MATRIX_SIDE", 10)
    monkeypatch.setattr(sparse_matmul, "published", lambda: published()[:2])
    result = sparse_matmul.run()
    assert list(result.times) == [row.cell for row in published()[:2]]
    assert {dense: tuple(crossings) for dense, crossings in result.crossings.items()} == {
        "flagged": COLUMN_COUNTS,
        "plain": COLUMN_COUNTS,
    }
    assert result.threads == 1


@pytest.mark.parametrize(
    ("ratio", "crossing"),
    [
        (lambda d: (d / 0.07) ** 0.8, 0.07),
        (lambda d: (3 + 1000 * d) / 50, 0.047),
        (lambda d: (3 + 1000 * d) / (50 + 200 * d), 0.05875),
        (lambda d: d / 0.99, 0.99),
        (lambda d: 1 + d, 0),
        (lambda d: d / 2, inf),
    ],
)
def test_a_crossover_is_found(ratio: Callable[[float], float], crossing: float) -> None:
    densities = []

    def counted(density: float) -> float:
        densities.append(density)
        return ratio(density)

    assert sparse_matmul.crossover(counted) == pytest.approx(crossing, rel=0.02)
    assert len(densities) <= 7
    assert min(densities) == sparse_matmul.MIN_DENSITY
    assert max(densities) == sparse_matmul.MAX_DENSITY


def test_the_published_crossovers() -> None:
    assert [bracket(OLD, n) for n in (1, 10, 25)] == [(0.8, inf), (0.2, 0.5), (0.01, 0.2)]
    assert bracket({Cell(0.5, 1, 1000, 1000): 2.0}, 1) == (0, 0.5)


def result(ratios: Ratios, crossings: dict[int, float] = CROSSINGS) -> Result:
    times: dict[Cell, dict[Product, float]] = {
        cell: {"sparse": ratio, "flagged": 1, "plain": 1, "loop": 0.01}
        for cell, ratio in ratios.items()
    }
    return Result(times, {"flagged": crossings, "plain": crossings}, 1)


@pytest.mark.parametrize("dense", ["flagged", "plain"])
def test_the_published_trend_passes_its_own_claims(dense: Dense) -> None:
    checks = check_claims(OLD, result({cell: 3 * ratio**0.7 for cell, ratio in OLD.items()}), dense)
    assert [(check.figure, check.allowed) for check in checks] == [
        ("9 of 9 series", "9 of 9 series"),
        ("4 of 4 series", "4 of 4 series"),
        ("1.00", "at least 0.8"),
        ("none: faster to 99%", "80% or more"),
        ("37%", "20% to 50%"),
        ("9.6%", "1% to 20%"),
    ]
    assert all(check.passed for check in checks)


FALLS_WITH_DENSITY = OLD | {Cell(0.8, 25, 100, 100): OLD[Cell(0.5, 25, 100, 100)]}
FALLS_WITH_N = OLD | {Cell(0.01, 25, 1000, 1000): OLD[Cell(0.01, 10, 1000, 1000)]}
SHUFFLED = dict(zip(OLD, reversed(OLD.values()), strict=True))


@pytest.mark.parametrize(
    ("ratios", "crossings", "failed"),
    [
        (FALLS_WITH_DENSITY, CROSSINGS, {0}),
        (FALLS_WITH_N, CROSSINGS, {1}),
        (SHUFFLED, CROSSINGS, {0, 1, 2}),
        (OLD, CROSSINGS | {1: 0.79}, {3}),
        (OLD, CROSSINGS | {10: 0.51}, {4}),
        (OLD, CROSSINGS | {10: inf}, {4}),
        (OLD, CROSSINGS | {25: 0.009}, {5}),
        (OLD, CROSSINGS | {25: 0.0}, {5}),
    ],
)
def test_a_claim_that_does_not_hold_fails_alone(
    ratios: Ratios, crossings: dict[int, float], failed: set[int]
) -> None:
    checks = check_claims(OLD, result(ratios, crossings), "plain")
    assert {place for place, check in enumerate(checks) if not check.passed} == failed


def test_a_claim_of_nothing_does_not_pass() -> None:
    falling = {cell: -ratio for cell, ratio in OLD.items()}
    assert not check_claims(falling, result(OLD), "plain")[0].passed


def test_no_figure_is_cut_at_80_columns() -> None:
    console = Console(width=80, file=io.StringIO())
    crossings = dict.fromkeys(COLUMN_COUNTS, inf)
    big = result({cell: 1234 * ratio for cell, ratio in OLD.items()}, crossings)
    for rendered in (table(OLD, big), crossing_table(OLD, big)):
        console.print(rendered)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "…" not in text
    assert "3.56 4393 4393" in text
    assert text.count("\n") == 15 + 5  # nothing is wrapped either
    assert text.count("none: faster to 99%") == 2 * len(COLUMN_COUNTS)
