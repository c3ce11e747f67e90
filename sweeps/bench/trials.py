"""Times whole trials: their rate beside `keras.fit`, and the cost of auditing and recording."""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.table import Table

from masksweep.sweeps.bench.driver import Driver, recorder
from masksweep.sweeps.common import tables
from masksweep.sweeps.common.tables import Column
from masksweep.sweeps.components.datasets.arrays import Arrays
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import batches, pack, program_cache, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.setup import TrialStart
from masksweep.sweeps.training.state import Emit, PackMember
from masksweep.sweeps.training.step_counts import step_counts
from masksweep.sweeps.training.steps import NEVER, Steps
from masksweep.sweeps.training.timing import time_in_turn

PACK_WIDTH = 64
TRIALS_IN_TURN = 8
"""Number of trials that are run one after another in one program."""
ROUNDS = 3
RECORDED_TRIAL_S = 5.0
"""Length in seconds of the trial that the cost of recording is compared with."""


@dataclass(frozen=True)
class Cost:
    """The time of one way to do a task, and its ratio to another way."""

    what: str
    seconds: float
    """Seconds of one trial or step: the median of the rounds."""
    ratio: float
    """The median of the ratios of the rounds."""
    low: float
    """Lower end of the ratios: the smallest, or the lower quartile."""
    high: float
    """Upper end of the ratios: the largest, or the upper quartile."""


@dataclass(frozen=True)
class Net:
    """A network with its data and its length of training."""

    name: str
    hidden: tuple[int, ...]
    epochs: int
    inputs: int | None = None
    """Number of inputs of random samples; None uses scikit-learn's digits."""

    def trial(self, seed: int, width: int = 1, every: int = 10) -> Trial:
        return parse(
            {
                "strategy": {"name": "gradient_mask"},
                "pattern": {"name": "random", "sparsity": 0.9},
                "held": {"name": "zero"},
                "model": {"name": "mlp", "hidden": list(self.hidden)},
                "data": {"name": "digits"},
                "optimizer": {"name": "adam", "learning_rate": 0.001},
                "train": {"epochs": self.epochs, "batch_size": 64},
                "audit": {"every": every},
                "speed": {"rounds": 0},
                "launch": {"pack": width},
                "seed": seed,
            }
        )

    def start(self, seed: int, **options: int) -> TrialStart:
        trial = self.trial(seed, **options)
        return setup.start(trial, self.data())

    def data(self) -> Arrays:
        return self.trial(0).data.load() if self.inputs is None else _random_data(self.inputs)


DIGITS = Net("64-32-10", (32,), 20)
SIZE_S = Net("784-300-100-10", (300, 100), 10, 784)


@cache
def _random_data(inputs: int) -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6400, inputs), np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    return Arrays("drawn", "classification", 10, (x, y), None, (x[:64], y[:64]))


def _arrays(data: Arrays) -> Split:
    arrays = data.in_memory
    assert arrays is not None
    return arrays


# -- beside keras.fit ------------------------------------------------------------------------


def _train_in_keras(net: Net, seed: int) -> None:
    """Trains in the usual way: build, compile, fit."""
    data = net.data()
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(units, activation="relu") for units in net.hidden]
    ends = [keras.Input(data.shape), *layers, keras.layers.Dense(data.outputs)]
    model = keras.Sequential(ends)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    model.fit(*_arrays(data), batch_size=64, epochs=net.epochs, verbose=0)


def _train_alone(net: Net, seed: int) -> None:
    start = net.start(seed)
    single_trial_loop(start).run()


def _train_in_turn(net: Net, _: int) -> None:
    for seed in range(TRIALS_IN_TURN):
        _train_alone(net, seed)


def _train_pack(net: Net, _: int) -> None:
    """Builds, masks, trains and audits during training; computes no scores, writes no files."""
    starts = [net.start(seed, width=PACK_WIDTH) for seed in range(PACK_WIDTH)]
    packed = setup.packed_for(starts[0])
    packed.set_lanes([setup.start_lane(packed, start) for start in starts])
    x, y = (tf.constant(a) for a in _arrays(starts[0].data))
    epoch, total = step_counts(starts[0].trial, len(x))
    for number in range(net.epochs):
        order = np.stack([batches.order(s.trial, len(x), number) for s in starts])
        packed.run(x, y, order, Steps(number * epoch, epoch, 10, total))


def _run_pack(net: Net, _: int) -> list[TrialResult]:
    """Does all that a worker does for the trials of a sweep."""
    members = [_member(net.trial(seed, PACK_WIDTH)) for seed in range(PACK_WIDTH)]
    return _results(pack.run(members))


def _run_and_record_pack(driver: Driver, net: Net, _: int) -> None:
    """Does the same as `_run_pack`, and records it in MLflow until the store has every record."""
    trials = [net.trial(seed, PACK_WIDTH) for seed in range(PACK_WIDTH)]
    for trial in trials:
        driver.tell("start_trial", trial, trial.name)
    members = [_member(t, lambda r, t=t: driver.tell("log", t, r.epoch, r.metrics)) for t in trials]  # type: ignore[misc]
    for trial, result in zip(trials, _results(pack.run(members)), strict=True):
        driver.tell("end_trial", trial, result)
    driver.end_sweep()


def _member(trial: Trial, emit: Emit = lambda report: None) -> PackMember:
    # a new folder: the trial must not continue from a checkpoint of an earlier round
    return PackMember(trial, emit, Checkpoints(f"memory://{uuid.uuid4().hex}", trial.id, 60))


def _results(outcomes: list[pack.MemberResult]) -> list[TrialResult]:
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return [outcome for outcome in outcomes if isinstance(outcome, TrialResult)]


