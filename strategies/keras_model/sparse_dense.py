"""`SparseDense`: a Keras layer that is connected as a graph, and is never dense."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from masksweep.strategies.core.drawing import draw_entries
from masksweep.strategies.core.edge_list import EdgeList
from masksweep.strategies.core.weights import owners
from masksweep.strategies.errors import Invalid, require
from masksweep.strategies.kernels.structure import flat_indices, pack_entries, packed_length
from masksweep.strategies.patterns.edges import as_edge_list
from masksweep.strategies.plan import Array, variable_of


@keras.saving.register_keras_serializable(package="masksweep")
class SparseDense(keras.layers.Layer):  # type: ignore[misc]
    """A layer that computes `activation(x @ kernel + bias)` with a kernel of chosen connections.

    Only the connections have values: `layer.values`, `[kept]`, is the only kernel that trains. So
    optimizer slots are `[kept]` too, and nothing of the size of the dense kernel `[inputs, units]`
    is in memory at any time. All other entries of the kernel are zero.

    It is a layer of Keras: use it in Sequential, Functional and subclassed models, with `compile`,
    `fit`, `save` and `load_model`. `strategies.audit(model)` checks that the connections are those
    that were given, and `strategies.summary(model)` counts them.

    On a CPU the product is compiled by Numba (see `masksweep.strategies.kernels.products`). Where
    there is a GPU, it is `tf.sparse.sparse_dense_matmul`. It does not compile with XLA, and a model
    with the compiled product cannot be exported for another process.

    The initial values are those of a `keras.layers.Dense` with the same initializer and seed, at
    the connections. So the scale of an initializer is that of the dense layer.

    Args:
        units: Number of outputs.
        edges: The connections, each from an input to a unit. One of: pairs of indices from 0, as an
            array `[edges, 2]`, a list, or a DataFrame of two columns; a SciPy sparse matrix
            `[inputs, units]`, whose entries that are not 0 are edges; the path of a `.csv` or
            `.npz` file as for `strategies.Edges`; or a `strategies.Edges`, which also takes names.
            An edge may be given twice.
        activation: As in `keras.layers.Dense`.
        use_bias: Whether there is a bias.
        kernel_initializer: Initializer of the values; it gets the shape `(inputs, units)`.
        bias_initializer: Initializer of the bias.
        kept: Number of connections. Set by `get_config` only.
        digest: SHA-256 of the structure. Set by `get_config` only.
        **arguments: Other arguments of `keras.layers.Layer`, such as `name`.

    Raises:
        Invalid: The edges cannot be read, or do not fit the numbers of inputs and units.

    Example:
        >>> import keras
        >>> from masksweep import strategies
        >>> layer = SparseDense(3, edges=[(0, 0), (1, 0), (3, 2)], name="genes")
        >>> model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(1)])
        >>> layer.values.shape
        TensorShape([3])
        >>> model.compile("adam", "mse")
        >>> history = model.fit(np.ones((8, 4)), np.ones(8), verbose=0)
        >>> print(strategies.audit(model))
        weight        masked  violated  drift   moved
        genes/values       9         0      0  100.0%
        ok
    """

    counted_as: ClassVar[str] = "Dense"
    """The layer of Keras that makes as many products with each entry of its kernel."""

    def __init__(
        self,
        units: int,
        edges: Any = None,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        *,
        kept: int | None = None,
        digest: str | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        require(isinstance(units, int) and units > 0, "units", units, "a positive whole number")
        self.units, self.use_bias = units, use_bias
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self._edges: EdgeList | None = None if edges is None else as_edge_list(edges)
        if self._edges is None and kept is None:
            raise Invalid("edges", edges, "must be given")
        self.kept = kept
        """Number of connections; None before the layer is built."""
        self.digest = digest
        """SHA-256 of the structure that was given; None before the layer is built."""
        self._start: Array | None = None
        self._has_edges = False
        self.supports_jit = False
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Makes the variables. The numbers of inputs and units are known then."""
        inputs = int(input_shape[-1])
        self.shape = inputs, self.units
        structure, places = None, None
        if self._edges is not None:
            entries = self._edges.entries(self.name, self.shape)
            places = entries @ np.array([self.units, 1])
            inputs_of_entries, units_of_entries = entries.T.astype(np.int32)
            structure = pack_entries(inputs_of_entries, units_of_entries, self.shape)
            self.kept, self.digest = len(entries), _digest(structure)
            self._has_edges = True

        def edges(shape: Any, dtype: Any) -> Array:
            return np.zeros(shape, np.int32) if structure is None else structure

        def start(shape: Any, dtype: Any) -> Array:
            if places is None:  # it is loaded, and gets its values from the file
                return np.zeros(shape, tf.as_dtype(dtype).as_numpy_dtype)
            if self._start is None:
                self._start = draw_entries(self.kernel_initializer, self.shape, dtype, places)
            return self._start

        length = packed_length(self.shape, self.kept or 0)
        self.structure = self.add_weight(
            shape=(length,), initializer=edges, dtype="int32", trainable=False, name="structure"
        )
        self.values = self.add_weight(shape=(self.kept,), initializer=start, name="values")
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.units,), initializer=self.bias_initializer, name="bias"
            )
        self._edges = None
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: inputs})
        self.built = True

    def places(self) -> Array:
        """Returns the index of each value in the flattened kernel `[inputs, units]`, `[kept]`.

        Raises:
            Invalid: The layer was made from a config, and has no weights yet.
        """
        self._require_edges()
        with tf.init_scope():
            return np.asarray(flat_indices(tf.constant(self.structure.numpy()), *self.shape))

    def _require_edges(self) -> None:
        """Checks that the edges are known; if it was made from a config, they are weights."""
        if not self._has_edges:
            with tf.init_scope():
                self._has_edges = int(self.structure.value[0]) > 0
            allowed = "loaded or set, with the weights of the layer"
            require(self._has_edges, "edges", self.name, allowed)

    def call(self, inputs: Any) -> Any:
        """Returns the outputs, `[..., units]`, of inputs `[..., inputs]`."""
        self._require_edges()
        rows = tf.reshape(tf.cast(inputs, self.compute_dtype), [-1, self.shape[0]])
        product = _sparse_product if tf.config.list_logical_devices("GPU") else _compiled_product
        y = tf.cast(product(rows, self.values, self.structure.value, self.shape), rows.dtype)
        y = tf.reshape(y, tf.concat([tf.shape(inputs)[:-1], [self.units]], 0))
        y.set_shape([*inputs.shape[:-1], self.units])
        y = y if self.bias is None else y + self.bias
        return y if self.activation is None else self.activation(y)

    def compute_output_spec(self, inputs: Any) -> Any:
        """Returns the shape and dtype of the outputs."""
        return keras.KerasTensor((*inputs.shape[:-1], self.units), dtype=self.compute_dtype)

    # -- audit ---------------------------------------------------------------------------------

    @property
    def start(self) -> Array | None:
        """The initial values, `[kept]`; None if they are not known."""
        return self._start

    def has_given_structure(self) -> bool:
        """Returns whether the structure has the bits of the one that was given."""
        return _digest(self.structure.numpy()) == self.digest

    # -- saving and loading ----------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Returns the settings. The edges are stored with the weights once the layer is built."""
        edges = None if self._edges is None else np.stack(self._edges.indices, 1).tolist()
        return {
            **super().get_config(),
            "units": self.units,
            "edges": edges,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kept": self.kept,
            "digest": self.digest,
        }

    def save_own_variables(self, store: Any) -> None:
        """Stores the values, the bias, the structure, and the initial values."""
        super().save_own_variables(store)
        if self._start is not None:
            store["start"] = self._start

    def load_own_variables(self, store: Any) -> None:
        """Loads what `save_own_variables` stored."""
        for i, variable in enumerate(self._trainable_variables + self._non_trainable_variables):
            variable.assign(store[str(i)])
        self._start = np.array(store["start"]) if "start" in store else None


