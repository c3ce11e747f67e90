"""Times each case in turn with both dense controls, in one process."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import keras
import numpy as np
import psutil
import tensorflow as tf

from masksweep.strategies.base import Strategy
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.dense import Dense
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.plan import Plan
from masksweep.strategies.sparse_tensor import SparseTensor
from masksweep.sweeps.bench.cases import BATCH_SIZE, OUTPUTS, Case, Size
from masksweep.sweeps.bench.controls import FusedAdam
from masksweep.sweeps.bench.peers import PeerCase, train_in_child
from masksweep.sweeps.components.models.mlp import MLP
from masksweep.sweeps.components.optimizers import Optimizer
from masksweep.sweeps.components.optimizers.adam import Adam
from masksweep.sweeps.training.program import Program
from masksweep.sweeps.training.program_shape import Shape
from masksweep.sweeps.training.steps import Steps
from masksweep.sweeps.training.timing import RunSteps, median_interval, time_in_turn

BATCH_COUNT = 8
ROUNDS = 9
SLOW_STEP_MS = 1000
"""A strategy whose step takes longer than this with random masks, in milliseconds, is not timed
with other masks of the same sparsity."""
CASE_BUDGET_S = 20.0
"""Time for one case, in seconds. Slow steps get fewer rounds to stay within it, at least three."""
CONTROL_NAMES = ("TensorFlow's fused Adam, no XLA", "Keras' Adam, XLA")
"""Names of the two dense controls: without XLA, and with XLA."""


@dataclass(frozen=True)
class Result:
    """The result of one case."""

    size: str
    strategy: str
    format: str
    pattern: str
    sparsity: float

    @property
    def summary(self) -> str:
        """The case as one line of text."""
        return f"{self.size} {self.strategy} {self.format} {self.pattern} {self.sparsity:g}"


@dataclass(frozen=True)
class Row(Result):
    """The times of a case: medians over the rounds, in milliseconds for one step."""

    step_ms: float
    dense_ms: float
    """The faster dense control of this size."""
    ratio_to_dense: float
    """The median of the ratios of the rounds."""
    ratio_low: float | None
    """The lower end of the median's 95 % interval; None with fewer than six rounds."""
    ratio_high: float | None
    """The upper end of that interval."""
    ratio_same_compiler: float | None
    """Ratio to the control that is compiled like the case; None for other libraries."""

    @property
    def summary(self) -> str:
        return f"{super().summary}: {self.step_ms:.3g} ms, {self.ratio_to_dense:.2f} x dense"


@dataclass(frozen=True)
class Untimed(Result):
    """A case that was not timed, and the reason."""

    reason: str
    failed: bool = False
    """True if the case raised an exception, False if it was refused."""

    @property
    def summary(self) -> str:
        return f"{super().summary}: {'failed' if self.failed else 'not timed'}: {self.reason}"