def _compiled_again(train: Callable[[Net, int], Any]) -> Callable[[Net, int], Any]:
    def fresh(net: Net, seed: int) -> Any:
        with program_cache.without_programs():
            return train(net, seed)

    return fresh


def _methods(net: Net, driver: Driver) -> dict[str, tuple[Callable[[Net, int], Any], int]]:
    """Methods of training by name, each with its number of trials. The first is the baseline."""
    alone = {
        "keras.fit": (_train_in_keras, 1),
        "training alone, compiled again": (_compiled_again(_train_alone), 1),
        "training alone, program reused": (_train_alone, 1),
    }
    if net.inputs is not None:  # large enough to fill a core
        name = f"training {TRIALS_IN_TURN} in turn, compiled once"
        return alone | {name: (_compiled_again(_train_in_turn), TRIALS_IN_TURN)}
    recorded, width = partial(_run_and_record_pack, driver), PACK_WIDTH
    return alone | {
        f"training, pack of {width}, compiled again": (_compiled_again(_train_pack), width),
        f"training, pack of {width}, program reused": (_train_pack, width),
        f"whole trial, pack of {width}, compiled again": (_compiled_again(_run_pack), width),
        f"whole trial, pack of {width}, program reused": (_run_pack, width),
        f"recorded in MLflow, pack of {width}, compiled again": (_compiled_again(recorded), width),
    }


def compare_with_keras(net: Net, driver: Driver) -> Iterator[Cost]:
    """Times each method of training in turn.

    Yields:
        Seconds of one trial, and its rate (trials per second) as a ratio to `keras.fit`.
    """
    methods = _methods(net, driver)
    seconds_by_name: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(-1, ROUNDS):  # round -1 warms up and creates the store; it is not timed
        for name, (train, trials) in methods.items():
            tic = time.perf_counter()
            train(net, number + 1)
            if number >= 0:
                seconds_by_name[name].append((time.perf_counter() - tic) / trials)
    base = next(iter(seconds_by_name.values()))
    for name, seconds in seconds_by_name.items():
        ratios = [a / b for a, b in zip(base, seconds, strict=True)]
        yield Cost(f"{net.name}: {name}", median(seconds), median(ratios), min(ratios), max(ratios))


# -- the cost of audits and of recording -----------------------------------------------------


def time_audits(net: Net, width: int, rounds: int = 9) -> Cost:
    """Times a step with `audit.every` at its default, as a ratio to a step without audits.

    Args:
        net: The network.
        width: Number of trials in a pack; 1 is a program of one trial.
        rounds: Number of rounds.

    Returns:
        The cost. `low` and `high` are the quartiles of the ratios.
    """
    starts = [net.start(seed, width=width) for seed in range(width)]
    x, y = (tf.constant(a) for a in _arrays(starts[0].data))
    program_: Any
    if width > 1:
        program_ = setup.packed_for(starts[0])
        program_.set_lanes([setup.start_lane(program_, start) for start in starts])
        order = np.stack([batches.order(s.trial, len(x), 0) for s in starts])
    else:
        program_, order = setup.program_for(starts[0]), batches.order(starts[0].trial, len(x), 0)

    def steps(every: int, number: int) -> None:
        program_.run(x, y, order, Steps(0, number, every))

    round_times = time_in_turn([partial(steps, every) for every in (10, NEVER)], rounds)
    ratios = [a / b for a, b in round_times]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    title = f"{net.name}: a step, audit.every=10" + (f", pack of {width}" if width > 1 else "")
    return Cost(title, median(a for a, _ in round_times), middle, low, high)


def time_recording() -> Cost:
    """Times recording a trial in SQLite, as a ratio to a trial that lasts `RECORDED_TRIAL_S`.

    `low` and `high` are the quartiles of the ratios.
    """
    reports: dict[str, list[Any]] = {}
    trials = [DIGITS.trial(seed, PACK_WIDTH) for seed in range(PACK_WIDTH)]
    members = [_member(seconds, reports.setdefault(seconds.id, []).append) for seconds in trials]
    results = _results(pack.run(members))
    times = []
    with tempfile.TemporaryDirectory() as folder, recorder(Path(folder)) as record:
        for trial, result in zip(trials, results, strict=True):
            tic = time.perf_counter()
            record.start_trial(trial, trial.name)
            for report in reports[trial.id]:
                record.log(trial, report.epoch, report.metrics)
            record.end_trial(trial, result)
            record.sender.send_left()
            times.append(time.perf_counter() - tic)
    low, middle, high = quantiles([seconds / RECORDED_TRIAL_S for seconds in times], n=4)
    title = f"recording a trial of {RECORDED_TRIAL_S:g} s in SQLite"
    return Cost(title, median(times), middle, low, high)


def all_costs() -> Iterator[Cost]:
    """Yields every cost of this module, each as soon as it is measured."""
    with tempfile.TemporaryDirectory() as store, closing(Driver(Path(store))) as driver:
        for net in (DIGITS, SIZE_S):
            yield from compare_with_keras(net, driver)
    for net, width in ((DIGITS, 1), (DIGITS, PACK_WIDTH), (SIZE_S, 1)):
        yield time_audits(net, width)
    yield time_recording()


def metrics(costs: list[Cost]) -> list[tuple[str, float, int]]:
    """Returns (name, value, step) for MLflow."""
    return [(re.sub(r"[^\w.]+", "_", c.what), c.ratio, 0) for c in costs]


def table(costs: list[Cost]) -> Table:
    columns = [Column("", wrap=True)]
    columns += [Column(name, right=True) for name in ("ms", "ratio", "from", "to")]
    rows = []
    for cost in costs:
        ratios = (f"{r:.3g}" for r in (cost.ratio, cost.low, cost.high))
        rows.append([cost.what, f"{1000 * cost.seconds:.3g}", *ratios])
    return tables.terminal(columns, rows)
