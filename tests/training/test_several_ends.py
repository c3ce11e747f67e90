"""Models with several inputs and outputs: the example of CONTRIBUTING.md, as Keras trains it."""

from __future__ import annotations

import importlib
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies import Invalid, Weight
from masksweep.strategies.core.audit import same_bits
from masksweep.strategies.core.selection import target_names
from masksweep.strategies.core.weights import values
from masksweep.sweeps.components.datasets import DATASETS, DataSet, base
from masksweep.sweeps.components.datasets.named import Named
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.components.testing import check_dataset, check_model
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import batches, feed, loop, pack, preflight, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.run_trial import run
from masksweep.sweeps.training.state import PackMember
from tests.support.plugin import my_ends
from tests.support.selection import slow
from tests.support.trials import trial

LOSS = {"size": "huber"}
TRAIN = {
    "epochs": 2,
    "batch_size": 60,
    "jit": False,
    "loss": LOSS,
    "loss_weights": {"size": 0.5},
    "metrics": {"size": ["mean_absolute_error"], "kind": ["categorical_accuracy"]},
}


@pytest.fixture(autouse=True)
def _ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the components of the page."""
    for registry in (DATASETS, MODELS):
        monkeypatch.setattr(registry, "_components", dict(registry))
    (tmp_path / "my_ends.py").write_text(my_ends())
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_ends", raising=False)
    importlib.import_module("my_ends")


def make(**sections: Any) -> Trial:
    train = {**TRAIN, **sections.pop("train", {})}
    ends = {"model": "my_ends", "data": "my_ends_data", "speed": {"rounds": 0}}
    return trial(**{**ends, **sections}, train=train)


def finished(given: Trial) -> TrialResult:
    result = run(given, lambda _: None, None)
    assert isinstance(result, TrialResult)
    assert result.status == "ok", result.reason
    return result


def compiled(start: Any) -> Any:
    """The trial's model as a Keras model that is compiled in the same way, at the same weights."""
    model = setup.network(start.trial, start.data).build(0)
    variables = model.trainable_variables
    for variable, array in zip(variables, start.weights.values(), strict=True):
        variable.assign(array)
    model.compile(
        keras.optimizers.Adam(start.trial.optimizer.learning_rate),
        loss={
            "kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "size": "huber",
        },
        loss_weights={"kind": 1.0, "size": 0.5},
        metrics={"kind": ["accuracy"], "size": ["mse", "mae"]},
        jit_compile=False,
    )
    return model


def test_the_dense_control_is_fit_of_keras_to_the_bit() -> None:
    training = single_trial_loop(start := setup.start(make(strategy="dense")))
    training.run()
    model = compiled(start)
    for epoch in range(2):
        for x, y in batches.of_epoch(start, epoch):
            model.train_on_batch(x, y)
    ours = training.program.single_program.effective()
    theirs = values(model)
    assert ours.keys() == theirs.keys()
    assert all(same_bits(ours[name], theirs[name]) for name in ours)
    # metrics have the names and the values that Keras gives them
    x, y = start.data.test
    expected = model.evaluate(x, y, batch_size=len(y["kind"]), verbose=0, return_dict=True)
    (metrics,) = training.scores("test")
    names = {"size_mae": "size_mean_absolute_error"}
    for name, value in expected.items():
        assert metrics[f"test/{names.get(name, name)}"] == pytest.approx(value, rel=1e-5), name
    assert metrics["test/accuracy"] == metrics["test/kind_accuracy"]
    assert metrics.keys() == {
        "test/loss", "test/accuracy", "test/kind_loss", "test/kind_accuracy", "test/size_loss",
        "test/size_mse", "test/size_mean_absolute_error", "test/kind_categorical_accuracy",
    }  # fmt: skip


@dataclass(frozen=True)
class Streamed(DataSet):
    """The samples of `my_ends_data` from `tf.data`."""

    name: ClassVar[str] = "streamed"
    tasks: ClassVar = {"kind": "classification", "size": "regression"}
    standardised: ClassVar[bool | None] = False
    outputs: ClassVar = {"kind": 2}
    deterministic: ClassVar[bool] = True
    validation: float = 0.0

    def samples(self) -> tuple[Any, Any]:
        train, test = DATASETS["my_ends_data"]().samples()
        return tf.data.Dataset.from_tensor_slices(train), tf.data.Dataset.from_tensor_slices(test)

    def __reduce__(self) -> Any:
        return _streamed_elsewhere, ()


def _streamed_elsewhere() -> Streamed:
    """The data set in a process that has not loaded the components of the page."""
    if "my_ends_data" not in DATASETS:
        sys.path.insert(0, tempfile.mkdtemp())
        Path(sys.path[0], "my_ends.py").write_text(my_ends())
        importlib.import_module("my_ends")
    return Streamed()


@dataclass(frozen=True)
class Stored(Streamed):
    """The same samples in memory."""

    name: ClassVar[str] = "stored"

    def samples(self) -> tuple[Any, Any]:
        return DATASETS["my_ends_data"]().samples()


