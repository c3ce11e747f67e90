"""Timing: each case in turn with both dense controls, in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf

from strategies.base import Plan, Strategy
from strategies.dense import Dense
from strategies.held import Zero
from strategies.weights import describe, make_plan, values
from sweeps.bench.cases import BATCH, OUTPUTS, Case, Size
from sweeps.bench.controls import FusedAdam
from sweeps.bench.peers import PeerCase, running
from sweeps.models import MLP
from sweeps.optimizers import Adam, Optimizer
from sweeps.program import NEVER, Program, Shape
from sweeps.speed import Run, in_turn

BATCHES = 8
ROUNDS = 9
SLOW_MS = 1000
"""A strategy that takes longer with random masks is not timed with structured ones too."""
CONTROLS = ("TensorFlow's fused Adam, no XLA", "Keras' Adam, XLA")
"""Without XLA, and with."""


@dataclass(frozen=True)
class Row:
    """What was found of one case. Times are medians, in milliseconds a step."""

    size: str
    strategy: str
    format: str
    pattern: str
    sparsity: float
    step_ms: float
    dense_ms: float
    """Of the faster control."""
    ratio_to_dense: float
    ratio_low: float
    """The lower quartile of the ratios of the rounds."""
    ratio_high: float
    """The upper one."""
    ratio_same_compiler: float | None
    """To the control that is compiled as the case is; None for other libraries."""

    @property
    def said(self) -> str:
        """The row in a line."""
        given = f"{self.size} {self.strategy} {self.format} {self.pattern} {self.sparsity:g}"
        return f"{given}: {self.step_ms:.3g} ms, {self.ratio_to_dense:.2f} x dense"


@dataclass(frozen=True)
class Untimed:
    """A case that was not timed."""

    size: str
    strategy: str
    format: str
    pattern: str
    sparsity: float
    reason: str

    @property
    def said(self) -> str:
        """The case in a line."""
        given = f"{self.size} {self.strategy} {self.format} {self.pattern} {self.sparsity:g}"
        return f"{given}: not timed: {self.reason}"


class Bed:
    """The network of one size, with its data and both dense controls."""

    def __init__(self, size: Size) -> None:
        keras.utils.set_random_seed(0)
        self.size = size
        self._network = MLP(hidden=size.hidden)
        self._model = self._network.build((size.inputs,), OUTPUTS)
        self._start = values(self._model)
        rng = np.random.default_rng(0)
        samples = BATCH * BATCHES
        x = rng.standard_normal((samples, size.inputs), np.float32)
        y = rng.integers(0, OUTPUTS, samples).astype(np.int32)
        order = np.arange(samples, dtype=np.int32).reshape(BATCHES, BATCH)
        self._given = tf.constant(x), tf.constant(y), tf.constant(order)
        self._program: Program | None = None
        self.slow: set[tuple[Strategy, float]] = set()
        """Strategies and sparsities whose step takes longer than `SLOW_MS`."""
        fused = Program(self._shape(Plan(), Dense(), FusedAdam(), False), self._model, Plan())
        xla = Program(self._shape(Plan(), Dense(), Adam(), True), self._model, Plan())
        self.controls: tuple[Run, ...] = tuple(self._runs(p, Plan()) for p in (fused, xla))

    def _shape(self, plan: Plan, strategy: Strategy, optimizer: Optimizer, jit: bool) -> Shape:
        return Shape.of(
            plan,
            strategy,
            optimizer,
            model=self._network,
            inputs=(self.size.inputs,),
            outputs=OUTPUTS,
            task="classification",
            trainable=("*",),
            jit=jit,
        )

    def _runs(self, program: Program, plan: Plan) -> Run:
        program.reset(self._start, [], plan, 1e-3)
        return lambda steps: program.run(*self._given, 0, steps, NEVER, NEVER)

    def run(self, case: Case) -> Run | str:
        """What trains the case, or why it cannot be timed."""
        if (case.strategy, case.sparsity) in self.slow:
            return f"with random masks a step takes over {SLOW_MS:g} ms already"
        plan = make_plan(
            describe(self._model),
            self._start,
            masks=case.pattern.masks,
            held=Zero().values,
            targets=case.targets,
        )
        if reason := case.strategy.refuses(plan) or _too_large(case, plan):
            return reason
        shape = self._shape(plan, case.strategy, Adam(), case.strategy.xla)
        if self._program is None or self._program.shape != shape:
            self._program = None  # a large one goes before the next comes
            self._program = Program(shape, self._model, plan)
        return self._runs(self._program, plan)


def _too_large(case: Case, plan: Plan) -> str | None:
    """Products of single entries hold a row of the batch for each kept entry, several times."""
    if case.strategy.xla:
        return None
    kept = max(int(w.mask.sum()) for w in plan.weights)
    need, free = 16 * kept * BATCH, psutil.virtual_memory().available
    gib = 2**30
    return f"needs some {need / gib:.0f} GiB, {free / gib:.0f} are free" if need > free else None


def measure(bed: Bed, case: Case | PeerCase) -> Row | Untimed:
    """Time one case of the bed's size beside both controls."""
    try:
        if isinstance(case, Case):
            found = _row(case.label, bed.run(case), bed.controls, case.strategy.xla)
            if isinstance(found, Row) and found.step_ms > SLOW_MS:
                bed.slow.add((case.strategy, case.sparsity))
            return found
        with running(case) as theirs:
            return _row(case.label, theirs, bed.controls)
    except Exception as error:  # memory, a library's own: the next case can still be timed
        said = str(error).strip().splitlines() or [""]
        return Untimed(**case.label, reason=f"{type(error).__name__}: {said[0]}")


def _row(
    label: Mapping[str, Any], run: Run | str, controls: Sequence[Run], xla: bool | None = None
) -> Row | Untimed:
    """The times of `run` beside those of the controls."""
    if isinstance(run, str):
        return Untimed(**label, reason=run)
    found = in_turn([run, *controls], ROUNDS)
    times, *others = zip(*found, strict=True)
    step, *medians = (1000 * median(t) for t in (times, *others))
    dense = min(medians)
    ratios = [a / b for a, b in zip(times, others[medians.index(dense)], strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    alike = None if xla is None else step / medians[xla]
    return Row(**label, step_ms=step, dense_ms=dense, ratio_to_dense=step / dense,
               ratio_low=low, ratio_high=high, ratio_same_compiler=alike)  # fmt: skip


def control_times(bed: Bed) -> dict[str, float]:
    """Milliseconds a step of each dense control."""
    found = in_turn(bed.controls, ROUNDS)
    return {
        name: 1000 * median(t) for name, t in zip(CONTROLS, zip(*found, strict=True), strict=True)
    }
