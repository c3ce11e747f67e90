"""Counts how often one sample's forward pass multiplies each entry of each weight of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.layer_products import rule_of
from masksweep.strategies.core.raw_products import Positions, add, product, raw_products
from masksweep.strategies.core.weights import all_weights, describe
from masksweep.strategies.errors import Invalid


def positions(model: Any, inputs: Any = None) -> dict[str, Positions]:
    """Counts how often one sample's forward pass multiplies each entry of each weight.

    A weight with `n` entries and `p` positions takes `n * p` multiply-adds. The kernel of a Dense
    layer has one position for each vector that the layer gets, that of a convolution one for each
    output position, that of a transposed convolution one for each input position, and the kernels
    of a recurrent layer one for each time step. If a layer is called several times, its positions
    add up.

    The model is traced once; nothing is computed. Layers of Keras are counted by the shapes of
    their inputs and outputs. In layers and models that use weights themselves, the operations
    `MatMul` and `Einsum` of the graph are counted.

    What is counted:

    - Only products of a weight with what depends on the inputs. Not counted are biases,
      activations, factors for each channel (such as those of normalization), products inside of
      attention, and what is computed from weights alone.
    - An Embedding looks rows up, so it has 0 positions.
    - With `padding="same"` or `"causal"`, each entry of a kernel counts at each output position,
      also where it meets padding.
    - Time steps that a Keras mask skips count.
    - The factors of LoRA count as in its paper, each applied to the inputs. Keras instead adds
      their product to the kernel, once for each batch.

    Args:
        model: A built Keras model.
        inputs: A batch of inputs as the model takes them: arrays, or symbolic inputs such as
            `keras.Input((20,))`. Only their shapes and dtypes matter, not the size of the batch.
            Needed if the model does not tell the sizes of its inputs.

    Returns:
        The positions by the weight's name, for the weights of `all_weights`. None where a weight is
        used in another way than above, or where a size depends on the values of the inputs.

    Raises:
        Invalid: The sizes of the inputs are unknown, or the model cannot be traced.

    Reference:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1.

    Example:
        >>> import keras
        >>> layers = [keras.Input((20, 3)), keras.layers.Conv1D(8, 5, name="conv"),
        ...           keras.layers.GRU(4, name="gru")]
        >>> for name, count in positions(keras.Sequential(layers)).items():
        ...     print(name, count)
        conv/kernel 16
        conv/bias 0
        gru/gru_cell/kernel 16
        gru/gru_cell/recurrent_kernel 16
        gru/gru_cell/bias 0
    """
    specs, batch = _input_specs(model, inputs)
    counter = _Counter(model)
    try:
        with keras_internals.calling(counter.calls, counter.layers):
            counts = counter.trace(model, [specs])
    except Exception as error:  # a layer may run any code
        # Keras adds colours and the arguments
        reason = re.sub(r"\x1b\[\d+m|Arguments received.*", "", str(error), flags=re.DOTALL)
        allowed = f"cannot be traced to count its multiply-adds: {' '.join(reason.split())}"
        raise Invalid("model", model.name, allowed) from error
    variables = all_weights(model)
    in_batch = [counts.get(id(v), 0) for v in variables]
    in_sample = [None if p is None or p % batch else p // batch for p in in_batch]
    return {w.name: p for w, p in zip(describe(model, variables), in_sample, strict=True)}


def flops(position_count: Positions, entries: int) -> int | None:
    """Returns the FLOPs of a weight for each sample. A multiply-add is two operations.

    Args:
        position_count: The weight's positions, from `positions`.
        entries: Number of its entries that cost something: all, or those not held at zero.
    """
    return None if position_count is None else 2 * position_count * entries


def _input_specs(model: Any, inputs: Any) -> tuple[Any, int]:
    """Returns the shapes and dtypes of a batch of the model's inputs, and the size of the batch."""
    import keras
    import tensorflow as tf

    batch = 1
    if inputs is None:
        if getattr(model, "inputs", None):  # Functional or Sequential
            batch = model.inputs[0].shape[0] or 1
            inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
        elif shapes := (model.get_build_config() or {}).get("input_shape"):
            inputs = keras.tree.map_shape_structure(keras.KerasTensor, shapes)

    def spec(tensor: Any) -> Any:
        shape = (batch, *tensor.shape[1:])
        if None in shape:
            allowed = "has unknown sizes; to count, give inputs with these sizes"
            raise Invalid("inputs", f"shape {tuple(tensor.shape)}", allowed)
        return tf.TensorSpec(shape, keras.backend.standardize_dtype(tensor.dtype))

    if inputs is None:
        allowed = "must be given to count: the model does not tell the shapes of its inputs"
        raise Invalid("inputs", inputs, allowed)
    return keras.tree.map_structure(spec, inputs), batch


