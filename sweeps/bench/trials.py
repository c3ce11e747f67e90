"""Whole trials: how many a second beside `keras.fit`, what auditing and recording cost."""

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
from masksweep.sweeps.components.datasets.base import Arrays
from masksweep.sweeps.config.trial import Trial, parse
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import pack, program, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.loop import alone
from masksweep.sweeps.training.setup import Start
from masksweep.sweeps.training.state import Emit, Member
from masksweep.sweeps.training.steps import NEVER, Steps
from masksweep.sweeps.training.timing import in_turn

PACK = 64
IN_TURN = 8
"""Trials that are run one after the other in one program."""
ROUNDS = 3
RECORDED_S = 5.0
"""Length of the trial that recording is compared with."""


@dataclass(frozen=True)
class Cost:
    """What one way of doing the same takes, as a ratio to another."""

    what: str
    seconds: float
    """Of one trial: the median of the rounds."""
    ratio: float
    """The median of the ratios of the rounds."""
    low: float
    high: float
    """The smallest and the largest of them."""


@dataclass(frozen=True)
class Net:
    """A network with its data, as a trial trains it."""

    name: str
    hidden: tuple[int, ...]
    epochs: int
    inputs: int | None = None
    """Of samples that are drawn; None takes scikit-learn's digits."""

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

    def start(self, seed: int, **given: int) -> Start:
        trial = self.trial(seed, **given)
        return setup.start(trial, self.data())

    def data(self) -> Arrays:
        return self.trial(0).data.load() if self.inputs is None else _drawn(self.inputs)


DIGITS = Net("64-32-10", (32,), 20)
S = Net("784-300-100-10", (300, 100), 10, 784)


@cache
def _drawn(inputs: int) -> Arrays:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6400, inputs), np.float32)
    y = rng.integers(0, 10, len(x)).astype(np.int32)
    return Arrays("drawn", "classification", 10, (x, y), None, (x[:64], y[:64]))


# -- beside keras.fit ------------------------------------------------------------------------


def _fit(net: Net, seed: int) -> None:
    """As a person trains it: build, compile, fit."""
    data = net.data()
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Dense(units, activation="relu") for units in net.hidden]
    ends = [keras.Input(data.shape), *layers, keras.layers.Dense(data.outputs)]
    model = keras.Sequential(ends)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    model.fit(*data.train, batch_size=64, epochs=net.epochs, verbose=0)


def _alone(net: Net, seed: int) -> None:
    start = net.start(seed)
    alone(start).run()


def _several(net: Net, _: int) -> None:
    for seed in range(IN_TURN):
        _alone(net, seed)


def _packed(net: Net, _: int) -> None:
    """Built, masked, trained and audited on the way; without scores and files."""
    starts = [net.start(seed, width=PACK) for seed in range(PACK)]
    packed = setup.packed_for(starts[0])
    packed.fill([setup.lane(packed, start) for start in starts])
    x, y = (tf.constant(a) for a in starts[0].data.train)
    epoch, total = setup.schedule(starts[0].trial, len(x))
    for number in range(net.epochs):
        order = np.stack([setup.order(s.trial, len(x), number) for s in starts])
        packed.run(x, y, order, Steps(number * epoch, epoch, 10, total))


def _whole(net: Net, _: int) -> list[TrialResult]:
    """All that a trial of a sweep does in its worker."""
    members = [_member(net.trial(seed, PACK)) for seed in range(PACK)]
    return _results(pack.run(members))


def _recorded(driver: Driver, net: Net, _: int) -> None:
    """The same, recorded in MLflow as a sweep does it, until the store has all."""
    trials = [net.trial(seed, PACK) for seed in range(PACK)]
    for trial in trials:
        driver.tell("start_trial", trial, trial.name)
    members = [_member(t, lambda r, t=t: driver.tell("log", t, r.epoch, r.metrics)) for t in trials]  # type: ignore[misc]
    for trial, result in zip(trials, _results(pack.run(members)), strict=True):
        driver.tell("end_trial", trial, result)
    driver.end_sweep()


def _member(trial: Trial, emit: Emit = lambda report: None) -> Member:
    # a folder of its own: it must not go on from what an earlier round kept
    return Member(trial, emit, Checkpoints(f"memory://{uuid.uuid4().hex}", trial.id, 60))


def _results(found: list[pack.Found]) -> list[TrialResult]:
    for each in found:
        if isinstance(each, Exception):
            raise each
    return [each for each in found if isinstance(each, TrialResult)]


def _fresh(do: Callable[[Net, int], Any]) -> Callable[[Net, int], Any]:
    def fresh(net: Net, seed: int) -> Any:
        with program.without_programs():
            return do(net, seed)

    return fresh


