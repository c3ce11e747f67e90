"""Masks that move under `fit`: `apply(..., schedule=...)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep import strategies
from masksweep.strategies import Invalid, MaskSchedule
from masksweep.strategies.core.training import Training
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.mask_changes.changes import MaskChanges
from masksweep.strategies.patterns.drawing import raw
from masksweep.strategies.schedules.base import Course
from tests.support.selection import by_default, slow

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(160, 12)).astype("float32"), RNG.integers(0, 4, 160)
SCHEDULES: dict[str, MaskSchedule] = {
    "rigl": strategies.RigL(frequency=3),
    "set": strategies.SET(frequency=4, deviation=0.1),
    "gradual": strategies.Gradual(frequency=4),
    "rewinding": strategies.Iterative(rounds=2, rewind_to=3),
    "dense_sparse_dense": strategies.DenseSparseDense(),
    "swap": strategies.Swap(steps=(3, 7)),
    "given": strategies.Given(
        steps=(3, 7),
        masks=[
            {
                "first/kernel": RNG.random((12, 16)) < kept,
                "second/kernel": RNG.random((16, 16)) < kept,
            }
            for kept in (0.6, 0.2)
        ],
    ),
}


def network(*, stateful: bool = True) -> Any:
    """A model with two masked kernels, and with layers that have a state if it is `stateful`.

    Without them Keras traces a step in two thirds of the time.
    """
    keras.utils.set_random_seed(3)
    state = [
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(0.2, seed=4, name="drop"),
    ]
    return keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(16, "relu", name="first"),
            *(state if stateful else []),
            keras.layers.Dense(16, "relu", name="second"),
            keras.layers.Dense(4, name="output"),
        ]
    )


def loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def moving(
    schedule: str,
    strategy: str = "hard_mask",
    *,
    optimizer: str = "adam",
    eager: bool = False,
    stateful: bool = False,
) -> Any:
    masked = strategies.apply(
        network(stateful=stateful),
        strategies.Random(0.7),
        strategy,
        schedule=SCHEDULES[schedule],
        seed=5,
    )
    masked.compile(optimizer, loss(), jit_compile=False, run_eagerly=eager)
    return masked


def train(masked: Any, *, first: int = 0, until: int = 4) -> None:
    """Trains the epochs from `first` to `until` out of four, of five steps each."""

    class Stop(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.stop_training = epoch + 1 == until

    masked.fit(
        X, Y, 32, epochs=4, verbose=0, callbacks=[Stop()], shuffle=False, initial_epoch=first
    )


@pytest.mark.parametrize(
    ("schedule", "strategy"),
    by_default(
        [("rigl", "hard_mask"), ("gradual", "sparse_values")],
        [(s, "hard_mask") for s in SCHEDULES]
        + [(s, k) for s in ("rigl", "gradual") for k in ("sparse_values", "sparse_tensor")],
    ),
)
def test_what_is_cut_stays_cut_and_a_loaded_model_goes_on_to_the_same_bits(
    schedule: str, strategy: str, tmp_path: Path
) -> None:
    whole = moving(schedule, strategy, eager=True, stateful=True)
    train(whole)
    assert strategies.audit(whole).ok
    course = Course(steps=20, epoch=5)
    steps = SCHEDULES[schedule].change_steps(course)
    assert [change.step for change in whole.mask_changes] == [0, *steps]
    assert not any(change.violations or change.stale_slots for change in whole.mask_changes)

    broken_off = moving(schedule, strategy, eager=True, stateful=True)
    train(broken_off, until=2)
    broken_off.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    train(resumed, first=2)
    assert resumed.mask_changes == whole.mask_changes
    expected = whole.dense_weights()
    for name, array in resumed.dense_weights().items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("rate", "schedule"),
    [(0.0, "rigl"), (0.1, "gradual"), slow((0.0, "gradual")), slow((0.1, "rigl"))],
)
def test_what_moved_is_the_same_where_masked_entries_are_not_stored(
    schedule: str, rate: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("masksweep.strategies.core.audit.PART_ENTRIES", 7)
    moved = {}
    for strategy in ("hard_mask", "sparse_values", "sparse_tensor"):
        masked = moving(schedule, strategy)
        masked.optimizer.learning_rate = rate
        train(masked)
        assert len(masked.mask_changes) > 2
        masked.save(tmp_path / "masked.keras")
        loaded = keras.models.load_model(tmp_path / "masked.keras")
        audits = [strategies.audit(model) for model in (masked, loaded)]
        assert audits[0] == audits[1]
        for held in (held for held in masked.holding.weights if held.kept_only):
            # what is left over counts nowhere
            held.value.assign(np.where(held.places() < 0, 3.0, held.value.numpy()))
        assert strategies.audit(masked) == audits[0]
        moved[strategy] = [weight.moved for weight in audits[0].weights]
    assert moved["hard_mask"] == moved["sparse_values"]
    if rate == 0:
        assert not any(moved["sparse_tensor"])
        # an entry that was cut and is regrown had its initial value, and is 0
        assert sum(moved["hard_mask"]) < 0.1
    else:
        assert moved["sparse_tensor"] == moved["hard_mask"]


def batches() -> Any:
    """The batches of `train`."""
    return ((X[i : i + 32], Y[i : i + 32]) for _ in range(4) for i in range(0, 160, 32))


def assert_same(masked: Any, other: Any) -> None:
    assert masked.mask_changes == other.mask_changes
    expected = other.dense_weights()
    for name, array in masked.dense_weights().items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("schedule", by_default(["rigl", "rewinding"], SCHEDULES))
def test_train_on_batch_follows_the_schedule_as_fit_does(schedule: str) -> None:
    by_fit, by_batch = (moving(schedule, eager=True, stateful=True) for _ in range(2))
    train(by_fit)
    with pytest.raises(Invalid, match=f"schedule={SCHEDULES[schedule].name}: must begin first"):
        by_batch.train_on_batch(*next(batches()))
    assert int(by_batch.optimizer.iterations) == 0
    by_batch.begin_schedule(steps=20, steps_per_epoch=5)
    for batch in batches():
        by_batch.train_on_batch(*batch)
    by_batch.moving.count_violations()
    by_batch.optimizer.finalize_variable_values(by_batch.trainable_variables)
    assert len(by_batch.mask_changes) > 1
    assert_same(by_batch, by_fit)


def test_several_steps_at_once_must_have_the_gradients_of_one_change() -> None:
    masked = moving("rigl")
    masked.compile("adam", loss(), jit_compile=False, steps_per_execution=4)
    with pytest.raises(Invalid, match=r"steps_per_execution=4: must be at most 3 with schedule"):
        train(masked)
    masked.compile("adam", loss(), jit_compile=False, steps_per_execution=2)
    train(masked)
    assert len(masked.mask_changes) > 2


def test_a_loop_of_ones_own_follows_the_schedule() -> None:
    def trained(schedule: str) -> Any:
        masked = moving(schedule)
        optimizer = masked.hold_with(keras.optimizers.Adam())
        masked.begin_schedule(steps=20)
        for step, (x, y) in enumerate(batches(), start=1):
            with tf.GradientTape() as tape:
                value = loss()(y, masked(x, training=True))
            variables = masked.trainable_variables
            optimizer.apply(tape.gradient(value, variables), variables)
            masked.change_masks(step)
        return masked

    masked = trained("set")
    steps = SCHEDULES["set"].change_steps(Course(steps=20, epoch=20))
    assert [change.step for change in masked.mask_changes] == [0, *steps]
    assert strategies.audit(masked).ok
    with pytest.raises(Invalid, match="schedule=rigl: needs gradients by masked entries"):
        trained("rigl")
    with pytest.raises(Invalid, match="schedule=None: must be given to apply"):
        strategies.apply(network(), strategies.Random(0.7), "hard_mask").begin_schedule(20)


def test_a_backup_is_restored_with_the_changes_of_its_masks(tmp_path: Path) -> None:
    """`BackupAndRestore` loads the model when `fit` has begun already."""

    class Crash(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    def fit(masked: Any, *callbacks: Any) -> Any:
        arguments = {"epochs": 4, "verbose": 0, "shuffle": False}
        return masked.fit(X, Y, 32, callbacks=list(callbacks), **arguments)

    whole, broken_off, resumed = (moving("rewinding", stateful=True) for _ in range(3))
    fit(whole)
    backup = str(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        fit(broken_off, keras.callbacks.BackupAndRestore(backup), Crash())
    history = fit(resumed, keras.callbacks.BackupAndRestore(backup))
    assert history.epoch == [2, 3]
    assert resumed.mask_changes == whole.mask_changes
    expected = whole.dense_weights()
    for name, array in resumed.dense_weights().items():
        np.testing.assert_array_equal(array, expected[name])


def test_momentum_revives_what_was_cut_and_the_audit_says_so() -> None:
    masked = moving("rigl", "gradient_mask", eager=True)
    train(masked)
    audit = strategies.audit(masked)
    assert not audit.ok
    assert audit.violated_changes == len(masked.mask_changes) - 1
    assert f"moved after {audit.violated_changes} changes of the masks" in str(audit)
    for change in masked.mask_changes[1:]:
        assert change.stale_slots.keys() == {"momentum", "velocity"}
    plain = moving("rigl", "gradient_mask", optimizer="sgd", eager=True)
    train(plain)
    assert strategies.audit(plain).ok


@pytest.mark.parametrize("schedule", ["rigl", "gradual"])
def test_a_sweeps_training_and_fit_move_the_masks_alike(schedule: str) -> None:
    """The same bits, from `Training` with the batches of `fit`."""
    masked = moving(schedule, stateful=True)
    train(masked)
    model = network()
    weights, initial = describe(model), values(model)
    plan = make_plan(
        weights, initial, masks=strategies.Random(0.7).from_weights, held=Zero().values, seed=5
    )
    first = plan
    if SCHEDULES[schedule].dense_start:
        first = make_plan(
            weights,
            initial,
            masks=lambda w, _: {n: np.ones(a.shape, bool) for n, a in w.items()},
            held=Zero().values,
        )
    training = Training(
        model,
        strategies.STRATEGIES["hard_mask"](),
        first,
        optimizer=keras.optimizers.Adam(),
        loss=loss(),
    )
    changes = MaskChanges(
        SCHEDULES[schedule],
        Course(steps=20, epoch=5),
        plan,
        Zero().values,
        lambda number, weights: {},
        lambda step: int(raw(1, 5, f"schedule/{step}")[0] >> 1),
    )
    changes.start(training)
    step, gradients = tf.function(training.step), tf.function(training.dense_gradients)
    for number in range(20):
        rows = slice(32 * (number % 5), 32 * (number % 5 + 1))
        x, y = tf.constant(X[rows]), tf.constant(Y[rows])
        step(x, y)
        changes.after_step(training, number + 1, lambda x=x, y=y: gradients(x, y))  # type: ignore[misc]
    assert [c.weights for c in changes.records] == [c.weights for c in masked.mask_changes]
    expected = masked.dense_weights()
    for weight, array in zip(training.weights, training.effective(), strict=True):
        np.testing.assert_array_equal(array, expected[weight.name])


def test_the_gradients_change_nothing_in_the_model() -> None:
    """Statistics, seeds and metrics are those of a training without them."""
    finals = []
    for needed in (True, False):
        masked = moving("rigl", stateful=True)
        masked.moving.after_steps = lambda steps, gradients=masked.moving.gradients: (
            gradients.wait_for(steps + 1 if needed else None)  # noqa: B023
        )
        masked.fit(X, Y, 32, epochs=2, verbose=0, shuffle=False)
        finals.append([np.asarray(v) for v in masked.variables])
        assert any(np.any(g.numpy()) for g in masked.moving.gradients._gradients) == needed
    for one, other in zip(*finals, strict=True):
        np.testing.assert_array_equal(one, other)


def test_several_steps_in_one_execution_change_the_masks_at_its_end() -> None:
    masked = moving("set")
    masked.compile("adam", loss(), steps_per_execution=5)
    masked.fit(X, Y, 32, epochs=4, verbose=0)
    assert [change.step for change in masked.mask_changes] == [0, 4, 8, 12, 16]
    assert strategies.audit(masked).ok


def test_epochs_that_are_left_out_do_not_count() -> None:
    masked = moving("gradual")
    masked.fit(X, Y, 32, epochs=6, initial_epoch=2, verbose=0)
    assert masked.moving.course == Course(steps=20, epoch=5)
    assert masked.plan.sparsity == pytest.approx(0.7, abs=0.01)


def test_static_is_no_schedule() -> None:
    schedule = strategies.SCHEDULES["static"]()
    masked = strategies.apply(network(), strategies.Random(0.5), schedule=schedule)
    assert masked.moving is None
    assert masked.mask_changes == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"schedule": "rigl"}, "must be a mask schedule, such as RigL()"),
    ({"strategy": "var_list"}, "schedule=rigl: its masks cannot move"),
    ({"held": {"*": "zero"}}, 'must be a number, "zero" or "init" with a schedule'),
    (
        {
            "schedule": strategies.Gradual(),
            "strategy": strategies.STRATEGIES["sparse_tensor"](format="coo"),
        },
        "schedule=gradual: its arrays have a place for each kept entry",
    ),
    (
        {"schedule": strategies.Gradual(), "strategy": "sparse_tensor", "held": "init"},
        "first/kernel: a sparse matrix holds zero only",
    ),
    (
        {"schedule": strategies.Swap(), "pattern": lambda name, shape: np.ones(shape)},
        "must be a pattern that swap can draw again",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:30])
def test_a_bad_call_is_refused(arguments: dict[str, Any], message: str) -> None:
    given = {"pattern": strategies.Random(0.5), "schedule": strategies.RigL(), **arguments}
    with pytest.raises(Invalid) as raised:
        strategies.apply(network(), **given)
    assert message in str(raised.value)


def test_a_negative_zero_is_held_where_masks_get_sparser() -> None:
    """The whole weight trains at first, so nothing tells that zeros must be stored."""
    schedule = SCHEDULES["gradual"]
    masked = strategies.apply(
        network(stateful=False),
        strategies.Random(0.7),
        "sparse_tensor",
        held=-0.0,
        schedule=schedule,
    )
    masked.compile("adam", loss(), jit_compile=False, run_eagerly=True)
    train(masked)
    assert strategies.audit(masked).ok
    assert len(masked.mask_changes) > 1


def test_fit_must_know_its_length() -> None:
    masked = moving("rigl")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).filter(lambda x, y: True).batch(32)
    with pytest.raises(Invalid, match="steps_per_epoch"):
        masked.fit(data, epochs=1, verbose=0, shuffle=False)
    with pytest.raises(Invalid, match=r"schedule=rigl: frequency=3 must be below 2\.25"):
        moving("rigl").fit(X[:96], Y[:96], 32, verbose=0)  # three steps


def test_gradient_accumulation_counts_updates_of_the_weights() -> None:
    masked = moving("gradual")
    masked.compile(keras.optimizers.Adam(gradient_accumulation_steps=2), loss(), jit_compile=False)
    train(masked)
    assert [change.step for change in masked.mask_changes] == [0, 4, 7]
    assert masked.plan.sparsity == pytest.approx(0.7, abs=0.01)


def test_a_new_optimizer_goes_on_with_the_schedule(tmp_path: Path) -> None:
    whole = moving("set")
    train(whole)
    broken_off = moving("set")
    train(broken_off, until=2)
    broken_off.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    for masked in (broken_off, loaded):
        masked.compile("adam", loss(), jit_compile=False)
        train(masked, first=2)
        assert [c.step for c in masked.mask_changes] == [c.step for c in whole.mask_changes]


def test_loaded_weights_go_on_with_the_schedule(tmp_path: Path) -> None:
    """The optimizer is not built yet, so that Keras does not load its state."""
    whole, broken_off, again = (moving("set") for _ in range(3))
    train(whole)
    train(broken_off, until=2)
    broken_off.save_weights(tmp_path / "a.weights.h5")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        again.load_weights(tmp_path / "a.weights.h5")
    train(again, first=2)
    assert [c.step for c in again.mask_changes] == [c.step for c in whole.mask_changes]


@pytest.mark.parametrize("schedule", ["rigl", "set"])
def test_a_frozen_layer_keeps_its_mask_and_its_weights(schedule: str) -> None:
    masked = moving(schedule)
    masked.get_layer("first").trainable = False
    masked.compile("adam", loss())
    before = masked.dense_weights()["first/kernel"]
    train(masked)
    np.testing.assert_array_equal(masked.dense_weights()["first/kernel"], before)
    changed = {
        name for record in masked.mask_changes for name, w in record.weights.items() if w.cut
    }
    assert changed == {"second/kernel"}


def test_a_backup_before_a_change_has_its_gradients(tmp_path: Path) -> None:
    """The first step after the backup is one after which RigL changes the masks."""

    class Crash(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise KeyboardInterrupt

    def fit(*more: Any) -> Any:
        masked = strategies.apply(network(stateful=False), strategies.Random(0.7), schedule=every_2)
        masked.compile("adam", loss())
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        masked.fit(X, Y, 32, epochs=4, verbose=0, callbacks=[backup, *more])
        return masked

    every_2 = strategies.RigL(frequency=2, end=1.0)
    with pytest.raises(KeyboardInterrupt):
        fit(Crash())
    assert [change.step for change in fit().mask_changes] == list(range(0, 20, 2))


def test_weights_of_before_a_new_optimizer_go_on_with_gradients(tmp_path: Path) -> None:
    """The compiled step must not know how many steps the optimizers before it have done."""
    masked = strategies.apply(
        network(stateful=False),
        strategies.Random(0.7),
        schedule=strategies.RigL(frequency=3, end=1.0),
    )
    masked.compile("adam", loss())
    masked.begin_schedule(20, 5)
    masked.fit(X, Y, 32, verbose=0)
    masked.save_weights(tmp_path / "model.weights.h5")
    masked.compile(keras.optimizers.Adam(1e-4), loss())
    masked.fit(X, Y, 32, verbose=0)
    masked.load_weights(tmp_path / "model.weights.h5")
    masked.fit(X, Y, 32, epochs=2, verbose=0)
    assert [change.step for change in masked.mask_changes] == [0, 3, 6, 9, 12, 15]


@pytest.mark.parametrize("strategy", ["hard_mask", "sparse_values"])
def test_gradients_by_dense_weights_are_those_of_a_sweep_with_regularizers(strategy: str) -> None:
    def penalized() -> Any:
        keras.utils.set_random_seed(1)
        l2 = keras.regularizers.L2(0.3)
        first = keras.layers.Dense(8, name="first", kernel_regularizer=l2, activity_regularizer=l2)
        return keras.Sequential([keras.Input((12,)), first, keras.layers.Dense(4, name="output")])

    x, y = tf.constant(X[:32]), tf.constant(Y[:32])
    masked = strategies.apply(
        penalized(), strategies.Random(0.5), strategy, held=0.5, schedule=strategies.RigL(1)
    )
    masked.compile(keras.optimizers.SGD(0.0), loss())
    masked.begin_schedule(4, 4)
    plan = masked.plan
    masked.train_on_batch(x, y)
    gradients = masked.moving.gradients.of_step(1)
    training = Training(
        penalized(),
        strategies.STRATEGIES[strategy](),
        plan,
        optimizer=keras.optimizers.SGD(0.0),
        loss=loss(),
    )
    for name, gradient in training.dense_gradients(x, y).items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-5, atol=1e-6)
        assert np.abs(gradient).max() > 0.1


def test_weights_that_had_other_masks_are_not_restored() -> None:
    masked = moving("set", "sparse_values")
    stop = keras.callbacks.EarlyStopping("loss", restore_best_weights=True)
    for given in (stop, [[stop]]):
        with pytest.raises(Invalid, match="EarlyStopping: must not restore the best weights"):
            masked.fit(X, Y, 32, epochs=2, verbose=0, callbacks=given)
    assert masked.mask_changes == []
    before = masked.get_weights()
    train(masked)
    with pytest.raises(Invalid, match="cannot be set after the masks have moved"):
        masked.set_weights(before)