class _Counter:
    """Counts in the calls of a model's layers while the model is traced."""

    def __init__(self, model: Any) -> None:
        import keras

        self.layers = [
            layer
            for layer in keras_internals.all_layers(model)
            if isinstance(layer, keras.layers.RNN) or rule_of(layer) is not None
        ]
        """The layers that are counted as a whole."""
        self.calls = {
            id(layer): partial(self._called, layer, keras_internals.own_call(layer))
            for layer in self.layers
        }
        """What replaces the `call` of these layers, by their `id`."""
        self._variables = all_weights(model)
        self._counts: dict[int, Positions] = {}
        self._counting = True
        """False while a layer is called that is counted as a whole."""

    def trace(self, call: Callable[..., Any], specs: Sequence[Any]) -> dict[int, Positions]:
        """Returns the positions in a call with arguments of these shapes, by variables' `id`."""
        import keras
        import tensorflow as tf

        def traced(*arguments: Any) -> None:
            self._counts, self._counting = {}, True
            weights = [tf.compat.v1.placeholder(v.dtype, v.shape) for v in self._variables]
            with keras.StatelessScope(list(zip(self._variables, weights, strict=True))):
                call(*arguments)
            by_id = dict(zip(map(id, self._variables), weights, strict=True))
            operations = tf.compat.v1.get_default_graph().get_operations()
            self._add(raw_products(by_id, keras.tree.flatten(arguments), operations))

        outer = self._counts, self._counting
        try:
            tf.function(traced, autograph=False).get_concrete_function(*specs)
            return self._counts
        finally:
            self._counts, self._counting = outer

    def _called(self, layer: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a layer as usual, and counts the products with its kernels."""
        import keras

        if not self._counting:
            return call(*args, **kwargs)
        self._counting = False
        try:
            with keras.StatelessScope():  # weights are not those that `trace` looks for
                outputs = call(*args, **kwargs)
        finally:
            self._counting = True
        inputs, rule = next(iter([*args, *kwargs.values()])), rule_of(layer)
        if rule is None:
            counts = self._in_cell(layer, inputs)
        else:
            sizes = list(inputs.shape), list(keras.tree.flatten(outputs)[0].shape)
            own = keras_internals.own_weights(layer)
            names = ("kernel", "lora", *["values"] * hasattr(layer, "counted_as"))
            kernels = [v for v in own if any(name in v.name for name in names)]
            counts = {id(v): rule(layer, v.name, *sizes) for v in kernels}
        self._add(counts)
        return outputs

    def _add(self, counts: Mapping[int, Positions]) -> None:
        for key, count in counts.items():
            add(self._counts, key, count)

    def _in_cell(self, layer: Any, inputs: Any) -> dict[int, Positions]:
        """Returns the positions in all steps of a recurrent layer, from one call of its cell."""
        import keras
        import tensorflow as tf

        states = layer.get_initial_state(batch_size=inputs.shape[0])
        specs = keras.tree.map_structure(tf.type_spec_from_value, [inputs[:, 0], states])
        step = self.trace(layer.cell, specs)
        return {key: product([count, inputs.shape[1]]) for key, count in step.items()}