def test_a_pipeline_trains_as_arrays_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (Streamed, Stored):
        monkeypatch.setitem(DATASETS._components, data.name, data)
        monkeypatch.setitem(DATASETS._origins, data.name, "tests")
    check_dataset(Streamed())
    ends = {"train": {"shuffle": False}, "strategy": "weight_mask"}
    expected, streamed = (finished(make(data=d.name, **ends)) for d in (Stored, Streamed))
    assert streamed.tags["trial.weights_sha256"] == expected.tags["trial.weights_sha256"]
    scores = {k: v for k, v in expected.metrics.items() if k.startswith(("train/", "test/"))}
    assert "test/size_mse" in scores
    for key, value in scores.items():
        assert streamed.metrics[key] == pytest.approx(value, abs=1e-6), key
    monkeypatch.setattr(feed, "WINDOW_BYTES", 3 * 60 * 19 * 4)  # three steps, and not all of them
    again = finished(make(data="streamed", **ends))
    assert again.tags["trial.weights_sha256"] == expected.tags["trial.weights_sha256"]


def test_a_pipeline_that_does_not_fit_its_tasks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = tf.data.Dataset.from_tensor_slices
    (x, y), test = Stored().samples()
    cases = (
        ({"samples": (x, {"kind": y["kind"]})}, "has the targets kind, not kind, size"),
        ({"samples": (x, {**y, "size": y["size"][:, 0]})}, "targets of the shape (); [outputs]"),
        ({"samples": ({"picture": x["picture"]}, y)}, "must have samples of one shape"),
        ({"samples": (dict(reversed(x.items())), y)}, "must have its inputs in one order"),
        ({"samples": (x, y), "outputs": None}, "must set outputs, the number of classes of kind"),
    )
    for change, said in cases:
        base._load.cache_clear()
        for key, value in change.items():
            made = (lambda _, value=value: (slices(value), slices(test))) if value else None
            monkeypatch.setattr(Streamed, key, made)
        with pytest.raises(Invalid) as refused:
            Streamed().load()
        assert said in str(refused.value), refused.value


def test_the_data_set_and_the_model_pass_their_checks() -> None:
    check_dataset(DATASETS["my_ends_data"]())
    inputs, outputs = {"picture": (4, 4), "numbers": (3,)}, {"kind": 2, "size": 1}
    check_model(MODELS["my_ends"](), inputs, outputs)
    by_name = type("Swapped", (MODELS["my_ends"],), {"network": _swapped})
    with pytest.raises(AssertionError, match="its outputs are"):
        check_model(by_name(), inputs, outputs)


def _swapped(self: Any, inputs: Any, outputs: Any) -> Any:
    swapped = {"kind": outputs["size"], "size": outputs["kind"]}
    return MODELS["my_ends"]().network(inputs, swapped)


@pytest.mark.parametrize(
    "strategy",
    ["hard_mask", "sparse_tensor", *map(slow, ("weight_mask", "gradient_mask", "projection"))],
)
def test_masks_hold(strategy: str) -> None:
    metrics = finished(make(strategy=strategy)).metrics
    assert metrics["integrity/ok"] == 1
    assert metrics["integrity/violations"] == 0
    assert metrics["sparsity/achieved"] == pytest.approx(0.5, abs=0.02)


def test_the_order_of_the_outputs_makes_another_program() -> None:
    first, second = Named(a=1, b=2), Named(b=2, a=1)
    assert first != second
    assert len({first: 0, second: 1, Named(a=1, b=2): 2}) == 2


def test_no_output_layer_is_masked_by_default() -> None:
    masked = {w.weight.name for w in setup.start(make()).plan.weights}
    assert masked == {"picture_hidden/kernel", "numbers_hidden/kernel"}
    with pytest.raises(Invalid, match="no kernel other than those of the output layers"):
        target_names(
            [Weight(f"{n}/kernel", (2, 2), "float32", "Dense", makes_output=True) for n in "ab"],
            None,
        )


def test_defaults_do_not_change_the_identity() -> None:
    plain = make(train={"loss": None, "loss_weights": None, "metrics": []})
    kind = "sparse_categorical_crossentropy"
    given = {"loss": {"kind": kind}, "loss_weights": {"size": 1.0}, "metrics": {"size": []}}
    assert make(train=given).id == plain.id
    assert make(train={**given, "loss": LOSS}).id != plain.id
    listed, by_name = ({"metrics": m} for m in (["auc"], {"kind": ["auc"], "size": []}))
    assert make(train=listed).id == make(train=by_name).id != plain.id


def test_a_leak_is_found() -> None:
    assert finished(make(strategy="init_only")).metrics["integrity/ok"] == 0


def test_a_neighbour_in_a_pack_changes_no_bit() -> None:
    trials = [make(seed=seed, launch={"pack": 2}) for seed in (0, 1)]

    def of_pack(*members: Trial) -> list[Any]:
        return pack.run([PackMember(t, lambda _: None, None) for t in members])

    first, second = of_pack(*trials)
    assert "trial.alone" not in first.tags
    assert first.metrics["test/size_mse"] != second.metrics["test/size_mse"]
    (alone,) = of_pack(trials[0])
    assert first.metrics["integrity/ok"] == second.metrics["integrity/ok"] == 1
    assert alone.tags["trial.weights_sha256"] == first.tags["trial.weights_sha256"]


