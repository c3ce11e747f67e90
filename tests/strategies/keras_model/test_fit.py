"""A masked model under Keras' own training: every option, the same bits as without masks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep import strategies
from masksweep.strategies import Random
from masksweep.strategies.core.audit import same_bits, same_weights
from masksweep.strategies.core.weights import values
from tests.support.keras_models import BATCH, SAMPLES, Fit, images, penalized, two_of_each
from tests.support.selection import by_default


def as_dataset() -> dict[str, Any]:
    return {"x": tf.data.Dataset.from_tensor_slices(images()).batch(BATCH), "y": None}


def pairs() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, SAMPLES, 4)).astype("float32")
    targets = {"left": first.sum(1, keepdims=True), "right": second.sum(1, keepdims=True)}
    return {"x": [first, second], "y": targets}


ADAM = keras.optimizers.Adam
FEW = {"steps_per_epoch": 2}
EAGER = {"run_eagerly": True}
"""What does not depend on the graph is compared eagerly, which takes a third of the time."""
FITS: dict[str, Fit] = {
    "plain": Fit(),
    "several inputs and outputs": Fit(
        two_of_each,
        compiling={"loss": {"left": "mse", "right": "mae"}, "metrics": None},
        fitting=pairs,
    ),
    "subclassed, add_loss, a metric": Fit(penalized),
    "sample weights, clipping, EMA": Fit(
        optimizer=lambda: ADAM(0.01, global_clipnorm=0.1, use_ema=True, ema_overwrite_frequency=3),
        compiling=EAGER,
        fitting=lambda: {"sample_weight": np.linspace(0, 1, SAMPLES)},
    ),
    "class weights, validation, weight decay": Fit(
        optimizer=lambda: adamw(),
        compiling=EAGER,
        fitting=lambda: {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}, "validation_split": 0.25},
    ),
    "tf.data, EMA at the end": Fit(
        optimizer=lambda: ADAM(0.01, use_ema=True),
        compiling=EAGER,
        fitting=lambda: {**as_dataset(), "batch_size": None, "shuffle": False},
    ),
    "steps_per_execution, gradient accumulation": Fit(
        optimizer=lambda: ADAM(0.01, gradient_accumulation_steps=2),
        compiling={"steps_per_execution": 3},
    ),
    "float16, loss scaling": Fit(policy="mixed_float16"),
    "bfloat16": Fit(policy="mixed_bfloat16", compiling=EAGER),
}


def everything(model: Any) -> list[Any]:
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    return [np.asarray(v.numpy()) for v in [*variables, *model.optimizer.variables]]


# each of them runs by default without a strategy, or with masks, or both
WITHOUT = [
    *("plain", "subclassed, add_loss, a metric", "sample weights, clipping, EMA"),
    "steps_per_execution, gradient accumulation",
]
MASKED = [
    *("plain", "several inputs and outputs", "class weights, validation, weight decay"),
    *("tf.data, EMA at the end", "float16, loss scaling", "bfloat16"),
]
assert {*WITHOUT, *MASKED} == FITS.keys()


@pytest.mark.parametrize("name", by_default(WITHOUT, FITS))
def test_without_a_strategy_fit_is_that_of_the_plain_model(name: str) -> None:
    """Substitutes a weight by itself: history, weights, states and slots have the same bits."""
    fit = FITS[name]
    plain, model = fit.build(), None
    history = fit.fit(plain)
    model = fit.build()
    masked = strategies.apply(model, Random(0.5), "dense", targets=["*/kernel"])
    assert fit.fit(masked) == history
    pairs_of_arrays = zip(everything(plain), everything(masked), strict=True)
    assert all(same_bits(a, b) for a, b in pairs_of_arrays)


@pytest.mark.parametrize("name", by_default(MASKED, FITS))
def test_masked_weights_hold_and_kept_ones_move(name: str) -> None:
    fit = FITS[name]
    held = {"*": 0.25}
    masked = strategies.apply(fit.build(), Random(0.5), held=held, targets=["*/kernel"])
    fit.fit(masked)
    audit = strategies.audit(masked)
    assert audit.ok, f"\n{audit}"
    assert min(w.moved for w in audit.weights) > 0.9


@pytest.mark.parametrize("strategy", ["weight_mask", "gradient_mask", "projection", "hard_mask"])
def test_kernels_that_are_used_on_sequences_are_held(strategy: str) -> None:
    """In a graph, their gradients have no known shape."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.layers.Dense(5, name="hidden"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, name="output"),
        ]
    )
    masked = strategies.apply(model, Random(0.5), strategy)
    masked.compile("adam", "mse")
    masked.fit(np.ones((8, 4, 3)), np.ones((8, 2)), batch_size=3, verbose=0)
    assert strategies.audit(masked).ok


