"""The models of papers: their number of weights, their structure, and the inputs they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies import STRATEGIES, Invalid
from masksweep.strategies.core.audit import moved_fraction, violations
from masksweep.strategies.core.weights import describe, make_plan, values
from masksweep.strategies.held.zero import Zero
from masksweep.strategies.patterns.random import Random
from masksweep.strategies.testing.trial import Trial
from masksweep.sweeps.components.models import MODELS, Model
from masksweep.sweeps.components.models.lenet5 import LeNet5
from masksweep.sweeps.components.models.lenet300 import LeNet300
from masksweep.sweeps.components.models.lstm import LSTM
from masksweep.sweeps.components.models.mobilenet_tiny import MobileNetTiny
from masksweep.sweeps.components.models.resnet import ResNet
from masksweep.sweeps.components.models.set_mlp import SETMLP
from masksweep.sweeps.components.models.transformer import Transformer
from masksweep.sweeps.components.models.vit_tiny import ViTTiny
from masksweep.sweeps.components.models.wide_resnet import WideResNet
from masksweep.sweeps.config.trial import parse
from tests.support.selection import by_default, slow
from tests.support.trials import BASE

MNIST, CIFAR, IMAGENET = (28, 28, 1), (32, 32, 3), (224, 224, 3)
IMAGE_MODELS = [
    LeNet5(), LeNet5("caffe"), ResNet(8, 2), WideResNet(10, 1), MobileNetTiny(1 / 16),
    ViTTiny(depth=1, heads=1, dim=4),
]  # fmt: skip


def count(model: Any) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def built(model: Model, inputs: tuple[int, ...], outputs: int = 10, seed: int = 3) -> Any:
    keras.utils.set_random_seed(seed)
    return model.build(inputs, outputs)


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# -- numbers of weights ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "outputs", "weights", "published"),
    [
        (LeNet300(), MNIST, 10, 266_610, "267K"),  # Han et al. 2015, table 1
        (LeNet5("caffe"), MNIST, 10, 431_080, "431K"),  # Han et al. 2015, table 1
        (LeNet5(), MNIST, 10, 61_706, "62K"),  # LeCun et al.: 60,000, with fewer connections
        (ResNet(20), CIFAR, 10, 269_722, "0.27M"),  # He et al. 2015, table 6
        (ResNet(32), CIFAR, 10, 464_154, "0.46M"),
        slow((ResNet(44), CIFAR, 10, 658_586, "0.66M")),
        slow((ResNet(56), CIFAR, 10, 853_018, "0.85M")),
        slow((ResNet(110), CIFAR, 10, 1_727_962, "1.7M")),
        (WideResNet(40, 1), CIFAR, 10, 563_930, "0.6M"),  # Zagoruyko and Komodakis, tables 4 and 5
        slow((WideResNet(40, 2), CIFAR, 10, 2_243_546, "2.2M")),
        slow((WideResNet(40, 4), CIFAR, 10, 8_949_210, "8.9M")),
        (WideResNet(16, 8), CIFAR, 10, 10_961_370, "11.0M"),
        slow((WideResNet(22, 8), CIFAR, 10, 17_158_106, "17.2M")),
        slow((WideResNet(28, 10), CIFAR, 10, 36_479_194, "36.5M")),
        (MobileNetTiny(1.0), CIFAR, 1000, 4_231_976, "4.2M"),  # Howard et al. 2017, table 6
        slow((MobileNetTiny(0.75), CIFAR, 1000, 2_585_560, "2.6M")),
        slow((MobileNetTiny(0.5), CIFAR, 1000, 1_331_592, "1.3M")),
        (MobileNetTiny(0.25), CIFAR, 1000, 470_072, "0.5M"),
        (ViTTiny(patch=16), IMAGENET, 1000, 5_717_416 - 2 * 192, "5.7M"),  # DeiT, table 1
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_the_number_of_weights_is_the_published_one(
    model: Model, inputs: tuple[int, ...], outputs: int, weights: int, published: str
) -> None:
    found = count(built(model, inputs, outputs))
    assert found == weights
    digits = len(published[:-1].partition(".")[2])
    assert f"{found / {'K': 1e3, 'M': 1e6}[published[-1]]:.{digits}f}" == published[:-1]


def norms(*channels: int) -> int:
    return 2 * sum(channels)


@pytest.mark.parametrize(
    ("depth", "width", "shape", "outputs"), [(8, 3, MNIST, 5), (14, 2, CIFAR, 7)]
)
def test_a_resnet_has_the_weights_of_its_formula(
    depth: int, width: int, shape: tuple[int, ...], outputs: int
) -> None:
    n, w = (depth - 2) // 6, width
    kernels = 9 * shape[-1] * w + 2 * n * 9 * w * w
    for before, filters in ((w, 2 * w), (2 * w, 4 * w)):
        kernels += 9 * before * filters + (2 * n - 1) * 9 * filters**2
    scales = norms(w, *[w, 2 * w, 4 * w] * (2 * n))
    expected = kernels + scales + 4 * w * outputs + outputs
    assert count(built(ResNet(depth, width), shape, outputs)) == expected


@pytest.mark.parametrize(
    ("depth", "width", "shape", "outputs"), [(22, 2, CIFAR, 10), (16, 1, MNIST, 5)]
)
def test_a_wide_resnet_has_the_weights_of_its_formula(
    depth: int, width: int, shape: tuple[int, ...], outputs: int
) -> None:
    n, before = (depth - 4) // 6, 16
    expected = 9 * shape[-1] * 16
    for filters in (16 * width, 32 * width, 64 * width):
        expected += 9 * before * filters + (2 * n - 1) * 9 * filters**2
        expected += before * filters if before != filters else 0
        expected += norms(before, *[filters] * (2 * n - 1))
        before = filters
    expected += norms(before) + before * outputs + outputs
    assert count(built(WideResNet(depth, width), shape, outputs)) == expected


def encoder(depth: int, dim: int) -> int:
    """Weights of the blocks: attention, feed-forward, and two layer normalizations each."""
    return depth * (4 * (dim * dim + dim) + 8 * dim * dim + 4 * dim + dim + 4 * dim)


def test_models_with_attention_have_the_weights_of_their_formula() -> None:
    vit = built(ViTTiny(4, depth=3, heads=2, dim=8), (8, 12, 3), 5)
    assert count(vit) == 4 * 4 * 3 * 8 + (6 + 1) * 8 + encoder(3, 8) + 2 * 8 + 8 * 5 + 5
    vectors = built(Transformer(depth=3, heads=2, dim=8), (6, 4), 5)
    assert count(vectors) == 4 * 8 + 8 + encoder(3, 8) + 8 * 5 + 5
    tokens = built(Transformer(vocabulary=50, depth=1, heads=8, dim=8), (6,), 5)
    assert count(tokens) == 50 * 8 + encoder(1, 8) + 8 * 5 + 5
    assert encoder(1, 512) == 3_152_384  # torch.nn.TransformerEncoderLayer(512, 8), and the paper's


def test_set_mlp_starts_and_drops_out_as_the_tutorial() -> None:
    model = built(SETMLP((200, 300)), MNIST)
    assert count(model) == 785 * 200 + 201 * 300 + 301 * 10
    kernel, bias = (np.asarray(v) for v in model.get_layer("hidden_2").trainable_variables)
    assert kernel.std() == pytest.approx(0.1, rel=0.02)
    assert not bias.any()
    units = np.asarray(
        keras.Model(model.inputs[0], model.get_layer("hidden_1").output)(images(3, *MNIST))
    )
    dropped = keras.Model(model.inputs[0], model.get_layer("scale_1").output)
    trained = np.asarray(dropped(images(3, *MNIST), training=True))
    kept = trained != 0
    np.testing.assert_allclose(trained[kept], units[kept], rtol=1e-6)  # not scaled up
    assert kept.sum() / (units != 0).sum() == pytest.approx(0.8, abs=0.1)
    np.testing.assert_allclose(dropped(images(3, *MNIST)), units * 0.8, rtol=1e-5)


@pytest.mark.parametrize("straight_through", [True, False])
def test_a_dropped_unit_of_set_mlp_learns_as_in_the_tutorial(straight_through: bool) -> None:
    model = built(SETMLP((200,), straight_through=straight_through), MNIST)
    layers = [model.get_layer(name).output for name in ("hidden_1", "scale_1")]
    parts = keras.Model(model.inputs[0], [*layers, model.output])
    kernel = model.get_layer("hidden_1").kernel
    with tf.GradientTape() as tape:
        units, kept, outputs = parts(images(1, *MNIST), training=True)
        loss = tf.reduce_sum(outputs**2)
    learns = np.asarray(tape.gradient(loss, kernel.value)).any(0)
    active, dropped = np.asarray(units[0]) > 0, np.asarray(kept[0]) == 0
    assert (active & dropped).any()
    assert not learns[~active].any()
    assert learns[active & ~dropped].all()
    assert (learns[active & dropped] == straight_through).all()
    # the outputs do not have the dropped units, with either gradient
    output = model.get_layer("output")
    np.testing.assert_allclose(outputs, output(kept), rtol=1e-5, atol=1e-5)


def test_an_lstm_has_the_weights_of_its_formula() -> None:
    model = built(LSTM((7, 5)), (6, 3), 4)
    assert count(model) == 4 * 7 * (3 + 7 + 1) + 4 * 5 * (7 + 5 + 1) + 5 * 4 + 4


# -- structure -------------------------------------------------------------------------------


def test_the_weights_of_a_resnet_are_named_by_stage_and_block() -> None:
    names = [w.name for w in describe(built(ResNet(14, 2), CIFAR))]
    assert {"conv/kernel", "stage_1_block_2_conv_1/kernel", "output/bias"} < {*names}
    assert sum(name.endswith("kernel") for name in names) == 14
    names = [w.name for w in describe(built(WideResNet(16, 2), CIFAR))]
    # the depth counts 13 kernels of 3 x 3 and 3 shortcuts, but not the output
    assert sum(name.endswith("kernel") for name in names) == 16 + 1
    assert "stage_3_block_1_shortcut/kernel" in names


def test_a_shortcut_of_a_resnet_takes_each_second_pixel_and_adds_zeros() -> None:
    model = built(ResNet(8, 2), (7, 8, 3))
    shortcut = keras.Model(
        model.get_layer("stage_2_block_1_shortcut_pixels").input,
        model.get_layer("stage_2_block_1_shortcut_channels_last").output,
    )
    x = images(5, 7, 8, 2)
    y = shortcut(x).numpy()
    assert y.shape == (5, 4, 4, 4)
    np.testing.assert_array_equal(y[..., :2], x[:, ::2, ::2])
    assert (y[..., 2:] == 0).all()


def test_a_convolution_with_a_stride_looks_at_the_pixels_of_its_shortcut() -> None:
    """Each output's window is centered at the pixel that the shortcut takes."""
    model = built(ResNet(8, 2), CIFAR)
    name = "stage_2_block_1_conv_1"
    layer = keras.Model(model.get_layer(f"{name}_pad").input, model.get_layer(name).output)
    kernel = np.zeros((3, 3, 2, 4), np.float32)
    kernel[1, 1, 0, 0] = 1
    model.get_layer(name).kernel.assign(kernel)
    x = images(2, 32, 32, 2)
    np.testing.assert_array_equal(layer(x).numpy()[..., 0], x[:, ::2, ::2, 0])