def sparse_layers(model: Any) -> dict[str, SparseDense]:
    """Returns the layers of this class in a model, by the name of their values."""
    if not isinstance(model, keras.Model):
        return {}
    return {
        name: layer
        for name, layer in owners(getattr(model, "model", model)).values()
        if isinstance(layer, SparseDense) and variable_of(name) == "values"
    }


def _digest(structure: Array) -> str:
    return hashlib.sha256(structure.astype("<i4").tobytes()).hexdigest()


def _compiled_product(x: Any, values: Any, structure: Any, shape: tuple[int, int]) -> Any:
    from masksweep.strategies.kernels.sparse_product import multiply

    return multiply(x, tf.convert_to_tensor(values), structure, shape[1])


def _sparse_product(x: Any, values: Any, structure: Any, shape: tuple[int, int]) -> Any:
    values = tf.convert_to_tensor(values)
    values = tf.cast(values, tf.float32) if values.dtype.size < 4 else values
    places = flat_indices(structure, *shape)
    by_output = tf.stack([places % shape[1], places // shape[1]], axis=1)
    kernel = tf.SparseTensor(by_output, values, shape[::-1])
    x = tf.cast(x, values.dtype)
    return tf.transpose(tf.sparse.sparse_dense_matmul(kernel, x, adjoint_b=True))
