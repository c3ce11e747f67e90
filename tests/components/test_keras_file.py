"""Models from files: they are trained as they were saved, and a stranger's file can run nothing."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from masksweep.strategies import Invalid, apply
from masksweep.strategies.core.audit import same_weights
from masksweep.strategies.core.weights import values
from masksweep.sweeps.common import keras_archive
from masksweep.sweeps.components import keras_config
from masksweep.sweeps.components.initializers import Network, network
from masksweep.sweeps.components.models.keras_file import KerasFile
from masksweep.sweeps.components.models.resnet import ResNet
from masksweep.sweeps.components.models.transformer import Transformer
from masksweep.sweeps.components.testing import check_model
from masksweep.sweeps.config.trial import parse
from masksweep.sweeps.training import start_weights
from tests.support.trials import BASE


@keras.saving.register_keras_serializable("tests")
class Scale(layers.Layer):  # type: ignore[misc]
    """A layer of a package that registers it."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="uniform", name="scale")

    def call(self, x: Any) -> Any:
        return x * self.scale


class Unregistered(Scale):
    """A layer that no package registers."""


def dense(*more: Any, inputs: tuple[int, ...] = (8,), outputs: int = 3) -> Any:
    keras.utils.set_random_seed(0)
    ends = layers.Dense(5, "relu", name="hidden"), layers.Dense(outputs, name="output")
    return keras.Sequential([keras.Input(inputs), ends[0], *more, ends[1]])


def saved(model: Any, folder: Path) -> str:
    model.save(folder / "net.keras")
    return str(folder / "net.keras")