def _ways(net: Net, driver: Driver) -> dict[str, tuple[Callable[[Net, int], Any], int]]:
    """Each with how many trials it is; the first is what the others are compared with."""
    alone = {
        "keras.fit": (_fit, 1),
        "training alone, compiled anew": (_fresh(_alone), 1),
        "training alone, program reused": (_alone, 1),
    }
    if net.inputs is not None:  # large enough to fill a core
        return alone | {f"training {IN_TURN} in turn, compiled once": (_fresh(_several), IN_TURN)}
    recorded = partial(_recorded, driver)
    return alone | {
        f"training, pack of {PACK}, compiled anew": (_fresh(_packed), PACK),
        f"training, pack of {PACK}, program reused": (_packed, PACK),
        f"whole trial, pack of {PACK}, compiled anew": (_fresh(_whole), PACK),
        f"whole trial, pack of {PACK}, program reused": (_whole, PACK),
        f"recorded in MLflow, pack of {PACK}, compiled anew": (_fresh(recorded), PACK),
    }


def beside_keras(net: Net, driver: Driver) -> Iterator[Cost]:
    """Seconds of a trial each way, in turn; ratios are how many times as many trials a second."""
    ways = _ways(net, driver)
    times: dict[str, list[float]] = {what: [] for what in ways}
    for number in range(-1, ROUNDS):  # the first round warms TensorFlow up, and makes the store
        for what, (do, trials) in ways.items():
            tic = time.perf_counter()
            do(net, number + 1)
            if number >= 0:
                times[what].append((time.perf_counter() - tic) / trials)
    base = next(iter(times.values()))
    for what, found in times.items():
        ratios = [a / b for a, b in zip(base, found, strict=True)]
        yield Cost(f"{net.name}: {what}", median(found), median(ratios), min(ratios), max(ratios))


# -- the audit's and the record's part -------------------------------------------------------


def auditing(net: Net, width: int, rounds: int = 9) -> Cost:
    """A step with `audit.every` at its default, as a ratio to the same without."""
    starts = [net.start(seed, width=width) for seed in range(width)]
    x, y = (tf.constant(a) for a in starts[0].data.train)
    made: Any
    if width > 1:
        made = setup.packed_for(starts[0])
        made.fill([setup.lane(made, start) for start in starts])
        order = np.stack([setup.order(s.trial, len(x), 0) for s in starts])
    else:
        made, order = setup.program_for(starts[0]), setup.order(starts[0].trial, len(x), 0)

    def steps(every: int, number: int) -> None:
        made.run(x, y, order, Steps(0, number, every))

    found = in_turn([partial(steps, every) for every in (10, NEVER)], rounds)
    ratios = [a / b for a, b in found]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    what = f"{net.name}: a step, audit.every=10" + (f", pack of {width}" if width > 1 else "")
    return Cost(what, median(a for a, _ in found), middle, low, high)


def recording() -> Cost:
    """What it takes to record a trial in SQLite, as a part of one that lasts `RECORDED_S`."""
    reports: dict[str, list[Any]] = {}
    trials = [DIGITS.trial(seed, PACK) for seed in range(PACK)]
    members = [_member(t, reports.setdefault(t.id, []).append) for t in trials]
    found = _results(pack.run(members))
    times = []
    with tempfile.TemporaryDirectory() as folder, recorder(Path(folder)) as record:
        for trial, result in zip(trials, found, strict=True):
            tic = time.perf_counter()
            record.start_trial(trial, trial.name)
            for report in reports[trial.id]:
                record.log(trial, report.epoch, report.metrics)
            record.end_trial(trial, result)
            record.send_left()
            times.append(time.perf_counter() - tic)
    low, middle, high = quantiles([t / RECORDED_S for t in times], n=4)
    what = f"recording a trial of {RECORDED_S:g} s in SQLite"
    return Cost(what, median(times), middle, low, high)


def all_costs() -> Iterator[Cost]:
    """What there is to measure, as it comes."""
    with tempfile.TemporaryDirectory() as store, closing(Driver(Path(store))) as driver:
        for net in (DIGITS, S):
            yield from beside_keras(net, driver)
    for net, width in ((DIGITS, 1), (DIGITS, PACK), (S, 1)):
        yield auditing(net, width)
    yield recording()


def metrics(costs: list[Cost]) -> list[tuple[str, float, int]]:
    """(name, value, step) for MLflow."""
    return [(re.sub(r"[^\w.]+", "_", c.what), c.ratio, 0) for c in costs]


def table(costs: list[Cost]) -> Table:
    columns = [Column("", wrap=True)]
    columns += [Column(name, right=True) for name in ("ms", "ratio", "from", "to")]
    rows = []
    for cost in costs:
        ratios = (f"{r:.3g}" for r in (cost.ratio, cost.low, cost.high))
        rows.append([cost.what, f"{1000 * cost.seconds:.3g}", *ratios])
    return tables.terminal(columns, rows)
