"""All kinds of Keras layers: how to make each one, and the inputs that it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from keras import layers


def of_one_input(layer: Any, x: Any) -> Any:
    return layer(x)


@dataclass(frozen=True)
class Kind:
    """One kind of layer."""

    make: Callable[[], Any]
    shape: tuple[int, ...]
    """Shape of its inputs, without the batch."""
    call: Callable[[Any, Any], Any] = field(default=of_one_input)
    """(layer, input) -> output. Some layers take the same input more than once."""
    integers: bool = False
    """Whether the inputs are integers from 0 to 3, else floats."""


def twice(layer: Any, x: Any) -> Any:
    return layer([x, x])


def attends(layer: Any, x: Any) -> Any:
    return layer(x, x)


FLAT, SEQUENCE, IMAGE, VOLUME, MOVIE = (6,), (3, 4), (6, 6, 3), (4, 4, 4, 2), (2, 6, 6, 2)
"""Inputs of each kind. Recurrent layers take as many steps as a sequence or movie is long."""

KINDS: dict[str, Kind] = {
    # with weights
    "BatchNormalization": Kind(layers.BatchNormalization, FLAT),
    "Bidirectional": Kind(lambda: layers.Bidirectional(layers.GRU(3)), SEQUENCE),
    "Conv1D": Kind(lambda: layers.Conv1D(3, 2), SEQUENCE),
    "Conv1DTranspose": Kind(lambda: layers.Conv1DTranspose(3, 2), SEQUENCE),
    "Conv2D": Kind(lambda: layers.Conv2D(3, 2, groups=1), IMAGE),
    "Conv2DTranspose": Kind(lambda: layers.Conv2DTranspose(3, 2), IMAGE),
    "Conv3D": Kind(lambda: layers.Conv3D(2, 2), VOLUME),
    "Conv3DTranspose": Kind(lambda: layers.Conv3DTranspose(2, 2), VOLUME),
    "ConvLSTM1D": Kind(lambda: layers.ConvLSTM1D(2, 2), (2, 6, 2)),
    "ConvLSTM2D": Kind(lambda: layers.ConvLSTM2D(2, 2), MOVIE),
    "ConvLSTM3D": Kind(lambda: layers.ConvLSTM3D(2, 2), (2, 3, 3, 3, 1)),
    "Dense": Kind(lambda: layers.Dense(5, "relu"), FLAT),
    "Dense, constrained": Kind(
        lambda: layers.Dense(5, kernel_constraint="max_norm", bias_constraint="non_neg"), FLAT
    ),
    "Dense, regularized": Kind(
        lambda: layers.Dense(
            5, kernel_regularizer="L1L2", bias_regularizer="l2", activity_regularizer="l2"
        ),
        FLAT,
    ),
    "Dense, frozen": Kind(lambda: layers.Dense(5, trainable=False), FLAT),
    "DepthwiseConv1D": Kind(lambda: layers.DepthwiseConv1D(2), SEQUENCE),
    "DepthwiseConv2D": Kind(lambda: layers.DepthwiseConv2D(2), IMAGE),
    "EinsumDense": Kind(lambda: layers.EinsumDense("abc,cd->abd", (3, 3), bias_axes="d"), SEQUENCE),
    "Embedding": Kind(lambda: layers.Embedding(4, 3, mask_zero=True), (5,), integers=True),
    "GRU": Kind(lambda: layers.GRU(3, recurrent_dropout=0.1, dropout=0.1), SEQUENCE),
    "GroupNormalization": Kind(lambda: layers.GroupNormalization(2), FLAT),
    "GroupedQueryAttention": Kind(lambda: layers.GroupQueryAttention(2, 2, 1), SEQUENCE, attends),
    "LSTM": Kind(lambda: layers.LSTM(3, return_sequences=True), SEQUENCE),
    "LayerNormalization": Kind(layers.LayerNormalization, FLAT),
    "MultiHeadAttention": Kind(
        lambda: layers.MultiHeadAttention(2, 2, dropout=0.1), SEQUENCE, attends
    ),
    "PReLU": Kind(layers.PReLU, FLAT),
    "RMSNormalization": Kind(layers.RMSNormalization, FLAT),
    "RNN": Kind(
        lambda: layers.RNN(layers.StackedRNNCells([layers.LSTMCell(2), layers.GRUCell(2)])),
        SEQUENCE,
    ),
    "ReversibleEmbedding": Kind(lambda: layers.ReversibleEmbedding(4, 3), (5,), integers=True),
    "SeparableConv1D": Kind(lambda: layers.SeparableConv1D(3, 2), SEQUENCE),
    "SeparableConv2D": Kind(lambda: layers.SeparableConv2D(3, 2), IMAGE),
    "SimpleRNN": Kind(lambda: layers.SimpleRNN(3), SEQUENCE),
    "SpectralNormalization": Kind(
        lambda: layers.SpectralNormalization(layers.Dense(5, "relu")), FLAT
    ),
    "TimeDistributed": Kind(lambda: layers.TimeDistributed(layers.Dense(3)), SEQUENCE),
    # without weights, but with a state or randomness
    "AlphaDropout": Kind(lambda: layers.AlphaDropout(0.3), FLAT),
    "Dropout": Kind(lambda: layers.Dropout(0.3), FLAT),
    "GaussianDropout": Kind(lambda: layers.GaussianDropout(0.3), FLAT),
    "GaussianNoise": Kind(lambda: layers.GaussianNoise(0.3), FLAT),
    "RandomBrightness": Kind(lambda: layers.RandomBrightness(0.2, (0, 1)), IMAGE),
    "RandomContrast": Kind(lambda: layers.RandomContrast(0.2, (0, 1)), IMAGE),
    "RandomCrop": Kind(lambda: layers.RandomCrop(4, 4), IMAGE),
    "RandomFlip": Kind(layers.RandomFlip, IMAGE),
    "RandomRotation": Kind(lambda: layers.RandomRotation(0.1), IMAGE),
    "RandomTranslation": Kind(lambda: layers.RandomTranslation(0.1, 0.1), IMAGE),
    "RandomZoom": Kind(lambda: layers.RandomZoom(0.1), IMAGE),
    "SpatialDropout1D": Kind(lambda: layers.SpatialDropout1D(0.3), SEQUENCE),
    "SpatialDropout2D": Kind(lambda: layers.SpatialDropout2D(0.3), IMAGE),
    "SpatialDropout3D": Kind(lambda: layers.SpatialDropout3D(0.3), VOLUME),
    # without weights, state or randomness
    "Activation": Kind(lambda: layers.Activation("gelu"), FLAT),
    "ActivityRegularization": Kind(lambda: layers.ActivityRegularization(0.1, 0.1), FLAT),
    "AdaptiveAveragePooling1D": Kind(lambda: layers.AdaptiveAveragePooling1D(2), SEQUENCE),
    "AdaptiveAveragePooling2D": Kind(lambda: layers.AdaptiveAveragePooling2D(2), IMAGE),
    "AdaptiveAveragePooling3D": Kind(lambda: layers.AdaptiveAveragePooling3D(2), VOLUME),
    "AdaptiveMaxPooling1D": Kind(lambda: layers.AdaptiveMaxPooling1D(2), SEQUENCE),
    "AdaptiveMaxPooling2D": Kind(lambda: layers.AdaptiveMaxPooling2D(2), IMAGE),
    "AdaptiveMaxPooling3D": Kind(lambda: layers.AdaptiveMaxPooling3D(2), VOLUME),
    "Add": Kind(layers.Add, FLAT, twice),
    "AdditiveAttention": Kind(layers.AdditiveAttention, SEQUENCE, twice),
    "Attention": Kind(lambda: layers.Attention(use_scale=True, dropout=0.1), SEQUENCE, twice),
    "Average": Kind(layers.Average, FLAT, twice),
    "AveragePooling1D": Kind(lambda: layers.AveragePooling1D(2), SEQUENCE),
    "AveragePooling2D": Kind(lambda: layers.AveragePooling2D(2), IMAGE),
    "AveragePooling3D": Kind(lambda: layers.AveragePooling3D(2), VOLUME),
    "CenterCrop": Kind(lambda: layers.CenterCrop(4, 4), IMAGE),
    "Concatenate": Kind(layers.Concatenate, FLAT, twice),
    "Cropping1D": Kind(layers.Cropping1D, SEQUENCE),
    "Cropping2D": Kind(lambda: layers.Cropping2D(1), IMAGE),
    "Cropping3D": Kind(layers.Cropping3D, VOLUME),
    "Dot": Kind(lambda: layers.Dot(1), FLAT, twice),
    "ELU": Kind(layers.ELU, FLAT),
    "Flatten": Kind(layers.Flatten, SEQUENCE),
    "GlobalAveragePooling1D": Kind(layers.GlobalAveragePooling1D, SEQUENCE),
    "GlobalAveragePooling2D": Kind(layers.GlobalAveragePooling2D, IMAGE),
    "GlobalAveragePooling3D": Kind(layers.GlobalAveragePooling3D, VOLUME),
    "GlobalMaxPooling1D": Kind(layers.GlobalMaxPooling1D, SEQUENCE),
    "GlobalMaxPooling2D": Kind(layers.GlobalMaxPooling2D, IMAGE),
    "GlobalMaxPooling3D": Kind(layers.GlobalMaxPooling3D, VOLUME),
    "Identity": Kind(layers.Identity, FLAT),
    "Lambda": Kind(lambda: layers.Lambda(lambda x: x * 2), FLAT),
    "LeakyReLU": Kind(layers.LeakyReLU, FLAT),
    "Masking": Kind(layers.Masking, SEQUENCE),
    "MaxPooling1D": Kind(layers.MaxPooling1D, SEQUENCE),
    "MaxPooling2D": Kind(layers.MaxPooling2D, IMAGE),
    "MaxPooling3D": Kind(layers.MaxPooling3D, VOLUME),
    "Maximum": Kind(layers.Maximum, FLAT, twice),
    "Minimum": Kind(layers.Minimum, FLAT, twice),
    "Multiply": Kind(layers.Multiply, FLAT, twice),
    "Normalization": Kind(lambda: layers.Normalization(mean=1.0, variance=2.0), FLAT),
    "Permute": Kind(lambda: layers.Permute((2, 1)), SEQUENCE),
    "ReLU": Kind(layers.ReLU, FLAT),
    "RepeatVector": Kind(lambda: layers.RepeatVector(2), FLAT),
    "Rescaling": Kind(lambda: layers.Rescaling(0.5), FLAT),
    "Reshape": Kind(lambda: layers.Reshape((2, 3)), FLAT),
    "Resizing": Kind(lambda: layers.Resizing(4, 4), IMAGE),
    "Softmax": Kind(layers.Softmax, FLAT),
    "Subtract": Kind(layers.Subtract, FLAT, twice),
    "UnitNormalization": Kind(layers.UnitNormalization, FLAT),
    "UpSampling1D": Kind(layers.UpSampling1D, SEQUENCE),
    "UpSampling2D": Kind(layers.UpSampling2D, IMAGE),
    "UpSampling3D": Kind(layers.UpSampling3D, VOLUME),
    "ZeroPadding1D": Kind(layers.ZeroPadding1D, SEQUENCE),
    "ZeroPadding2D": Kind(layers.ZeroPadding2D, IMAGE),
    "ZeroPadding3D": Kind(layers.ZeroPadding3D, VOLUME),
}

PLAIN = list(KINDS).index("Activation")
"""Index of the first kind that has no weights, state or randomness."""


def of_one_shape(names: Sequence[str]) -> list[str]:
    """Returns the kinds in groups that take the same inputs, such as `Dense|PReLU`."""
    groups: dict[tuple[tuple[int, ...], bool], list[str]] = {}
    for name in names:
        groups.setdefault((KINDS[name].shape, KINDS[name].integers), []).append(name)
    return ["|".join(group) for group in groups.values()]


LEFT_OUT = {
    "turns text, indices or sounds into numbers before a model": [
        "CategoryEncoding", "Discretization", "HashedCrossing", "Hashing", "IntegerLookup",
        "MelSpectrogram", "STFTSpectrogram", "StringLookup", "TextVectorization",
    ],
    "changes pictures or boxes before a model, by code of the family that Random* stand for": [
        "AugMix", "AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "CutMix",
        "Equalization", "MaxNumBoundingBoxes", "MixUp", "RandAugment", "RandomColorDegeneration",
        "RandomColorJitter", "RandomElasticTransform", "RandomErasing", "RandomGaussianBlur",
        "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization",
        "RandomSaturation", "RandomSharpness", "RandomShear", "Solarization",
    ],
    "runs the code of another framework": ["FlaxLayer", "JaxLayer", "TFSMLayer",
                                           "TorchModuleWrapper"],
    "is a part of other kinds": ["GRUCell", "InputLayer", "InputSpec", "LSTMCell", "Layer",
                                 "Pipeline", "SimpleRNNCell", "StackedRNNCells", "Wrapper"],
}  # fmt: skip
"""Kinds that are not compared, by reason."""


def public_kinds() -> set[str]:
    """Returns the names of all public Keras layers, one name for each class."""
    classes = {getattr(layers, name): name for name in sorted(dir(layers), reverse=True)
               if isinstance(getattr(layers, name), type)}  # fmt: skip
    return {c.__name__ for c in classes if c.__module__.startswith("keras.")}
