"""A masked model on several devices, and compiled with XLA, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.selection import by_default

SETUP = """
import sys
import keras, numpy as np, tensorflow as tf
from masksweep import strategies
from tests.support.keras_models import Fit

devices = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(devices[0], [tf.config.LogicalDeviceConfiguration()] * 2)
scopes = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

def trained(fit, scope, pattern, strategy, **arguments):
    with scope.scope():
        model = fit.model()
        model.get_layer("drop").rate = 0.0  # each replica drops other units
        model.get_layer("norm").trainable = False  # each replica has its own statistics
        masked = strategies.apply(model, pattern, strategy, **arguments)
        fit.fit(masked)
    audit = strategies.audit(masked)
    assert audit.ok, f"{strategy}\\n{audit}"
    return masked
"""
REPLICAS = """
patterns = {"var_list": strategies.Columns(0.5), "loss_mask": strategies.Columns(indices=[0])}
targets = {"loss_mask": ["output/*"]}
for strategy in sys.argv[1:]:
    pattern = patterns.get(strategy, strategies.Random(0.5))
    weights, fit = [], Fit()
    for scope in scopes:
        arguments = {"held": 0.0, "targets": targets.get(strategy)}
        masked = trained(fit, scope, pattern, strategy, **arguments)
        for held in masked.holding.weights:
            copies = getattr(held.value.value, "values", [held.value.value])
            assert len(copies) == scope.num_replicas_in_sync
            for copy in copies[1:]:
                assert np.array_equal(copy.numpy(), copies[0].numpy())
        weights.append(masked.dense_weights())
    for name, one in weights[0].items():
        np.testing.assert_allclose(weights[1][name], one, atol=1e-5, err_msg=f"{strategy} {name}")
    print("replicas", strategy, "ok")
with scopes[1].scope():
    try:
        strategies.apply(fit.model(), strategies.Rows(0.5), "row_lookup", targets=["hidden/kernel"])
    except ValueError as error:
        assert "row_lookup: not with several replicas" in str(error), error
    else:
        raise AssertionError("row_lookup was not refused")
"""


# the masks move, and those of RigL by gradients that the replicas add
MOVING = """
schedules = {
    "hard_mask": strategies.RigL(frequency=3, end=1.0),
    "sparse_values": strategies.RigL(frequency=3, end=1.0),
    "weight_mask": strategies.Gradual(frequency=3),
}
for strategy in sys.argv[1:]:
    schedule = schedules[strategy]
    models, fit = [], Fit()
    for scope in scopes:
        pattern = strategies.Random(0.5)
        models.append(trained(fit, scope, pattern, strategy, schedule=schedule))
    one, two = models
    assert len(one.mask_changes) > 2
    assert [c.weights for c in two.mask_changes] == [c.weights for c in one.mask_changes]
    for a, b in zip(one.plan.weights, two.plan.weights, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask, err_msg=f"{strategy} {a.weight.name}")
    for held in two.holding.weights:
        for variable in (held.value, held.kept):
            copies = variable.value.values
            assert len(copies) == 2
            assert np.array_equal(copies[1].numpy(), copies[0].numpy())
    for name, weight in one.dense_weights().items():
        np.testing.assert_allclose(two.dense_weights()[name], weight, atol=1e-5, err_msg=name)
    print("moving", strategy, "ok")
"""
MOVED = ["hard_mask", "sparse_values", "weight_mask"]


# deterministic operations, which the other tests ask for, rule out XLA
XLA = """
import keras, tensorflow as tf
from masksweep import strategies
from masksweep.strategies.core.audit import same_bits
from tests.support.keras_models import Fit

fit = Fit(compiling={"jit_compile": True})
plain = fit.build()
history = fit.fit(plain)
for strategy in ("dense", "hard_mask", "sparse_values"):
    masked = strategies.apply(fit.build(), strategies.Random(0.5), strategy)
    assert masked.supports_jit
    ours = fit.fit(masked)
    assert masked.jit_compile
    if strategy == "dense":
        assert ours == history
        variables = zip(plain.get_weights(), masked.get_weights(), strict=True)
        assert all(same_bits(a, b) for a, b in variables)
    else:
        assert strategies.audit(masked).ok
    print("xla", strategy, "ok")
"""


@pytest.mark.parametrize(
    "strategies",
    [
        # hard_mask does all that gradient_mask and projection do
        ("hard_mask", "sparse_values"),
        pytest.param(
            (
                *("weight_mask", "gradient_mask", "projection", "sparse_tensor"),
                *("var_list", "loss_mask"),
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_two_replicas_train_as_one_device(strategies: tuple[str, ...]) -> None:
    assert_ok(SETUP + REPLICAS, "replicas", *strategies)


@pytest.mark.parametrize("strategy", by_default(["hard_mask"], MOVED))
def test_masks_move_on_two_replicas_as_on_one_device(strategy: str) -> None:
    assert_ok(SETUP + MOVING, "moving", strategy)


@pytest.mark.slow  # compiles four programs
def test_xla_compiles() -> None:
    assert_ok(XLA, "xla", "dense", "hard_mask", "sparse_values")


def assert_ok(script: str, name: str, *strategies: str) -> None:
    """Runs the script in a process of its own. It must print a line for each strategy."""
    root = Path(__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", script, *strategies]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr[-3000:]
    found = [line.split()[:2] for line in result.stdout.splitlines() if line.endswith(" ok")]
    assert found == [[name, strategy] for strategy in strategies]
