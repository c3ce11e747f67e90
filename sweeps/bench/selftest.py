"""Checks of a machine's CPU or GPU: what was promised and tested elsewhere, tried there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from masksweep.strategies.base import MaskedWeight, Weight
from masksweep.strategies.kernels.choice import choose
from masksweep.strategies.testing import Case, strategy_checks
from masksweep.strategies.testing.documented import CASES
from masksweep.sweeps.bench import cases
from masksweep.sweeps.bench.timing import BenchSetup, Row, measure
from masksweep.sweeps.common.child import Child
from masksweep.sweeps.config.trial import parse
from masksweep.sweeps.training.process import gpu_limit, prepare_process

Device = Literal["cpu", "gpu"]
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
    outcome: Literal["ok", "failed", "off"]
    """`off` if there is nothing to check here."""
    says: str
    """A figure, or the reason."""


def findings(device: Device) -> Iterator[tuple[str, Finding | None]]:
    """Checks the machine, and yields each finding as soon as it is known.

    TensorFlow must be set up for the device; see `prepare_process`. A check that raises an
    exception has failed, and takes no other with it.

    Args:
        device: The device that TensorFlow uses.

    Yields:
        What is checked next, and the finding about what was checked last; None at first.
    """
    last = None
    for part, subject, check in _checks(device):
        yield f"{part}: {subject}", last
        try:
            last = check()
        except Exception as error:
            message = str(error).strip().splitlines() or [""]
            last = Finding(part, subject, "failed", f"{type(error).__name__}: {message[0]}")
    yield "", last


def _checks(device: Device) -> Iterator[tuple[str, str, Callable[[], Finding]]]:
    """Yields (part, subject, check)."""
    for name, case in CASES.items():
        yield "contract", name, partial(_contract, name, case)
    setup: list[BenchSetup] = []
    for subject, timed in _timed(device).items():
        yield "steps", subject, partial(_step, setup, timed, subject)
    yield "memory", f"{SHARE:g} of a GPU", partial(_memory, device)
    for name in TRAINED:
        yield "determinism", name, partial(_determinism, device, name)
    for kind, mask in _masks().items():
        yield "formats", f"{kind} masks", partial(_format, device, kind, mask)


def _contract(name: str, case: Case) -> Finding:
    """Checks the documented behaviour of a strategy, as the tests do."""
    checks = strategy_checks(case)
    failed = []
    for check_name, check in checks.items():
        try:
            check()
        except Exception as error:
            message = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"{check_name}: {message[0]}")
    passed = f"{len(checks) - len(failed)} of {len(checks)} checks"
    if failed:
        return Finding("contract", name, "failed", "; ".join([passed, *failed]))
    return Finding("contract", name, "ok", passed)


def _timed(device: Device) -> dict[str, list[cases.Case]]:
    """The cases of each strategy in each of its variants."""
    size = cases.SIZES[SIZES[device]]
    by_subject: dict[str, list[cases.Case]] = {}
    for case in cases.cases(size, list(cases.timed_strategies().values()), [SPARSITY]):
        subject = f"{case.strategy.name} {case.format}".removesuffix(" -")
        by_subject.setdefault(subject, []).append(case)
    return by_subject


def _step(setup: list[BenchSetup], timed: Sequence[cases.Case], subject: str) -> Finding:
    """Times a step beside dense ones, with the first masks that the strategy takes.

    The set-up is made at the first call.
    """
    if not setup:
        setup.append(BenchSetup(timed[0].size))
    reason = ""
    for case in timed:
        result = measure(setup[0], case)
        if isinstance(result, Row):
            where = f"{case.size.name}, {case.pattern.name} {case.sparsity:g}"
            ratio = f"{result.ratio_to_dense:.2f} x dense, {result.step_ms:.3g} ms ({where})"
            return Finding("steps", subject, "ok", ratio)
        reason = result.reason
        if result.failed:
            return Finding("steps", subject, "failed", reason)
    return Finding("steps", subject, "off", reason)


def _memory(device: Device) -> Finding:
    """Tries the limit of a process that has a share of a GPU."""
    subject = f"{SHARE:g} of a GPU"
    if device == "cpu":
        return Finding("memory", subject, "off", "the limits are those of GPUs")
    with Child(prepare_process, 1, SHARE) as child:
        limit = child.submit(gpu_limit, SHARE, 0).result()
        assert limit is not None
        fits = child.submit(_allocates, int(0.8 * limit)).result()
        exceeds = child.submit(_allocates, int(1.1 * limit)).result()
    says = f"limit {limit:,} MiB: 80 % of it {'fit' if fits else 'do not fit'}, 110 % " + (
        "fit too" if exceeds else "do not"
    )
    return Finding("memory", subject, "ok" if fits and not exceeds else "failed", says)


def _allocates(mib: int) -> bool:
    import tensorflow as tf

    try:
        return int(tf.size(tf.zeros([mib, 2**20], tf.uint8))) > 0
    except tf.errors.ResourceExhaustedError:
        return False


def _determinism(device: Device, strategy: str) -> Finding:
    """Trains the same trial in two processes."""
    digests = []
    for _ in range(2):
        with Child(prepare_process, 1, float(device == "gpu")) as child:
            digests.append(child.submit(_trained, strategy).result())
    if digests[0] == digests[1]:
        return Finding("determinism", strategy, "ok", f"both have the weights {digests[0][:12]}")
    says = f"the weights are {digests[0][:12]} and {digests[1][:12]}"
    return Finding("determinism", strategy, "failed", says)


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


def _masks() -> dict[str, Any]:
    """A mask of each kind between which the format of `sparse_tensor` is chosen."""
    generator = np.random.default_rng(0)
    return {
        "scattered": generator.random((256, 256)) < 0.1,
        "block": np.kron(generator.random((8, 8)) < 0.2, np.ones((32, 32))).astype(bool),
        "column": np.broadcast_to(generator.random(256) < 0.1, (256, 256)).copy(),
    }


def _format(device: Device, kind: str, mask: Any) -> Finding:
    """Shows the format that `sparse_tensor` takes on the device."""
    weight = Weight("layer/kernel", mask.shape, "float32", "Dense")
    masked = MaskedWeight(weight, mask, np.zeros(mask.shape, np.float32))
    choice = choose(masked, on_gpu=device == "gpu")
    says = f"{choice.format}{f': {choice.reason}' if choice.reason else ''}"
    return Finding("formats", f"{kind} masks", "off" if choice.reason else "ok", says)