@keras.saving.register_keras_serializable("tests")
class Dropping(keras.Model):  # type: ignore[misc]
    """A model whose `call` has no argument `training`, with a layer that has."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = keras.layers.Dense(8, name="hidden")
        self.drop = keras.layers.Dropout(0.5, seed=1)
        self.last = keras.layers.Dense(1, name="last")
        self(np.ones((1, 4)))

    def call(self, x: Any) -> Any:
        return self.last(self.drop(self.hidden(x)))


def test_layers_are_told_that_a_model_without_the_argument_trains() -> None:
    keras.utils.set_random_seed(1)
    plain, x = Dropping(), np.ones((8, 4), "float32")
    masked = strategies.apply(plain, {"hidden/kernel": np.ones((4, 8))})
    for training in (False, True, None):
        plain.drop.seed_generator.state.assign([1, 1])
        expected = plain(x, training=training).numpy()
        plain.drop.seed_generator.state.assign([1, 1])
        assert same_bits(masked(x, training=training).numpy(), expected)
    assert len(np.unique(masked(x, training=True))) > 1
    # Keras does not tell them in fit
    masked.compile("sgd", "mse", jit_compile=False)
    before = plain.drop.seed_generator.state.numpy()
    masked.fit(x, np.ones((8, 1)), verbose=0)
    assert same_bits(plain.drop.seed_generator.state.numpy(), before)


@pytest.mark.parametrize("strategy", ["gradient_mask", "hard_mask", "projection", "weight_mask"])
def test_weights_that_are_set_are_held(strategy: str) -> None:
    fit = Fit()
    masked = strategies.apply(fit.build(), strategies.Random(0.5), strategy, held=0.25)
    masked.set_weights([np.full(w.shape, 2, w.dtype) for w in masked.get_weights()])
    for held in masked.plan.weights:
        weight = masked.dense_weights()[held.weight.name]
        assert (weight == np.where(held.mask, 2, 0.25)).all()


def test_losses_of_layers_are_of_the_masked_weights() -> None:
    model = penalized()
    start = values(model)["hidden/kernel"]
    mask = np.zeros(start.shape, bool)
    masked = strategies.apply(model, {"hidden/kernel": mask}, "weight_mask", held=2.0)
    masked(images()[0])
    added, regularization = masked.losses
    assert float(regularization) == pytest.approx(0.1 * 4 * mask.size)
    assert float(added) > 0


def test_evaluate_and_predict_use_the_masked_weights() -> None:
    fit = Fit()
    masked = strategies.apply(fit.build(), Random(0.5), "sparse_values", held="init")
    fit.fit(masked)
    x, y = images()
    plain = masked.export_plain()
    plain.compile(loss=masked.loss, metrics=["accuracy"])
    assert same_bits(plain.predict(x, verbose=0), masked.predict(x, verbose=0))
    assert plain.evaluate(x, y, verbose=0) == masked.evaluate(x, y, verbose=0)


def test_a_training_loop_of_ones_own_is_held() -> None:
    masked = strategies.apply(Fit().build(), Random(0.5), held=0.5)
    optimizer = masked.hold_with(adamw())
    x, y = images()
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function  # type: ignore[untyped-decorator]
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of(y, masked(x, training=True))
        gradients = tape.gradient(loss, masked.trainable_variables)
        optimizer.apply_gradients(zip(gradients, masked.trainable_variables, strict=True))
        return loss

    for _ in range(3):
        step(tf.constant(x), tf.constant(y))
    assert strategies.audit(masked).ok
    optimizer.finalize_variable_values(masked.trainable_variables)
    assert strategies.audit(masked).ok


def adamw() -> Any:
    return keras.optimizers.AdamW(0.01, weight_decay=0.1)


def test_two_optimizers_hold_what_each_of_them_trains() -> None:
    masked = strategies.apply(Fit().build(), Random(0.5), held=0.5)
    first, second = masked.hold_with(adamw()), masked.hold_with(adamw())
    x, y = images()
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    variables = masked.trainable_variables
    for _ in range(2):
        with tf.GradientTape() as tape:
            loss = loss_of(y, masked(x, training=True))
        gradients = tape.gradient(loss, variables)
        first.apply(gradients[:2], variables[:2])
        second.apply(gradients[2:], variables[2:])
    assert strategies.audit(masked).ok


def test_an_optimizer_that_holds_nothing_does_not_train() -> None:
    fit = Fit(compiling=EAGER, fitting=lambda: FEW)
    masked = strategies.apply(fit.build(), Random(0.5), held=0.5)
    with pytest.raises(ValueError, match="starts its slots from the weights"):
        masked.compile(keras.optimizers.ScheduleFreeAdamW(), "mse")
    assert not masked.compiled
    fit.fit(masked)
    masked.optimizer = adamw()
    masked.train_function = None
    with pytest.raises(ValueError, match="must be set by compile or hold_with"):
        fit.fit(masked)


@pytest.mark.parametrize("policy", by_default(["mixed_float16"], ["float32", "mixed_float16"]))
def test_an_optimizer_is_used_again(policy: str) -> None:
    fit = Fit(compiling=EAGER, fitting=lambda: FEW, policy=policy)
    masked = strategies.apply(fit.build(), Random(0.5), held=0.5)
    first, second = adamw(), adamw()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for optimizer in (first, first, second, first):
        masked.compile(optimizer, loss, run_eagerly=True)
        fit.fit(masked, epochs=1)
        assert strategies.audit(masked).ok


def test_inside_another_model_it_trains_only_with_an_optimizer_that_holds() -> None:
    class Outer(keras.Model):  # type: ignore[misc]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.inner(x, training=training)

    fit = Fit(compiling=EAGER)
    masked = strategies.apply(fit.build(), Random(0.5), held=0.5)
    outer = Outer(masked)
    # Keras replaces what is raised inside of a call
    with pytest.raises(RuntimeError, match="trains inside of another model"):
        fit.fit(outer)
    held = Outer(masked)
    held.compile(masked.hold_with(adamw()), outer.loss, run_eagerly=True)
    held.fit(*images(), verbose=0, **FEW)
    assert strategies.audit(masked).ok


def test_the_loss_of_masked_outputs_looks_at_the_mask_of_keras() -> None:
    def losses(strategy: str | None) -> float:
        keras.utils.set_random_seed(5)
        model = keras.Sequential(
            [
                keras.Input((5,)),
                keras.layers.Embedding(4, 3, mask_zero=True),
                keras.layers.LSTM(4, return_sequences=True),
                keras.layers.Dense(2, name="output"),
            ]
        )
        masks = {"output/*": strategies.Columns(indices=(0,))}
        trained = strategies.apply(model, masks, strategy, held="init") if strategy else model
        trained.compile("sgd", "mse", run_eagerly=True)
        x = np.tile([1, 2, 3, 0, 0], (4, 1))
        return float(trained.evaluate(x, np.ones((4, 5, 2)), verbose=0))

    assert losses("loss_mask") == losses(None)


def test_layers_that_compute_otherwise_do_so_in_their_thread_only() -> None:
    columns = strategies.Columns(0.5)
    masked = strategies.apply(Fit().build(), columns, "var_list", targets="hidden/kernel")
    x = images()[0]
    expected = np.asarray(masked(x))
    with ThreadPoolExecutor(4) as pool:
        outputs = list(pool.map(lambda _: np.asarray(masked(x)), range(40)))
    assert all(same_bits(output, expected) for output in outputs)


@pytest.mark.parametrize(
    ("strategy", "change", "said"),
    [
        ("hard_mask", lambda layer: layer.enable_lora(2), "has LoRA"),
        ("sparse_tensor", lambda layer: layer.enable_lora(2), "has LoRA"),
        ("hard_mask", lambda layer: layer.quantize("int8"), "is quantized"),
    ],
)
def test_a_layer_that_gets_lora_or_is_quantized_later_is_refused(
    strategy: str, change: Callable[[Any], None], said: str, tmp_path: Path
) -> None:
    """LoRA would add to held entries, and a quantized layer has no masked kernel any more."""
    masked = strategies.apply(Fit().build(), Random(0.5), strategy, targets="hidden/kernel")
    change(masked.get_layer("hidden"))
    uses: tuple[Callable[[], object], ...] = (
        lambda: masked(images()[0]),
        lambda: strategies.audit(masked),
        masked.export_plain,
        lambda: masked.save(tmp_path / "model.keras"),
    )
    for use in uses:
        with pytest.raises(strategies.Invalid, match=f"^model=hidden/kernel: {said}"):
            use()
    assert not (tmp_path / "model.keras").exists()


def test_a_masked_model_cannot_be_quantized() -> None:
    masked = strategies.apply(Fit().build(), Random(0.5))
    with pytest.raises(strategies.Invalid, match="quantize what export_plain returns"):
        masked.quantize("int8")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_sparse_products_in_half_precision(policy: str) -> None:
    fit = Fit(compiling=EAGER, fitting=lambda: FEW, policy=policy)
    kernels = ["conv/kernel", "hidden/kernel"]
    masked = strategies.apply(fit.build(), Random(0.5), "sparse_tensor", targets=kernels)
    fit.fit(masked)
    assert strategies.audit(masked).ok


@pytest.mark.parametrize("strategy", ["hard_mask", "sparse_values"])
def test_frozen_layers_stay_as_they_are(strategy: str) -> None:
    model = Fit().build()
    masked = strategies.apply(model, Random(0.5), strategy)
    before = masked.dense_weights()
    model.get_layer("conv").trainable = False
    Fit(compiling=EAGER, fitting=lambda: FEW).fit(masked)
    after = masked.dense_weights()
    assert len(masked.trainable_variables) == 6
    assert same_bits(before["conv/kernel"], after["conv/kernel"])
    assert not same_bits(before["hidden/kernel"], after["hidden/kernel"])


# -- callbacks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["hard_mask", "sparse_values"])
def test_early_stopping_restores_the_best_weights(strategy: str) -> None:
    fit = Fit(optimizer=lambda: keras.optimizers.Adam(0.3))
    masked = strategies.apply(fit.build(), Random(0.5), strategy)
    best: list[dict[str, Any]] = []
    losses: list[float] = []

    def remember(epoch: int, logs: dict[str, float]) -> None:
        if not losses or logs["val_loss"] < min(losses):
            best.append(masked.dense_weights())
        losses.append(logs["val_loss"])

    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    watch = keras.callbacks.LambdaCallback(on_epoch_end=remember)
    fit.fit(masked, epochs=8, validation_split=0.5, callbacks=[watch, stop])
    assert len(losses) < 8
    assert same_weights(masked.dense_weights(), best[-1])


def test_a_training_that_breaks_off_is_resumed_from_its_backup(tmp_path: Path) -> None:
    class BreakOff(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise KeyboardInterrupt

    def backup() -> Any:
        return keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)

    def train(*callbacks: Any) -> tuple[Any, list[int]]:
        fit = Fit(compiling=EAGER)
        masked = strategies.apply(fit.build(), Random(0.5), "sparse_values", held=0.1)
        history = keras.callbacks.History()
        fit.fit(masked, epochs=4, shuffle=False, callbacks=[*callbacks, history])
        return masked, history.epoch

    whole, _ = train()
    with pytest.raises(KeyboardInterrupt):
        train(backup(), BreakOff())
    resumed, epochs = train(backup())
    assert epochs == [2, 3]
    assert same_weights(whole.dense_weights(), resumed.dense_weights())


def test_callbacks_that_save_and_log(tmp_path: Path) -> None:
    masked = strategies.apply(Fit().build(), Random(0.5))
    callbacks = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras"),
        keras.callbacks.ModelCheckpoint(tmp_path / "w.weights.h5", save_weights_only=True),
        keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=0, min_delta=10.0),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
    ]
    Fit(compiling=EAGER).fit(masked, callbacks=callbacks)
    assert float(masked.optimizer.learning_rate) < 0.01
    for load in (
        lambda: keras.models.load_model(tmp_path / "best.keras"),
        lambda: _with_weights(tmp_path / "w.weights.h5"),
    ):
        loaded: Any = load()
        assert same_weights(loaded.dense_weights(), masked.dense_weights())
        assert strategies.audit(loaded).ok


def _with_weights(path: Path) -> Any:
    masked = strategies.apply(Fit().build(), Random(0.5))
    masked.load_weights(path)
    return masked


def test_tensorboard_draws_the_model(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    masked = strategies.apply(Fit().build(), Random(0.5))
    Fit().fit(masked, callbacks=[keras.callbacks.TensorBoard(tmp_path, histogram_freq=1)])
    assert strategies.audit(masked).ok
    assert list(tmp_path.rglob("events.out.tfevents.*"))
