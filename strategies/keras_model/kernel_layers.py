"""The layers that compute with a masked kernel, and what must not be done to them later."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.errors import Invalid

KERNELS = ("kernel", "embeddings")
"""Names of the variables that LoRA adds to, and that quantization replaces."""


def kernel_layers(model: Any, weights: Iterable[HeldWeight]) -> list[tuple[str, Any]]:
    """Returns pairs (name of a masked kernel, layer that has it)."""
    masked = {id(w.variable): w.weight.name for w in weights}
    return [
        (name, layer)
        for layer in keras_internals.all_layers(model)
        for variable in keras_internals.own_variables(layer)
        if (name := masked.get(id(variable))) and variable.name in KERNELS
    ]


def require_masked_kernels(layers: Iterable[tuple[str, Any]]) -> None:
    """Checks that layers still compute with their masked kernel, and with nothing beside it.

    Args:
        layers: What `kernel_layers` returned.

    Raises:
        Invalid: A layer got LoRA, or was quantized.
    """
    for name, layer in layers:
        if getattr(layer, "lora_enabled", False):
            allowed = "has LoRA, which adds to its held entries; enable it before apply, or enable"
            raise Invalid("model", name, f"{allowed} it in the model that export_plain returns")
        if getattr(layer, "quantization_mode", None) is not None:
            allowed = "is quantized, so its masks are lost; quantize what export_plain returns"
            raise Invalid("model", name, allowed)