def test_the_first_row_of_the_patches_bias_is_the_class_token() -> None:
    model = built(ViTTiny(4, depth=1, heads=1, dim=6), (8, 12, 2))
    tokens = keras.Model(model.input, model.get_layer("patches").output)
    x = images(3, 8, 12, 2)
    kernel, bias = (v.numpy() for v in model.get_layer("patches").weights)
    y = tokens(x).numpy()
    assert y.shape == (3, 7, 6)
    np.testing.assert_array_equal(y[:, 0], np.broadcast_to(bias[0], (3, 6)))
    patch = x[:, 4:8, 8:12].reshape(3, -1)  # the last one
    np.testing.assert_allclose(y[:, 6], patch @ kernel + bias[6], rtol=1e-4, atol=1e-5)
    patch = x[:, 0:4, 4:8].reshape(3, -1)  # the second one
    np.testing.assert_allclose(y[:, 2], patch @ kernel + bias[2], rtol=1e-4, atol=1e-5)


def test_a_transformer_tells_the_steps_of_a_sequence_apart() -> None:
    model = built(Transformer(vocabulary=5, dim=8), (6,))
    vectors = keras.Model(model.input, model.get_layer("positions").output)
    embeddings = model.get_layer("tokens").embeddings.numpy()
    y = vectors(np.full((1, 6), 3, np.float32)).numpy()[0]
    step, i = 4, 1
    wave = step / 10000 ** (2 * i / 8)
    expected = 8**0.5 * embeddings[3, 2 * i : 2 * i + 2] + [np.sin(wave), np.cos(wave)]
    np.testing.assert_allclose(y[step, 2 * i : 2 * i + 2], expected, rtol=1e-5)


