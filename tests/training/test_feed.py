"""Training on data that are not in memory: pictures in a file, and pipelines of `tf.data`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies import Invalid
from masksweep.strategies.core.audit import same_weights
from masksweep.sweeps.components.datasets import DATASETS, base, image_folder, named, pipeline
from masksweep.sweeps.components.datasets.base import DataSet
from masksweep.sweeps.components.datasets.named import Split
from masksweep.sweeps.components.datasets.pipeline import Pipeline
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import batches, feed, loop, pack, run_trial, setup, trial_run
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.preflight import check_plans
from masksweep.sweeps.training.state import PackMember
from tests.support import plugin
from tests.support.data_files import write_images
from tests.support.selection import by_default, slow
from tests.support.trials import trial as make

TRAIN: dict[str, Any] = {"epochs": 3, "batch_size": 4, "jit": False}
"""Epochs of 9 steps."""
SPEED = {"rounds": 0}
random = np.random.default_rng(0)
X = random.normal(size=(62, 8)).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int32)


@dataclass(frozen=True)
class Stream(DataSet):
    """The samples of `X` and `Y` from `tf.data`."""

    name: ClassVar[str] = "stream"
    outputs: ClassVar[int | None] = 2
    deterministic: ClassVar[bool] = True
    validation: float = 0.0

    def samples(self) -> tuple[Any, Any]:
        slices = tf.data.Dataset.from_tensor_slices
        train = slices((X[:42], Y[:42])).map(lambda x, y: (x + 0, y), num_parallel_calls=2)
        return train, slices((X[52:], Y[52:]))

    def own_validation(self) -> Any:
        return tf.data.Dataset.from_tensor_slices((X[42:52], Y[42:52]))


@dataclass(frozen=True)
class Stored(Stream):
    """The same samples as arrays."""

    name: ClassVar[str] = "stored"

    def samples(self) -> tuple[Split, Split]:
        return (X[:42], Y[:42]), (X[52:], Y[52:])

    def own_validation(self) -> Split:
        return X[42:52], Y[42:52]


@pytest.fixture(autouse=True)
def _data_sets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for data in (Stream, Stored):
        monkeypatch.setitem(DATASETS._components, data.name, data)
        monkeypatch.setitem(DATASETS._origins, data.name, "tests")
    base._load.cache_clear()
    yield
    base._load.cache_clear()


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Any]:
    return {"name": "image_folder", "path": write_images(tmp_path / "images")}


def stream_images(
    patch: pytest.MonkeyPatch, steps: float = 3.5, shape: tuple[int, ...] = ()
) -> None:
    """From now on pictures are read from the file, in windows of this number of steps."""
    patch.setattr(image_folder, "MAX_BYTES_IN_MEMORY", 0)
    patch.setattr(feed, "WINDOW_BYTES", int(steps * TRAIN["batch_size"] * 6 * 5 * 3))
    base._load.cache_clear()


def run(trial: Trial, checkpoints: Checkpoints | None = None) -> TrialResult:
    reports: list[Any] = []
    result = run_trial.run(trial, reports.append, checkpoints)
    curve = [(r.epoch, r.metrics) for r in reports if r.metrics]
    metrics = {
        key: value
        for key, value in result.metrics.items()
        if not key.startswith(("speed/", "memory/"))
    }
    return replace(result, metrics=metrics, artifacts={}, data={"curve": curve})


@pytest.mark.parametrize(
    ("strategy", "jit"),
    by_default([("init_only", False)], [("init_only", False), ("weight_mask", True)]),
)
def test_pictures_in_a_file_train_to_the_same_bits_as_in_memory(
    strategy: str, jit: bool, images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make(data=images, train={**TRAIN, "jit": jit}, strategy=strategy, speed=SPEED)
    expected = run(trial)
    stream_images(monkeypatch)
    assert setup.start(trial).data.in_memory is None
    assert run(trial) == expected


@pytest.mark.parametrize(
    "sections",
    [
        {"pattern": {"name": "snip", "sparsity": 0.5, "samples": 8}},
        {"train": {**TRAIN, "switch_at": 4, "resume_at": 13}},
        *map(slow, [
            {"compare": "projection"},
            {"train": {**TRAIN, "shuffle": False, "epochs": 1}, "held": "init"},
            {"optimizer": {"name": "adamw", "weight_decay": 0.1}, "strategy": "gradient_mask",
             "held": "constant"},
        ]),
    ],
    ids=["snip", "events", "compare", "in order", "leak"],
)  # fmt: skip
def test_what_a_trial_can_do_it_can_on_pictures_in_a_file(
    sections: dict[str, Any], images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make(**{"data": images, "train": TRAIN, "speed": SPEED, **sections})
    expected = run(trial)
    stream_images(monkeypatch)
    assert run(trial) == expected


@pytest.mark.slow  # compiles two packs
def test_a_pack_trains_on_pictures_in_a_file(
    images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> list[Any]:
        section = {"train": {**TRAIN, "jit": True, "epochs": 2}, "launch": {"pack": 2}}
        trials = [make(data=images, seed=seed, speed=SPEED, **section) for seed in range(2)]
        members = [PackMember(t, lambda _: None, Checkpoints(".", t.id, 1e9)) for t in trials]
        for member in members:
            monkeypatch.setattr(member.checkpoints, "resume", lambda start: (None, ""))
            monkeypatch.setattr(member.checkpoints, "is_due", lambda *_, **__: False)
        results = pack.run(members)
        for result in results:
            if isinstance(result, Exception):
                raise result
            assert "trial.alone" not in result.tags
        return [result.tags["trial.weights_sha256"] for result in results]

    expected = trained()
    stream_images(monkeypatch, steps=7)
    assert trained() == expected
    assert len({*expected}) == 2


def test_windows_hold_the_batches_of_each_step(
    images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_images(monkeypatch)
    trials = [make(data=images, train=TRAIN, seed=seed) for seed in range(2)]
    starts = [setup.start(trial) for trial in trials]
    inputs, classes = starts[0].data.train  # type: ignore[misc]
    weights = named.Weighted(classes, np.arange(len(classes)))
    weighted = [replace(s, data=replace(s.data, train=(inputs, weights))) for s in starts]
    for group in (starts[:1], starts, weighted):
        source = feed.feed_for(group)
        assert isinstance(source, feed.WindowFeed)
        for step in (0, 1, 2, 3, 8, 9, 10, 20, 26, 4):  # also not in order
            (x, y, order), left = source.at(step)
            rows = order.numpy()[:, step % order.shape[1]]
            assert 1 <= left <= 9 - step % 9
            for start, row in zip(group, rows, strict=True):
                expected = next(batches.of_epoch(start, step // 9, step % 9))
                np.testing.assert_array_equal(x.numpy()[row] / np.float32(255), expected[0])
                targets = named.arrays_of(named.take(named.map_arrays(np.asarray, y), row))
                np.testing.assert_array_equal(targets, named.arrays_of(expected[1]))


def test_a_picture_that_is_gone_does_not_matter_and_a_fault_of_the_thread_is_raised(
    images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream_images(monkeypatch)
    start = setup.start(make(data=images, train=TRAIN))

    def fails(index: Any) -> Any:
        raise OSError("gone")

    monkeypatch.setattr(start.data.train[0], "bytes", fails)  # type: ignore[index]
    with pytest.raises(OSError, match="gone"):
        loop.single_trial_loop(start)


def test_bytes_of_an_own_data_set_train_as_the_same_numbers() -> None:
    """They are not divided by 255, as the pictures in a file are."""
    pixels = np.random.default_rng(1).integers(256, size=X.shape).astype(np.uint8)
    trial, trained = make(data="stored", train=TRAIN, strategy="dense"), []
    for inputs in (pixels, pixels.astype(np.float32)):

        @dataclass(frozen=True)
        class Pixels(Stored):
            x: ClassVar[Any] = inputs

            def samples(self) -> tuple[Split, Split]:
                return (self.x[:42], Y[:42]), (self.x[52:], Y[52:])

        training = loop.single_trial_loop(setup.start(trial, Pixels().load()))
        training.run()
        trained.append(training.program.single_program.effective())
    assert same_weights(*trained)


# -- tf.data -----------------------------------------------------------------------------------


def of_stream(**sections: Any) -> Trial:
    return make(**{"data": "stream", "train": TRAIN, "speed": SPEED, **sections})


def test_the_data_set_passes_the_public_check(monkeypatch: pytest.MonkeyPatch) -> None:
    data = Stream().load()
    assert (data.samples, data.shape, data.outputs, data.in_memory) == (42, (8,), 2, None)
    assert data.described() | {"sha256": ""} == {
        "name": "stream", "sha256": "", "features": [42, 8], "targets": [42]
    }  # fmt: skip
    np.testing.assert_array_equal(pipeline.first_samples(data.test, 4)[0], X[52:56])
    assert data.deterministic


def test_its_own_validation_samples_can_decide() -> None:
    stopping = {"monitor": "validation/loss", "patience": 1}
    train = {**TRAIN, "early_stopping": stopping}
    trial = of_stream(objective="validation/loss", train=train)
    assert trial.score_metric.key == "validation/loss"
    assert "validation/loss" in run(of_stream(train={**TRAIN, "epochs": 1})).metrics


def test_the_example_of_contributing_is_such_a_data_set() -> None:
    names = {"dataclass": dataclass, "ClassVar": ClassVar, "DataSet": DataSet}
    exec(plugin.my_stream(), names | {"register": lambda kind: kind}, names)
    data = names["MyStream"]().load()  # type: ignore[operator]
    x, y = pipeline.first_samples(data.train, 1000)
    assert (x.shape, {*y.tolist()}) == ((1000, 8), {0, 1})
    np.testing.assert_array_equal(data.train.first(9)[0], x[:9])


def test_outputs_are_compared_on_the_same_samples_though_each_pass_has_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shuffled_anew(data: DataSet) -> Any:
        return slices(X, Y).shuffle(len(X), seed=0, reshuffle_each_iteration=True)

    monkeypatch.setattr(Stream, "own_validation", shuffled_anew)
    monkeypatch.setattr(Stream, "deterministic", False)
    validation = Stream().load().validation
    assert isinstance(validation, Pipeline)
    assert (validation.first(9)[0] != validation.first(9)[0]).any()
    assert run(of_stream(train={**TRAIN, "epochs": 1})).metrics["integrity/ok"] == 1


def test_in_the_order_of_the_data_it_is_as_from_memory() -> None:
    train = {**TRAIN, "shuffle": False}
    expected, result = (run(of_stream(train=train, data=name)) for name in ("stored", "stream"))
    for key, value in expected.metrics.items():
        assert result.metrics[key] == pytest.approx(value, abs=1e-7), key  # means of other parts
    assert result.tags == expected.tags


@pytest.mark.parametrize("buffer", by_default([8], [42, 8]))
def test_the_dense_control_is_keras_fit_on_the_same_pipeline(
    buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "SHUFFLED_BYTES", buffer * 4 * 8)
    monkeypatch.setattr(feed, "WINDOW_BYTES", 3 * 4 * 4 * 8)
    start = setup.start(of_stream(strategy="dense", seed=3))
    train = start.data.train
    assert isinstance(train, Pipeline)
    trained = loop.single_trial_loop(start)
    trained.run()
    ours = trained.program.single_program.effective()
    orders = []

    model = setup.network(start.trial, start.data).build(0)
    for variable in model.trainable_variables:
        variable.assign(start.weights[variable.path.removeprefix(f"{model.name}/")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(start.trial.optimizer.build(), loss, jit_compile=False)
    for epoch in range(3):
        data = train.epoch(4, batches.derive_seed(3, f"order/{epoch}"))
        orders.append(np.concatenate([x for x, _ in data.as_numpy_iterator()]))
        model.fit(data, verbose=0, shuffle=False)
    theirs = {n: np.asarray(v) for n, v in zip(ours, model.trainable_variables, strict=True)}
    assert same_weights(ours, theirs)
    # each epoch has all samples that fill a batch, in another order
    for rows in orders:
        assert len({*rows[:, 0]} & {*X[:42, 0]}) == 40
    assert (orders[0] != orders[1]).any()


@pytest.mark.parametrize("chunk_seconds", by_default([0.0], [0.0, 2.0]))
def test_a_trial_on_a_pipeline_is_resumed_to_the_same_bits(
    chunk_seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = of_stream()
    expected = run(trial)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", chunk_seconds)
    checkpoints = Checkpoints(str(tmp_path), trial.id, 1e-9)
    interrupted = trial_run.TrialRun(setup.start(trial), checkpoints=checkpoints)
    program = setup.program_for(interrupted.start)
    interrupted.resume(program.training)
    loop.TrainingLoop([interrupted], program).train(17)
    tf.random.set_seed(99)  # another process has another global seed
    resumed = run(trial, Checkpoints(str(tmp_path), trial.id, 1e9))
    assert resumed.tags == expected.tags
    assert resumed.metrics == expected.metrics


def test_it_is_said_if_a_pipeline_is_not_known_to_be_deterministic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "data.order" not in run(of_stream()).tags
    monkeypatch.setattr(Stream, "deterministic", False)
    base._load.cache_clear()
    trial, notes = of_stream(), []
    assert run(trial).tags["data.order"] == trial_run.UNKNOWN_ORDER
    for _ in range(2):
        training = trial_run.TrialRun(
            setup.start(trial),
            emit=lambda report: notes.append(report.note),
            checkpoints=Checkpoints(str(tmp_path), trial.id, 1e-9),
        )
        program = setup.program_for(training.start)
        program.training.assign_first(training.resume(program.training))
        loop.TrainingLoop([training], program).train(9)
    assert [note for note in notes if note] == [
        f"resumed from step 9; {trial_run.UNKNOWN_ORDER}"
    ] * 1


@pytest.mark.parametrize(
    "sections",
    [
        {"pattern": {"name": "snip", "sparsity": 0.5, "samples": 8}},
        slow({"pattern": {"name": "synflow", "sparsity": 0.5}}),
        slow({"compare": "projection"}),
        slow({"train": {**TRAIN, "switch_at": 4, "resume_at": 13}}),
        {"strategy": "init_only"},
        {"speed": {"rounds": 1}},
    ],
    ids=["snip", "synflow", "compare", "events", "control", "timed"],
)
def test_what_a_trial_can_do_it_can_on_a_pipeline(sections: dict[str, Any]) -> None:
    result = run_trial.run(of_stream(**sections))
    assert result.status == "ok"
    if "compare" in sections:
        assert result.metrics["path/parted"] == 0
    if "speed" in sections:
        assert result.metrics["speed/step_ms"] > 0


def faulty(monkeypatch: pytest.MonkeyPatch, **changed: Any) -> Trial:
    for name, value in changed.items():
        monkeypatch.setattr(Stream, name, value)
    base._load.cache_clear()
    return of_stream()


def train_on(make_dataset: Any) -> dict[str, Any]:
    return {"samples": lambda self: (make_dataset(), Stored().samples()[1])}


def slices(*arrays: Any) -> Any:
    return tf.data.Dataset.from_tensor_slices(arrays if len(arrays) > 1 else arrays[0])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (train_on(lambda: slices(X, Y).repeat()), "its training part must have a known number"),
        (train_on(lambda: slices(X, Y).filter(lambda x, y: y > 0)), "must have a known number of"),
        (train_on(lambda: slices(X)), "its training part must give pairs of an input and a target"),
        (train_on(lambda: slices(X, Y, Y)), "its training part has sample weights, which need"),
        (train_on(lambda: slices({"a": X}, {"b": Y})), "has the targets b, not one array"),
        ({"tasks": {"a": "classification"}}, "has the targets of one array, not a"),
        (train_on(lambda: slices(X, Y).batch(4)), "has inputs of the shape (None, 8); single"),
        (train_on(lambda: slices(X, X)), "has targets (8,) float32; a class is one whole number"),
        (train_on(lambda: slices(X, Y)), "its test part must be a pair of arrays or a tf.data"),
        ({"outputs": None}, "must set outputs, the number of classes"),
        ({"standardised": True}, "must set standardised = False"),
        ({"task": "regression"}, "must set standardised = False"),
        ({"task": "regression", "standardised": False}, "has targets of the shape (); [outputs]"),
        (
            {"own_validation": lambda self: slices(X[:, :3], Y)},
            "must have samples of one shape in all of its parts",
        ),
    ],
)
def test_a_data_set_that_does_not_fit_is_refused(
    changed: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid) as caught:
        check_plans([faulty(monkeypatch, **changed)])
    assert str(caught.value).startswith("data.name=stream: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y + 1, "has the training label 2 at [0]; labels must be 0 to 1"),
        (np.where(X[3, 2] == X, np.nan, X), Y, "has nan in its training inputs at [3, 2]; all"),
    ],
)
def test_values_that_cannot_be_trained_on_are_refused(
    x: Any, y: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Invalid) as caught:
        check_plans([faulty(monkeypatch, samples=lambda self: (slices(x, y), slices(X, Y)))])
    assert str(caught.value).startswith(f"data=stream: {message}")


def test_a_fraction_for_validation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "own_validation", lambda self: None)
    with pytest.raises(Invalid, match=r"data.validation=0.5: a fraction is not with a tf.data"):
        check_plans([of_stream(data={"name": "stream", "validation": 0.5})])