def rewritten(path: str, change: Callable[[dict[str, Any]], Any]) -> str:
    """Changes the config in a file."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(files["config.json"])
    files["config.json"] = json.dumps(change(config) or config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def refused(path: str, inputs: tuple[int, ...] = (8,), outputs: int = 3, **settings: Any) -> str:
    """Returns the line with which a file is refused."""
    with pytest.raises(Invalid) as caught:
        KerasFile(path, **settings).build(inputs, outputs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- files that are trained ------------------------------------------------------------------

MODELS = {
    "dense": lambda: dense(),
    "normed": lambda: dense(layers.BatchNormalization(name="norm")),
    "dropout": lambda: dense(layers.Dropout(0.3)),
    "shared": lambda: dense(keras.Sequential([keras.Input((5,)), layers.Dense(5, name="deep")])),
    "registered": lambda: dense(Scale(name="scaled")),
}


@pytest.mark.parametrize("weights", ["file", "drawn"])
@pytest.mark.parametrize("kind", MODELS)
def test_a_file_passes_the_checks_of_models(kind: str, weights: Any, tmp_path: Path) -> None:
    path = saved(MODELS[kind](), tmp_path)
    check_model(KerasFile(path, weights), (8,), 3, fixed=weights == "file")


@pytest.mark.parametrize(
    ("model", "inputs"), [(ResNet(8, 2), (8, 8, 1)), (Transformer(vocabulary=5, dim=8), (6,))]
)
def test_a_shipped_model_comes_back_from_its_file(
    model: Any, inputs: tuple[int, ...], tmp_path: Path
) -> None:
    network = model.build(inputs, 3)
    loaded = KerasFile(saved(network, tmp_path)).build(inputs, 3)
    assert same_weights(values(loaded), values(network))


def test_a_compiled_model_is_loaded_without_its_loss(tmp_path: Path) -> None:
    def own_loss(y: Any, outputs: Any) -> Any:
        return keras.ops.mean((y - outputs) ** 2)

    inner = keras.Sequential([keras.Input((5,)), layers.Dense(5, name="deep")])
    inner.compile("adam", own_loss)
    model = dense(inner)
    model.compile(keras.optimizers.Adam(0.5), own_loss)
    loaded = KerasFile(saved(model, tmp_path)).build((8,), 3)
    assert same_weights(values(loaded), values(model))
    assert not loaded.compiled


@pytest.mark.parametrize("seed", [0, 5])
def test_the_initial_values_are_those_of_the_file_for_all_seeds(seed: int, tmp_path: Path) -> None:
    """Also if the file has just what the initializers draw for seed 0."""
    model = dense()
    net = Network(KerasFile(saved(model, tmp_path)), (8,), 3)
    assert same_weights(net.initial(seed)[0], values(model))


def test_initial_values_are_drawn_anew_by_the_seed(tmp_path: Path) -> None:
    norm = layers.BatchNormalization(name="norm")
    model = dense(norm)
    norm.moving_mean.assign(np.ones(5))
    net = Network(KerasFile(saved(model, tmp_path), "drawn"), (8,), 3)
    first, again, other = (net.initial(seed) for seed in (1, 1, 2))
    assert same_weights(first[0], again[0])
    assert not np.array_equal(first[0]["hidden/kernel"], other[0]["hidden/kernel"])
    assert not np.array_equal(first[0]["hidden/kernel"], values(model)["hidden/kernel"])
    assert (first[1][0] == 0).all()  # the moving mean too starts again
    limit = (6 / (8 + 5)) ** 0.5  # of Glorot's uniform initializer
    assert 0.8 * limit < np.abs(first[0]["hidden/kernel"]).max() < limit


def test_what_adapt_computed_is_not_drawn(tmp_path: Path) -> None:
    normalization = layers.Normalization(name="normalize")
    normalization.adapt(np.random.default_rng(0).normal(3, 2, (50, 8)))
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), normalization, layers.Dense(3)])
    path = saved(model, tmp_path)
    assert "normalize/mean was computed by adapt" in refused(path, weights="drawn")
    loaded = KerasFile(path).build((8,), 3)
    np.testing.assert_array_equal(loaded.layers[0].mean.numpy(), normalization.mean.numpy())


def test_the_settings_that_depend_on_the_layers(tmp_path: Path) -> None:
    file = KerasFile(saved(dense(), tmp_path))
    assert (file.has_statistics, file.gains_by_xla) == (False, True)
    file = KerasFile(saved(ResNet(8, 2).build((8, 8, 1), 3), tmp_path))  # the same path
    assert (file.has_statistics, file.gains_by_xla) == (True, False)


def test_the_content_of_the_file_is_part_of_the_identity(tmp_path: Path) -> None:
    def trial(name: str, seed: int) -> Any:
        (tmp_path / name).mkdir(exist_ok=True)
        path = saved(MODELS["dense"](), tmp_path / name)
        model = keras.models.load_model(path)
        model.layers[0].kernel.assign(model.layers[0].kernel * seed)
        return parse(
            {**BASE, "model": {"name": "keras_file", "path": saved(model, tmp_path / name)}}
        )

    first = trial("a", 1)
    assert first.canonical()["model"]["path"].startswith("sha256:")
    assert trial("b", 2).id != first.id
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "other.keras").write_bytes((tmp_path / "a" / "net.keras").read_bytes())
    section = {"name": "keras_file", "path": str(tmp_path / "c" / "other.keras")}
    assert parse({**BASE, "model": section}).id == first.id


def test_a_file_that_was_changed_is_loaded_again(tmp_path: Path) -> None:
    """A process caches networks by their model."""
    path = saved(dense(), tmp_path)
    before = KerasFile(path)
    assert (before, hash(before)) == (KerasFile(path), hash(KerasFile(path)))
    assert before != KerasFile(path, "drawn")
    first = network(before, (8,), 3).initial(0)[0]
    model = dense()
    model.layers[0].bias.assign(np.ones(5))
    os.utime(saved(model, tmp_path), ns=(1, 1))
    second = network(KerasFile(path), (8,), 3)
    assert second is not network(before, (8,), 3)
    assert (first["hidden/bias"] == 0).all()
    assert (second.initial(0)[0]["hidden/bias"] == 1).all()


# -- files that do not fit -------------------------------------------------------------------


def test_a_file_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path)
    assert refused(path, (9,)) == (
        f"path={path}: has inputs of the shape (None, 8); it must be that of the data, (None, 9)"
    )
    assert "has inputs of the shape (None, 8)" in refused(path, (8, 1))


def test_any_length_is_taken_where_the_file_has_none(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((None, 2)), layers.GRU(3), layers.Dense(3, name="output")]
    )
    path = saved(model, tmp_path)
    assert KerasFile(path).build((7, 2), 3).output_shape == (None, 3)
    assert "has inputs of the shape" in refused(path, (7, 3))


def test_a_fixed_batch_size_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((8,), batch_size=4), layers.Dense(3)])
    assert "has inputs of the shape (4, 8)" in refused(saved(model, tmp_path))


def test_two_inputs_or_outputs_are_refused(tmp_path: Path) -> None:
    first, second = keras.Input((8,)), keras.Input((8,))
    output = layers.Dense(3)(layers.Add()([first, second]))
    path = saved(keras.Model([first, second], output), tmp_path)
    assert refused(path).endswith("must have one input, as the data have")
    path = saved(keras.Model(first, [layers.Dense(3)(first), layers.Dense(3)(first)]), tmp_path)
    assert refused(path).endswith("must have one output, as the data have")


@pytest.mark.parametrize("weights", ["file", "drawn"])
def test_a_layer_that_nobody_registers_is_named(weights: str, tmp_path: Path) -> None:
    path = saved(dense(Unregistered()), tmp_path)
    said = (
        "which is not registered with Keras; load the file that registers it with --plugin FILE.py"
    )
    assert f"has Unregistered of {__name__}, {said}" in refused(path, weights=weights)
    # in a file that was saved by a script, the class has no module
    no_module = rewritten(path, lambda config: config["config"]["layers"][2].update(module=None))
    assert f"has Unregistered, {said}" in refused(no_module, weights=weights)


def test_a_masked_model_must_be_exported_first(tmp_path: Path) -> None:
    masked = apply(dense(), lambda name, shape: np.eye(*shape) if "hidden/k" in name else None)
    path = saved(masked, tmp_path)
    said = "is a masked model of strategies.apply; save what its export_plain() returns"
    for weights in ("file", "drawn"):
        assert refused(path, weights=weights) == f"path={path}: {said}"
    with pytest.raises(Invalid) as caught:
        start_weights._read(path)
    assert str(caught.value) == f"start.path={path}: {said}"
    KerasFile(saved(masked.export_plain(), tmp_path)).build((8,), 3)


def test_a_function_that_nobody_registers_is_named(tmp_path: Path) -> None:
    path = rewritten(saved(dense(), tmp_path), function("builtins", "pkg>bend"))
    assert "has pkg>bend, which is not registered with Keras" in refused(path)


def test_operations_of_keras_need_no_registration(tmp_path: Path) -> None:
    inputs = keras.Input((8,))
    outputs = keras.ops.tanh(layers.Dense(3, name="output")(inputs)) * 2.0
    check_model(KerasFile(saved(keras.Model(inputs, outputs), tmp_path)), (8,), 3, fixed=True)


# -- files from strangers --------------------------------------------------------------------


def layer(**section: Any) -> Callable[[dict[str, Any]], None]:
    """Replaces the second layer of a model."""

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1] = section

    return change


def function(module: str, name: str) -> Callable[[dict[str, Any]], None]:
    """Names a function as the activation of the second layer."""

    def change(config: dict[str, Any]) -> None:
        config["config"]["layers"][1]["config"]["activation"] = {
            "module": module, "class_name": "function", "config": name, "registered_name": name,
        }  # fmt: skip

    return change


HOSTILE = {
    "lambda": (
        layer(module="keras.layers", class_name="Lambda", config={"function": "x"}),
        "has a Lambda, which may bring code",
    ),
    "code": (
        layer(module="builtins", class_name="__lambda__", config={"value": "4wE="}),
        "has a __lambda__, which may bring code",
    ),
    "a model that is saved for serving": (
        layer(module="keras.layers", class_name="TFSMLayer", config={"filepath": "/tmp/x"}),
        "has a TFSMLayer, which may bring code",
    ),
    "a pickle": (
        layer(module="keras.layers", class_name="TorchModuleWrapper", config={"module": "x"}),
        "has a TorchModuleWrapper",
    ),
    "a download": (
        function("keras.utils", "get_file"),
        "names keras.utils.get_file, which is no part of a network",
    ),
    "a download, by its inner name": (
        function("keras.src.utils.file_utils", "get_file"),
        "names keras.src.utils.file_utils.get_file",
    ),
    "weights of the web": (
        layer(module="keras.applications", class_name="VGG16", config={}),
        "names keras.applications.VGG16",
    ),
    "the system": (function("os", "system"), "has system of os, which is not registered"),
    "a class of the system": (
        layer(module="subprocess", class_name="Popen", config={"args": ["touch", "stolen"]}),
        "has Popen of subprocess, which is not registered with Keras",
    ),
    "a file of words": (
        layer(
            module="keras.layers", class_name="StringLookup", config={"vocabulary": "/etc/passwd"}
        ),
        "has a StringLookup",
    ),
    "no class": (layer(module="keras.layers", class_name="Nothing", config={}), "cannot be loaded"),
}


@pytest.mark.parametrize("weights", ["file", "drawn"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_strangers_file_runs_nothing(kind: str, weights: str, tmp_path: Path) -> None:
    change, said = HOSTILE[kind]
    path = rewritten(saved(dense(), tmp_path), change)
    assert said in refused(path, weights=weights)


def test_it_is_refused_before_keras_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.models, "load_model", None)
    path = rewritten(saved(dense(), tmp_path), HOSTILE["lambda"][0])
    with pytest.raises(Invalid, match="may bring code"):
        parse({**BASE, "model": {"name": "keras_file", "path": path}})


def test_parts_within_parts_are_looked_at(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(5)])

    def change(config: dict[str, Any]) -> None:
        deep = next(c for c in config["config"]["layers"] if c["class_name"] == "Sequential")
        deep["config"]["layers"][1] = {"class_name": "Lambda", "config": {}, "module": None}

    assert "has a Lambda" in refused(rewritten(saved(dense(inner), tmp_path), change))


def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(dense(), tmp_path)
    monkeypatch.setattr(keras_archive, "UNPACKED_LIMIT", 2**12)
    monkeypatch.setattr(keras_archive, "EXPANSION_LIMIT", 0)
    assert "model.weights.h5 unpacks to too many bytes" in refused(path)
    monkeypatch.setattr(keras_archive, "CONFIG_LIMIT", 2**9)
    path = saved(dense(), tmp_path)
    assert "config.json unpacks to more than 512 bytes" in refused(path)


def test_other_files_of_the_archive_are_not_unpacked(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/bomb", bytes(10**6))
        archive.writestr("../stolen", b"x")
    assert KerasFile(path).build((8,), 3).output_shape == (None, 3)
    assert sorted(p.name for p in tmp_path.parent.glob("stolen*")) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a readable .keras file"),
        (b"\x89HDF\r\n\x1a\n", "not a readable .keras file"),
        (b"PK\x05\x06" + bytes(18), "not a readable .keras file"),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "net.keras"
    if content is not None:
        path.write_bytes(content)
    assert said in refused(str(path))


def test_a_file_with_damaged_weights_is_refused(tmp_path: Path) -> None:
    path = saved(dense(), tmp_path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\nno weights")
    assert "cannot be loaded: " in refused(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
    assert "not a readable .keras file" in refused(path)


@pytest.mark.parametrize("name", ["", "net.h5", "net", "hf://me/net"])
def test_another_format_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"must be a \.keras file") as caught:
        parse({**BASE, "model": {"name": "keras_file", "path": name}})
    assert caught.value.key == "model.path"


def test_a_deep_config_does_not_end_the_process(tmp_path: Path) -> None:
    path = str(tmp_path / "net.keras")
    with zipfile.ZipFile(path, "w") as archive:
        deep = "[" * 100_000 + "]" * 100_000
        archive.writestr("config.json", f'{{"class_name": "Sequential", "config": {deep}}}')
    assert "not a readable .keras file" in refused(path)


def test_the_names_in_a_config() -> None:
    config = {"class_name": "A", "config": {"layers": [{"class_name": "B", "config": None}]}}
    assert keras_config.class_names(config) == {"A", "B"}
    assert keras_config.class_names([config, {"class_name": "C"}]) == {"A", "B"}