def test_a_broken_off_trial_goes_on_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)  # one step at a time
    given = make()
    whole, notes = finished(given), []
    checkpoints = Checkpoints(str(tmp_path), given.id, every_s=1e-9)

    class Broken(Exception):
        pass

    def emit(report: Any) -> None:
        if report.steps == 8:
            raise Broken

    with pytest.raises(Broken):
        run(given, emit, checkpoints)
    resumed = run(given, lambda report: notes.append(report.note), checkpoints)
    assert isinstance(resumed, TrialResult)
    assert any("7" in note for note in notes), notes
    assert resumed.tags["trial.weights_sha256"] == whole.tags["trial.weights_sha256"]


def test_early_stopping_watches_a_metric_of_an_output() -> None:
    stopping = {"patience": 1, "monitor": "validation/size_mse"}
    metrics = finished(make(train={"epochs": 40, "early_stopping": stopping})).metrics
    assert metrics["early_stopping/best_step"] > 0


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"train": {"loss": {"kinds": "huber"}}},
            "train.loss=kinds: must be an output, of kind, size",
        ),
        ({"train": {"loss": "auc"}}, "train.loss=auc: must be null or one of"),
        ({"train": {"loss": {"size": "hinge"}}}, "size of my_ends_data is regression"),
        ({"train": {"loss_weights": {"size": 0}}}, "must have numbers above 0"),
        ({"train": {"metrics": {"size": ["auc"]}}}, "size of my_ends_data is regression"),
        (
            {"data": "digits", "model": "mlp"},
            "train.loss=size: must not be given by output: digits has one output",
        ),
        ({"train": {"class_weight": [1, 2]}}, "must be null, as in Keras, with several outputs"),
        ({"train": {"early_stopping": 1, "loss": None}, "objective": "test/mse"}, "objective"),
        ({"train": {"early_stopping": {"patience": 1, "monitor": "test/x"}}}, "size_mse"),
    ],
)
def test_what_does_not_fit_is_told(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        make(**sections)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": "mlp"}, "model=mlp: has one input and one output, and my_ends_data has the "),
        ({"outputs_held": [0]}, "outputs_held=[0]: must be empty: my_ends_data has several out"),
    ],
)
def test_a_plan_that_does_not_fit_is_told(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid) as refused:
        preflight.check_plans([make(**sections)])
    assert said in str(refused.value)


def test_a_model_from_a_file(tmp_path: Path) -> None:
    start = setup.start(make())
    path = str(tmp_path / "net.keras")
    compiled(start).save(path)
    file = {"name": "keras_file", "path": path}
    result = finished(make(model=file))
    assert result.metrics["integrity/ok"] == 1
    assert "test/size_mse" in result.metrics
    inputs = keras.Input((3,), name="numbers"), keras.Input((4, 4), name="image")
    flat = keras.layers.Flatten()(inputs[1])
    joined = keras.layers.Concatenate()([inputs[0], flat])
    ends = [keras.layers.Dense(size, name=n)(joined) for n, size in (("kind", 2), ("size", 1))]
    keras.Model(inputs, ends).save(path)
    with pytest.raises(Invalid, match="has the inputs numbers, image; the data have picture, num"):
        preflight.check_plans([make(model=file)])


def test_a_network_whose_outputs_have_other_names_or_sizes_is_told(tmp_path: Path) -> None:
    for ends, said in (
        ((("kind", 3), ("size", 1)), "has output kind (None, 3); my_ends_data has 2 classes"),
        ((("kind", 2), ("length", 1)), "has the outputs kind, length; my_ends_data has kind, size"),
    ):
        inputs = keras.Input((3,), name="numbers"), keras.Input((4, 4), name="picture")
        joined = keras.layers.Concatenate()([inputs[0], keras.layers.Flatten()(inputs[1])])
        outputs = [keras.layers.Dense(size, name=name)(joined) for name, size in ends]
        path = str(tmp_path / "net.keras")
        keras.Model(inputs, outputs).save(path)
        with pytest.raises(Invalid) as refused:
            preflight.check_plans([make(model={"name": "keras_file", "path": path})])
        assert said in str(refused.value)


def test_samples_that_do_not_fit_the_tasks_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    data: Any = DATASETS["my_ends_data"]()
    (x, y), test = data.samples()
    cases = (
        ((x, {"size": y["size"], "kind": y["kind"]}), "has the targets size, kind in its train"),
        ((x, {**y, "kind": y["kind"][:-1]}), "399 targets kind"),
        ((x, {**y, "size": y["size"] * np.nan}), "nan in its training targets size at [0, 0]"),
        (({**x, "numbers": x["numbers"][:, :2]}, y), "has test inputs numbers of the shape [3]"),
    )
    for number, (broken, said) in enumerate(cases, start=1):
        monkeypatch.setattr(type(data), "samples", lambda _, broken=broken: (broken, test))
        with pytest.raises(Invalid) as refused:
            type(data)(validation=number / 100).load()  # not from the cache of another case
        assert said in str(refused.value), refused.value
