"""Checks of a machine's CPU or GPU: what was promised and tested elsewhere, tried there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np

from masksweep.strategies.kernels.choice import choose
from masksweep.strategies.plan import Mask, MaskedWeight, Weight
from masksweep.strategies.testing import Case, strategy_checks
from masksweep.strategies.testing.documented import CASES
from masksweep.sweeps.bench import cases
from masksweep.sweeps.bench.timing import BenchSetup, Row, measure
from masksweep.sweeps.common.child import Child
from masksweep.sweeps.config.trial import parse
from masksweep.sweeps.training.process import gpu_limit, prepare_process

Device = Literal["cpu", "gpu"]
Outcome = Literal["ok", "failed", "off"]
SIZES: dict[Device, str] = {"cpu": "S", "gpu": "M"}
"""The network whose steps are timed: the GPU is hardly used by the smaller one."""
SPARSITY = 0.9
SHARE = 0.25
"""The share of a GPU whose memory limit is tried."""
TRAINED = ("dense", "weight_mask", "hard_mask", "sparse_values", "sparse_tensor")
"""Strategies that are trained twice."""


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    part: str
    """`contract`, `steps`, `memory`, `determinism` or `formats`."""
    subject: str
    """What was checked, such as a strategy."""
    outcome: Outcome
    """`off` if there is nothing to check here."""
    says: str
    """A figure, or the reason."""


@dataclass(frozen=True)
class Check:
    """One check, which is not done yet."""

    part: str
    subject: str
    find: Callable[[], tuple[Outcome, str]]
    """Returns the outcome and what it says of a `Finding`."""

    def run(self) -> Finding:
        """Does the check. It has failed if it raises an exception, and takes no other with it."""
        try:
            outcome, says = self.find()
        except Exception as error:
            message = str(error).strip().splitlines() or [""]
            outcome, says = "failed", f"{type(error).__name__}: {message[0]}"
        return Finding(self.part, self.subject, outcome, says)


def checks(device: Device) -> list[Check]:
    """Returns all checks. TensorFlow must be set up for the device; see `prepare_process`.

    Args:
        device: The device that TensorFlow uses.
    """
    by_part: dict[str, dict[str, Callable[[], tuple[Outcome, str]]]] = {
        "contract": {name: partial(_contract, case) for name, case in CASES.items()},
        "steps": {name: partial(_step, timed) for name, timed in _timed(device).items()},
        "memory": {f"{SHARE:g} of a GPU": partial(_memory, device)},
        "determinism": {name: partial(_determinism, device, name) for name in TRAINED},
        "formats": {f"{n} masks": partial(_format, device, mask) for n, mask in _masks().items()},
    }
    return [
        Check(part, subject, find)
        for part, by_subject in by_part.items()
        for subject, find in by_subject.items()
    ]


def _contract(case: Case) -> tuple[Outcome, str]:
    """Checks the documented behaviour of a strategy, as the tests do."""
    all_checks, failed = strategy_checks(case), []
    for name, check in all_checks.items():
        try:
            check()
        except Exception as error:
            message = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"{name}: {message[0]}")
    passed = f"{len(all_checks) - len(failed)} of {len(all_checks)} checks"
    return ("failed" if failed else "ok"), "; ".join([passed, *failed])


def _timed(device: Device) -> dict[str, list[cases.Case]]:
    """The cases of each strategy in each of its variants."""
    size = cases.SIZES[SIZES[device]]
    by_subject: dict[str, list[cases.Case]] = {}
    for case in cases.cases(size, list(cases.timed_strategies().values()), [SPARSITY]):
        subject = f"{case.strategy.name} {case.format}".removesuffix(" -")
        by_subject.setdefault(subject, []).append(case)
    return by_subject


@cache
def _bench_setup(size: cases.Size) -> BenchSetup:
    return BenchSetup(size)


def _step(timed: Sequence[cases.Case]) -> tuple[Outcome, str]:
    """Times a step beside dense ones, with the first masks that the strategy takes."""
    reason = ""
    for case in timed:
        result = measure(_bench_setup(case.size), case)
        if isinstance(result, Row):
            where = f"{case.size.name}, {case.pattern.name} {case.sparsity:g}"
            return "ok", f"{result.ratio_to_dense:.2f} x dense, {result.step_ms:.3g} ms ({where})"
        reason = result.reason
        if result.failed:
            return "failed", reason
    return "off", reason


def _memory(device: Device) -> tuple[Outcome, str]:
    """Tries the limit of a process that has a share of a GPU."""
    if device == "cpu":
        return "off", "the limits are those of GPUs"
    with Child(prepare_process, 1, SHARE) as child:
        limit = child.submit(gpu_limit, SHARE, 0).result()
        assert limit is not None
        less, more = (child.submit(_fits, int(f * limit)).result() for f in (0.8, 1.1))
    says = f"limit {limit:,} MiB: 80 % of it fits: {less}, 110 %: {more}"
    return ("ok" if less and not more else "failed"), says


def _fits(mib: int) -> bool:
    """Whether so much memory can be had."""
    import tensorflow as tf

    try:
        return int(tf.size(tf.zeros([mib, 2**20], tf.uint8))) > 0
    except tf.errors.ResourceExhaustedError:
        return False


def _determinism(device: Device, strategy: str) -> tuple[Outcome, str]:
    """Trains the same trial in two processes."""
    digests = []
    for _ in range(2):
        with Child(prepare_process, 1, float(device == "gpu")) as child:
            digests.append(child.submit(_trained, strategy).result()[:12])
    one, other = digests
    if one == other:
        return "ok", f"both have the weights {one}"
    return "failed", f"the weights are {one} and {other}"


def _trained(strategy: str) -> str:
    """Trains a small convolutional network, and returns the digest of its weights."""
    from masksweep.sweeps.training import run_trial

    trial = {
        "strategy": {"name": strategy},
        "pattern": {"name": "random", "sparsity": 0.5},
        "held": {"name": "zero"},
        "model": {"name": "cnn1d"},
        "data": {"name": "mnist1d"},
        "optimizer": {"name": "adam"},
        "train": {"steps": 50, "batch_size": 100},
        "audit": {"every": 10},
        "speed": {"rounds": 0},
        "seed": 0,
    }
    return run_trial.run(parse(trial)).tags["trial.weights_sha256"]


def _masks() -> dict[str, Mask]:
    """A mask of each kind between which the format of `sparse_tensor` is chosen."""
    generator = np.random.default_rng(0)
    return {
        "scattered": generator.random((512, 512)) < 0.1,
        "block": np.kron(generator.random((16, 16)) < 0.2, np.ones((32, 32))).astype(bool),
        "column": np.broadcast_to(generator.random(512) < 0.1, (512, 512)).copy(),
        "small": generator.random((64, 64)) < 0.1,
    }


def _format(device: Device, mask: Mask) -> tuple[Outcome, str]:
    """Shows the format that `sparse_tensor` takes on the device."""
    weight = Weight("layer/kernel", mask.shape, "float32", "Dense")
    masked = MaskedWeight(weight, mask, np.zeros(mask.shape, np.float32))
    choice = choose(masked, on_gpu=device == "gpu")
    if choice.reason:
        return "off", f"{choice.format}: {choice.reason}"
    return "ok", choice.format