class BenchSetup:
    """The test bed of one size: the network, its data and both dense controls."""

    def __init__(self, size: Size) -> None:
        keras.utils.set_random_seed(0)
        self.size = size
        self._network = MLP(hidden=size.hidden)
        self._model = self._build()
        self._start = values(self._model)
        rng = np.random.default_rng(0)
        samples = BATCH_SIZE * BATCH_COUNT
        x = rng.standard_normal((samples, size.inputs), np.float32)
        y = rng.integers(0, OUTPUTS, samples).astype(np.int32)
        order = np.arange(samples, dtype=np.int32).reshape(BATCH_COUNT, BATCH_SIZE)
        self._inputs = tf.constant(x), tf.constant(y), tf.constant(order)
        self._program: Program | None = None
        self.slow_cases: set[tuple[Strategy, float]] = set()
        """Strategies and sparsities whose step takes longer than `SLOW_STEP_MS`."""
        fused = Program(self._shape(Plan(), Dense(), FusedAdam(), False), self._model, Plan())
        xla = Program(self._shape(Plan(), Dense(), Adam(), True), self._model, Plan())
        self.controls: tuple[RunSteps, ...] = tuple(
            self._run_function(p, Plan()) for p in (fused, xla)
        )
        control_times = zip(*time_in_turn(self.controls, ROUNDS, CASE_BUDGET_S), strict=True)
        self.control_ms = [1000 * median(times) for times in control_times]
        self.fastest_control = int(np.argmin(self.control_ms))
        """Index of the faster control, with which all cases of this size are compared."""

    def _build(self) -> Any:
        return self._network.build((self.size.inputs,), OUTPUTS)

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

    def _run_function(self, program: Program, plan: Plan) -> RunSteps:
        program.training.assign_all(program.start(self._start, [], plan, 1e-3))
        return lambda steps: program.run(*self._inputs, Steps(0, steps))

    @property
    def compiled_with_xla(self) -> bool:
        """Whether the newest case that `run` returned compiles with XLA."""
        return self._program is not None and self._program.shape.jit

    def run(self, case: Case) -> RunSteps | str:
        """Returns a function that trains the case, or the reason why it cannot be timed."""
        if (case.strategy, case.sparsity) in self.slow_cases:
            return f"with random masks a step takes over {SLOW_STEP_MS:g} ms already"
        plan = make_plan(
            describe(self._model),
            self._start,
            masks=case.pattern.from_weights,
            held=Zero().values,
            targets=case.targets,
        )
        if reason := case.strategy.refuses(plan):
            return reason
        # the control without XLA uses TensorFlow's fused Adam, so a case without XLA does too
        xla = case.strategy.compiles_with_xla(plan)
        optimizer = Adam() if xla else FusedAdam()
        shape = self._shape(plan, case.strategy, optimizer, xla)
        if self._program is None or self._program.shape != shape:
            self._program = None
            gc.collect()  # a program is a reference cycle: free it before the next one is built
            if reason := _too_large(case, plan):
                return reason
            # not the model of the controls: a strategy may free the memory of its variables
            self._program = Program(shape, self._build(), plan)
        return self._run_function(self._program, plan)


def _too_large(case: Case, plan: Plan) -> str | None:
    """Returns why a case does not fit in memory, or None.

    TensorFlow's sparse products hold several copies of a batch for each kept entry.
    """
    stored_entries = [
        int(w.mask.sum())
        for w in plan.weights
        if case.strategy.for_weight(w) in (SparseTensor("coo"), SparseTensor("lookup"))
    ]
    return memory_shortage(16 * max(stored_entries, default=0) * BATCH_SIZE)


def memory_shortage(needed: int) -> str | None:
    """Returns a message if fewer than `needed` bytes of memory are free, or None."""
    free, gib = psutil.virtual_memory().available, 2**30
    if needed <= free:
        return None
    return f"needs some {needed / gib:.0f} GiB, {free / gib:.0f} are free"


def measure(bench_setup: BenchSetup, case: Case | PeerCase) -> Row | Untimed:
    """Times one case of the test bed's size beside both controls. Never raises an `Exception`."""
    try:
        if isinstance(case, PeerCase):
            if reason := memory_shortage(case.bytes):
                return Untimed(**case.label, reason=reason)
            with train_in_child(case) as peer_run:
                return _row(case.label, peer_run, bench_setup)
        run = bench_setup.run(case)
        if isinstance(run, str):
            return Untimed(**case.label, reason=run)
        row = _row(case.label, run, bench_setup, bench_setup.compiled_with_xla)
        if row.step_ms > SLOW_STEP_MS and case.pattern.name == "random":
            bench_setup.slow_cases.add((case.strategy, case.sparsity))
        return row
    except Exception as error:  # such as out of memory: the next case can still be timed
        message = str(error).strip().splitlines() or [""]
        return Untimed(**case.label, reason=f"{type(error).__name__}: {message[0]}", failed=True)


def _row(
    label: Mapping[str, Any], run: RunSteps, bench_setup: BenchSetup, xla: bool | None = None
) -> Row:
    """Times `run` in turn with the controls."""
    round_times = time_in_turn([run, *bench_setup.controls], ROUNDS, CASE_BUDGET_S)
    times, *control_times = zip(*round_times, strict=True)

    def ratios(control: int) -> list[float]:
        return [a / b for a, b in zip(times, control_times[control], strict=True)]

    low, high = median_interval(ratios(bench_setup.fastest_control)) or (None, None)
    return Row(
        **label,
        step_ms=1000 * median(times),
        dense_ms=1000 * median(control_times[bench_setup.fastest_control]),
        ratio_to_dense=median(ratios(bench_setup.fastest_control)),
        ratio_low=low,
        ratio_high=high,
        ratio_same_compiler=None if xla is None else median(ratios(int(xla))),
    )