@pytest.mark.parametrize("model", [ResNet(8), WideResNet(10), MobileNetTiny(1.0)], ids=str)
def test_kernels_of_convolutions_are_drawn_for_relus(model: Model) -> None:
    """He et al.: the variance is 2 / (number of inputs of a unit)."""
    for layer in built(model, CIFAR).layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            kernel = layer.kernel.numpy()
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            fan_in = 9 if depthwise else np.prod(kernel.shape[:-1])
            assert kernel.std() == pytest.approx((2 / fan_in) ** 0.5, rel=0.2)


# -- training under masks --------------------------------------------------------------------


HOLDING = ("weight_mask", "gradient_mask", "projection", "hard_mask", "sparse_values")
RESNET, WIDE_RESNET = ResNet(8, 2), WideResNet(10, 1)


@pytest.mark.parametrize(
    ("model", "strategy"),
    by_default(
        [*((RESNET, strategy) for strategy in HOLDING), (WIDE_RESNET, "hard_mask")],
        [(model, strategy) for model in (RESNET, WIDE_RESNET) for strategy in HOLDING],
    ),
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_masked_kernels_of_a_residual_network_are_held(model: Model, strategy: str) -> None:
    network = built(model, (8, 8, 3), 3)
    weights = describe(network)
    targets = [w.name for w in weights if "_conv_" in w.name or "_shortcut" in w.name]
    masks = Random(0.8).from_weights
    plan = make_plan(weights, values(network), masks=masks, held=Zero().values, targets=targets)
    assert len(plan.weights) == len(targets) >= 6
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    trial = Trial(STRATEGIES[strategy](), network, plan, optimizer, eager=True)
    before = trial.weights()
    after = trial.end(2)
    assert violations(after, plan) == (0, 0.0)
    assert moved_fraction(before, after, plan) > 0.9


# -- inputs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [MNIST, CIFAR])
@pytest.mark.parametrize("model", IMAGE_MODELS, ids=str)
def test_a_model_for_images_takes_them(model: Model, shape: tuple[int, ...]) -> None:
    assert built(model, shape)(images(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("shape", [(40,), (40, 3), (28, 28), (3, 28, 1), (2, 2, 2, 2)])
@pytest.mark.parametrize("model", IMAGE_MODELS, ids=str)
def test_a_model_for_images_takes_nothing_else(model: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match="must be images") as caught:
        model.build(shape, 3)
    assert caught.value.key == "inputs"


@pytest.mark.parametrize(
    ("model", "side"),
    [(LeNet5(), 12), (LeNet5("caffe"), 16), (ResNet(8, 2), 4), (MobileNetTiny(1 / 16), 8)],
    ids=str,
)
def test_the_smallest_image_is_what_the_message_says(model: Model, side: int) -> None:
    assert model.build((side, side, 1), 3)(images(1, side, side, 1)).shape == (1, 3)
    with pytest.raises(Invalid, match=f"of {side} x {side} pixels or more"):
        model.build((side, side - 1, 1), 3)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (LSTM(), CIFAR),
        (Transformer(), CIFAR),
        (Transformer(vocabulary=5), (20, 3)),
    ],
    ids=str,
)
def test_a_model_for_sequences_refuses_others(model: Model, shape: tuple[int, ...]) -> None:
    with pytest.raises(Invalid, match=r"must be a sequence \[steps\]") as caught:
        model.build(shape, 3)
    assert caught.value.key == "inputs"


def test_an_image_must_divide_into_patches() -> None:
    with pytest.raises(Invalid, match="must be a divisor of the image's 28 x 30 pixels") as caught:
        ViTTiny(4).build((28, 30, 1), 3)
    assert caught.value.key == "patch"


@pytest.mark.parametrize(
    ("name", "given", "key"),
    [
        ("lenet5", {"form": "keras"}, "form"),
        ("resnet", {"depth": 18}, "depth"),
        ("resnet", {"depth": 2}, "depth"),
        ("resnet", {"width": 0}, "width"),
        ("wide_resnet", {"depth": 20}, "depth"),
        ("wide_resnet", {"depth": 4}, "depth"),
        ("wide_resnet", {"width": 0}, "width"),
        ("mobilenet_tiny", {"width": 0.03}, "width"),
        ("set_mlp", {"dropout": 1.0}, "dropout"),
        ("set_mlp", {"deviation": 0.0}, "deviation"),
        ("set_mlp", {"hidden": [3, 0]}, "hidden"),
        ("vit_tiny", {"dim": 100}, "dim"),
        ("vit_tiny", {"patch": 0}, "patch"),
        ("vit_tiny", {"depth": 0}, "depth"),
        ("transformer", {"dim": 30}, "dim"),
        ("transformer", {"dim": 9, "heads": 3}, "dim"),
        ("transformer", {"heads": 0}, "heads"),
        ("transformer", {"vocabulary": 0}, "vocabulary"),
        ("lstm", {"units": []}, "units"),
        ("lstm", {"units": [3, 0]}, "units"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(name: str, given: dict[str, Any], key: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse({**BASE, "model": {"name": name, **given}})
    assert caught.value.key == f"model.{key}"


def test_a_saved_model_needs_no_class_of_masksweep(tmp_path: Path) -> None:
    cases: list[tuple[Model, tuple[int, ...]]] = [
        *((model, CIFAR) for model in IMAGE_MODELS),
        (Transformer(vocabulary=5), (20,)),
        (Transformer(), (20,)),
        (LSTM(), (20,)),
        (LeNet300(), MNIST),
    ]
    assert {m.name for m, _ in cases} < {*MODELS}
    for model, shape in cases:
        network = built(model, shape)
        for layer in [network, *network.layers]:
            assert type(layer).__module__.startswith("keras."), layer
        network.save(tmp_path / "net.keras")
        loaded = keras.models.load_model(tmp_path / "net.keras", safe_mode=True)
        x = images(2, *shape) % 5
        np.testing.assert_array_equal(loaded(x).numpy(), network(x).numpy())
