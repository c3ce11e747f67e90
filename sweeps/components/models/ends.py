"""Checks that the inputs and outputs of a model fit the data and the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from masksweep.strategies.core import keras_internals
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.text import pluralize
from masksweep.sweeps.components.datasets.arrays import Arrays, Head
from masksweep.sweeps.components.models.base import Model

PROBABILITIES = ("softmax", "sigmoid")
"""Functions whose results are probabilities, where the loss of a classification takes logits."""


def require_arity(model: Model, data: Arrays) -> None:
    """Checks that a model can have as many inputs and outputs as the data.

    Args:
        model: The model of the config.
        data: The data.

    Raises:
        Invalid: The data have several inputs or outputs, and the model cannot.
    """
    for kind, of_data in (("inputs", data.shape), ("outputs", data.model_outputs)):
        if isinstance(of_data, Mapping) and not model.takes_several:
            allowed = f"and {data.name} has the {kind} {', '.join(of_data)}"
            raise _fault(model, f"has one input and one output, {allowed}")


def require_fit(model: Model, network: Any, data: Arrays) -> None:
    """Checks the shapes of a network's ends, and that the outputs of a classification are logits.

    A subclassed Keras model does not tell its inputs and outputs, so it is not checked.

    Args:
        model: The model of the config, for messages.
        network: The Keras model that it builds.
        data: The data.

    Raises:
        Invalid: The inputs or the outputs do not fit.
    """
    if not getattr(network, "outputs", None):
        return
    if fault := input_fault(network, data.shape):
        raise _fault(model, fault)
    if data.heads is None:
        heads, tensors = {"": Head(data.task, data.outputs)}, _single(network.outputs)
    else:
        heads, tensors = dict(data.heads), tensors_by_name(network, "output")
    if tensors.keys() != heads.keys():
        if data.heads:
            of_data = f"{data.name} has {', '.join(heads)}"
            raise _fault(model, f"has the outputs {', '.join(tensors)}; {of_data}")
        found = ", ".join(str(tuple(tensor.shape)) for tensor in network.outputs)
        raise _fault(model, f"has outputs of the shape {found}; {_wanted(data.name, heads[''])}")
    for name, head in heads.items():
        _require_output(model, data.name, name, head, tensors[name])


def _require_output(model: Model, data: str, name: str, head: Head, tensor: Any) -> None:
    shape = tuple(tensor.shape)
    if shape != (None, head.outputs):
        of_name = f" {name}" if name else "s of the shape"
        of_one = "; a model with one output takes data.task=binary, of data=npz and data=csv"
        is_binary = (head.task, head.outputs, shape) == ("classification", 2, (None, 1))
        raise _fault(
            model, f"has output{of_name} {shape}; {_wanted(data, head)}{of_one * is_binary}"
        )
    if head.task != "regression" and (function := final_function(tensor)) in PROBABILITIES:
        allowed = "the loss takes logits, so the model must end without it"
        raise _fault(model, f"ends in a {function}; {allowed}")


def _wanted(data: str, head: Head) -> str:
    unit = "label" if head.task == "multi_label" else "value"
    counted = f"{pluralize(head.outputs, unit)} for each sample"
    if head.task == "classification":
        counted = f"{head.outputs} classes"
    return f"{data} has {counted}, so they must be (None, {head.outputs})"


def _single(tensors: list[Any]) -> dict[str, Any]:
    """Returns an only tensor under an empty name; none if there are several."""
    return {"": tensors[0]} if len(tensors) == 1 else {}


def tensors_by_name(network: Any, end: str) -> dict[str, Any]:
    """Returns the input or output tensors of a network by the names that Keras knows them by.

    Args:
        network: A Keras model, Functional or Sequential.
        end: `input` or `output`.
    """
    network = keras_internals.functional(network)
    structure = getattr(network, end)
    if isinstance(structure, Mapping):
        return dict(structure)
    tensors = getattr(network, f"{end}s")
    names = network.output_names if end == "output" else [tensor.name for tensor in tensors]
    return dict(zip(names, tensors, strict=True))


def input_fault(network: Any, shape: Any) -> str:
    """Returns what is wrong with the inputs of a network; empty if it takes the samples.

    Args:
        network: A Keras model, Functional or Sequential.
        shape: The shape of a sample, or the shapes by the names of several inputs. A size that the
            network leaves open (None) fits each.
    """
    if isinstance(shape, Mapping):
        tensors = tensors_by_name(network, "input")
        if tensors.keys() != shape.keys():
            return f"has the inputs {', '.join(tensors)}; the data have {', '.join(shape)}"
        faults = (_shape_fault(f" {n}", [tensors[n]], own) for n, own in shape.items())
        return next(filter(None, faults), "")
    return _shape_fault("s of the shape", network.inputs, shape)


def _shape_fault(of_name: str, tensors: list[Any], shape: tuple[int, ...]) -> str:
    expected, shapes = (None, *shape), [tuple(tensor.shape) for tensor in tensors]
    if len(shapes) == 1 and len(shapes[0]) == len(expected):
        pairs = zip(shapes[0], expected, strict=True)
        if all(size in (None, wanted) for size, wanted in pairs):
            return ""
    found = ", ".join(map(str, shapes))
    return f"has input{of_name} {found}; it must be that of the data, {expected}"


def final_function(tensor: Any) -> str:
    """Returns the name of the activation that makes an output, as `softmax`.

    Args:
        tensor: An output of a Keras model, Functional or Sequential.

    Example:
        >>> import keras
        >>> layers = [keras.Input((4,)), keras.layers.Dense(3, "sigmoid")]
        >>> final_function(keras.Sequential(layers).outputs[0])
        'sigmoid'
    """
    last = keras_internals.source(tensor)
    inner = getattr(last, "outputs", None)
    if inner and len(inner) == 1:  # a model within the model
        return final_function(inner[0])
    # an activation of Keras is a function, a layer, or an operation of `keras.ops`
    activation = getattr(last, "activation", None) or last
    return str(getattr(activation, "__name__", type(activation).__name__)).lower()


def _fault(model: Model, reason: str) -> Invalid:
    """Returns the fault under the key that chooses the network: a file, or a model by name."""
    if "path" in (field.name for field in fields(model)):  # type: ignore[arg-type]
        return Invalid("model.path", getattr(model, "path", ""), reason)
    return Invalid("model", model.name, reason)
