"""Events within a training: new masks (`switch_at`), and a new program (`resume_at`)."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.strategies.plan import Array
from masksweep.sweeps import results
from masksweep.sweeps.training import run_trial, setup
from masksweep.sweeps.training.loop import TrainingLoop, single_trial_loop
from masksweep.sweeps.training.preflight import check_plans
from masksweep.sweeps.training.trial_run import TrialRun
from tests.support.trials import trial as make

STEPS = {"steps": 20, "batch_size": 100, "jit": False}
SWITCHED, RESUMED = {**STEPS, "switch_at": 10}, {**STEPS, "resume_at": 10}
SPEED = {"rounds": 0}


def run(**sections: object) -> results.TrialResult:
    return run_trial.run(make(speed=SPEED, **sections))


@pytest.mark.parametrize(
    "strategy", ["weight_mask", "gradient_mask", "projection", "hard_mask", "sparse_values"]
)
@pytest.mark.parametrize("held", ["zero", "constant", "init"])
def test_every_strategy_goes_on_under_other_masks(strategy: str, held: str) -> None:
    started = setup.start(make(strategy=strategy, held=held, train=SWITCHED))
    loop = single_trial_loop(started)
    loop.run(10)
    before = loop.program.single_program.effective()
    assert loop.plan.weights[0].mask.sum() == started.plan.weights[0].mask.sum()
    loop.run(11)
    # the masks are new, and the held values were set at the switch
    after = loop.plan
    for old, new in zip(started.plan.weights, after.weights, strict=True):
        assert (old.mask != new.mask).any()
        if held == "init":  # held at the weights at the switch
            np.testing.assert_array_equal(new.held, before[new.weight.name])


def test_the_switch_itself_moves_nothing_that_trains_on() -> None:
    """Freed entries continue from their held value, and kept entries from their own value."""
    started = setup.start(make(strategy="hard_mask", train=SWITCHED))
    loop = single_trial_loop(started)
    loop.run(9)
    loop.run(10)
    plan = loop.plan
    weights = loop.program.single_program.effective()
    for old, new in zip(started.plan.weights, plan.weights, strict=True):
        value = weights[new.weight.name]
        assert (value[~new.mask] == 0).all()
        assert (value[new.mask & ~old.mask] == 0).all()
        assert (value[new.mask & old.mask] != 0).mean() > 0.9


def test_moments_that_were_built_move_what_is_masked_later() -> None:
    result = run(strategy="gradient_mask", train=SWITCHED)
    assert result.metrics["integrity/first_violation_step"] == 11
    assert result.metrics["integrity/max_drift"] > 0.01
    assert result.tags["integrity.through"] == "slots"


@pytest.mark.parametrize("strategy", ["weight_mask", "projection", "hard_mask", "sparse_values"])
def test_others_hold_what_is_masked_later(strategy: str) -> None:
    result = run(strategy=strategy, train=SWITCHED)
    assert result.metrics["integrity/ok"] == 1
    assert "integrity.through" not in result.tags


def test_kept_values_take_their_moments_along() -> None:
    """The weights after a switch are those of `hard_mask`, which resets slots of masked entries."""
    ends = {
        run(strategy=s, train=SWITCHED).tags["trial.weights_sha256"]
        for s in ("hard_mask", "sparse_values")
    }
    assert len(ends) == 1


@pytest.mark.parametrize("strategy", ["gradient_mask", "hard_mask", "sparse_tensor", "init_only"])
def test_a_resumed_trial_ends_with_the_same_bits(strategy: str) -> None:
    whole, resumed = (run(strategy=strategy, train=t) for t in (STEPS, RESUMED))
    assert whole.tags["trial.weights_sha256"] == resumed.tags["trial.weights_sha256"]
    assert whole.metrics["test/loss"] == resumed.metrics["test/loss"]


def test_a_resumed_trial_goes_on_in_another_program() -> None:
    started = setup.start(make(train=RESUMED))
    first = setup.program_for(started)
    loop = TrainingLoop([TrialRun(started)], first)
    loop.run(11)
    assert loop.program is not first


def test_masks_that_were_drawn_anew_outlive_a_checkpoint() -> None:
    both = {**SWITCHED, "resume_at": 15}
    ends = [
        run(strategy="gradient_mask", train=t).tags["trial.weights_sha256"]
        for t in (SWITCHED, both)
    ]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"train": {**STEPS, "switch_at": 20}}, "train.switch_at"),
        ({"train": {**STEPS, "resume_at": 99}}, "train.resume_at"),
        (
            {
                "train": SWITCHED,
                "pattern": {"name": "columns", "indices": [0]},
                "targets": ["output/*"],
            },
            "train.switch_at",
        ),
        ({"train": SWITCHED, "compare": "projection"}, "compare"),
        ({"train": SWITCHED, "pattern": "magnitude"}, "train.switch_at"),
    ],
)
def test_what_cannot_happen_is_refused(sections: dict[str, object], key: str) -> None:
    with pytest.raises(Invalid) as refused:
        run(**sections)
    assert refused.value.key == key


@pytest.mark.parametrize("strategy", ["sparse_values", "hard_mask"])
def test_a_masked_weight_that_does_not_train_is_switched_too(strategy: str) -> None:
    result = run(strategy=strategy, train=SWITCHED, trainable=["output/*", "hidden_2/bias"])
    assert result.metrics["integrity/violations"] == 0


def test_masks_of_other_sizes_are_refused_before_the_training() -> None:
    """Blocks at the edge of a kernel are smaller, so the number of masked entries varies."""
    spec = make(
        strategy="sparse_values",
        pattern={"name": "block", "block": [4, 4], "sparsity": 0.5},
        model={"name": "mlp", "hidden": [10, 10]},
        targets=["hidden_2/kernel"],
        train=SWITCHED,
        seed=1,
    )
    with pytest.raises(Invalid, match="masks of other sizes") as refused:
        check_plans([make(**{**spec.resolved(), "seed": s}) for s in range(8)])
    assert refused.value.key == "train.switch_at"


def test_a_pattern_that_draws_nothing_is_refused_in_the_preflight() -> None:
    fixed = {"name": "columns", "indices": [0]}
    with pytest.raises(Invalid, match="columns draws no other masks"):
        check_plans([make(pattern=fixed, targets=["output/*"], train=SWITCHED)])


def test_an_average_starts_from_the_weight_where_a_value_is_freed() -> None:
    """Otherwise the end of the training, which writes the averages to the weights, would pull the
    freed value towards zero."""
    ema = {"name": "sgd", "learning_rate": 1e-6, "use_ema": True, "ema_momentum": 0.9}
    result = run(strategy="sparse_values", optimizer=ema, held="constant", train=SWITCHED)
    started = setup.start(make(held="constant", train=SWITCHED))
    model = result.artifacts["model.keras"]
    assert model
    loop = single_trial_loop(started)
    loop.run(11)
    freed = loop.plan.weights[0].mask & ~started.plan.weights[0].mask
    assert freed.any()
    with np.load(io.BytesIO(result.artifacts["masks.npz"])) as masks:
        np.testing.assert_array_equal(masks["hidden_1/kernel"], loop.plan.weights[0].mask)
    loaded = loaded_kernel(model)
    np.testing.assert_allclose(loaded[freed], 0.5, atol=1e-3)


def loaded_kernel(model: bytes) -> Array:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(model)
        loaded = keras.models.load_model(path, compile=False)
    return np.asarray(loaded.get_layer("hidden_1").kernel.numpy())
