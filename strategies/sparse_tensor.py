"""The `sparse_tensor` strategy: train the values inside a `tf.SparseTensor`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np

from masksweep.strategies.base import Strategy
from masksweep.strategies.binding import Binding
from masksweep.strategies.errors import require
from masksweep.strategies.kernels.binding import MODULES, binding, dense_zeros, misfit
from masksweep.strategies.kernels.choice import choose, choose_for_moving_masks
from masksweep.strategies.plan import MATRIX_LAYERS, Array, Mask, MaskedWeight, Plan, variable_of
from masksweep.strategies.registry import register
from masksweep.strategies.sparse_values import SparseValues

FORMATS = ("auto", "coo", "lookup", "compiled", "block", "compact", "dense")


def _indices(mask: Mask) -> Array:
    """Returns the indices of each kept entry, sorted by the first axis, `[kept, axes]` int64."""
    return np.argwhere(mask).astype(np.int64)


def _indices_by_output(mask: Mask) -> Array:
    """Returns the indices of each kept entry, sorted by the last axis, `[kept, axes]` int64."""
    return np.argwhere(mask.T)[:, ::-1].astype(np.int64)


def _places(m: Any, shape: tuple[int, ...]) -> Any:
    """Returns the index of each kept entry in the flattened kernel, `[kept]` int64."""
    import tensorflow as tf

    steps = np.cumprod([1, *shape[:0:-1]])[::-1].astype(np.int64)
    return tf.reduce_sum(m * steps, axis=1)


def _matrix(x: Any, v: Any, m: Any, h: Any) -> Any:
    """Returns the kernel as a `tf.SparseTensor`, `[inputs, outputs]`, for `x @ kernel`."""
    import tensorflow as tf

    inputs = x.shape[-1]
    kernel = tf.SparseTensor(m, v, h.shape)
    return tf.sparse.reshape(kernel, [inputs, math.prod(h.shape) // inputs])


def _multiply(x: Any, v: Any, m: Any, h: Any) -> Any:
    """Returns `x @ kernel`, by one sparse product."""
    import tensorflow as tf

    kernel, x = _matrix(x, v, m, h), tf.cast(x, v.dtype)
    # computed as (W^T x^T)^T, because TensorFlow takes a sparse matrix only as the left operand
    return tf.transpose(tf.sparse.sparse_dense_matmul(kernel, x, adjoint_a=True, adjoint_b=True))


def _look_up(x: Any, v: Any, m: Any, h: Any) -> Any:
    """Returns `x @ kernel`, computed for each output as a weighted sum of its inputs."""
    import tensorflow as tf

    kernel, x = _matrix(x, v, m, h), tf.cast(x, v.dtype)
    shape = kernel.dense_shape[::-1]
    weights = tf.SparseTensor(tf.reverse(kernel.indices, [1]), v, shape)
    # a look-up needs the entries sorted by output; the layout sorts them by the last axis only
    if math.prod(h.shape) // x.shape[-1] != h.shape[-1]:
        weights = tf.sparse.reorder(weights)
    inputs = tf.SparseTensor(weights.indices, weights.indices[:, 1], shape)
    y = tf.nn.embedding_lookup_sparse(tf.transpose(x), inputs, weights, combiner="sum")
    # the result has no rows for the last outputs if these have no inputs
    y = tf.pad(y, [[0, shape[0] - tf.shape(y, tf.int64)[0]], [0, 0]])
    return tf.transpose(y)


def _written_out() -> Binding:
    """Returns the functions of `format="dense"`: those of `sparse_values`, without held values."""
    import tensorflow as tf

    values = SparseValues().bind()
    return replace(
        values,
        substitute=lambda v, m, h: values.substitute(v, m, dense_zeros(h)),
        places=lambda m, shape: tf.cast(m, tf.int64),  # -1 - position where a value is left over
    )


@register
@dataclass(frozen=True)
class SparseTensor(Strategy):
    """Trains the values inside a `tf.SparseTensor`; masked entries are not stored at all.

    `v` are the kept values, `[kept]`, `W` is the sparse kernel, `[inputs, outputs]`, and `x` are
    the inputs, `[rows, inputs]`. The product is

    - with `format="coo"`, `y = sparse_dense_matmul(W^T, x^T)^T`;
    - with `format="lookup"`, `y = embedding_lookup_sparse(x^T, inputs of each output, v)^T`, as
      TensorFlow's guide to sparse tensors does for wide models. It needs `kept * rows` numbers;
    - with `format="compiled"`, the same product and both gradients by functions that Numba compiles
      for this processor. See `masksweep.strategies.kernels.products`;
    - with `format="block"`, compiled products of whole blocks, whose shape is found in the mask;
    - with `format="compact"`, a small dense kernel of the kept rows and columns;
    - with `format="dense"`, the layer's own product with the kernel written out, as
      `tf.sparse.to_dense` does: the fastest for small kernels;
    - with `format="auto"`, for each weight what is the fastest for its mask, its number of kept
      entries and the device. `masksweep plan --check` shows it, and the tag `strategy.format` of a
      trial. See `masksweep.strategies.kernels.choice`.

    The rows of a Conv1D, Conv2D or Conv3D are its windows at all positions: `batch * positions`
    rows of `window * channels` inputs. An EinsumDense is computed if it sums over the last axes of
    its inputs and the first axes of its kernel, as the layers inside MultiHeadAttention do.

    Holds: kernels of Dense, EinsumDense, Conv1D, Conv2D and Conv3D, at zero, because a sparse
    matrix cannot store another value for its missing entries. It refuses kernels with a constraint
    or regularizer, kernels that another layer also uses, convolutions with groups or with their
    channels first, and other equations of EinsumDense. `block` needs masks of whole blocks of at
    least two entries, and `compact` masks of whole rows and columns.

    Nothing of the size of the dense kernel is in memory during a training, except with `compact`,
    and with `dense` within a step: the mask is stored as bits, and the memory of the layer's own
    kernel is freed. Its `numpy()` is empty then. With `strategies.deferred_weights()` the kernel is
    never in memory.

    On a CPU, `auto` takes `compiled` for masks that move. It follows all schedules, and so does
    `dense`: the structure is made again at each change, with places for as many entries as at the
    start. Its products skip those that are left over; `speed/mask_change_ms` tells what a change
    costs. `coo`, which `auto` takes on a GPU, and `lookup` follow the schedules that keep the
    numbers of entries, such as `set` and `rigl`.

    Only `compact` and `dense` compile with XLA; with `auto`, if all weights have them. On a CPU,
    `coo` and `lookup` take several times as long as a dense kernel, and `dense` about as long. The
    others are faster than a dense kernel at high sparsity; `speed/ratio_to_dense` tells how much.
    `compiled` and `block` run on a CPU only, so `auto` takes `coo` in their place on a GPU. With
    `coo` and `lookup`, each step makes a new `tf.SparseTensor` from the variable `v`. A
    `tf.SparseTensor` that is made once has a copy of the values, and does not train.

    Raises:
        Invalid: `format` is none of these.

    Example:
        >>> import tensorflow as tf
        >>> binding = SparseTensor().bind()
        >>> m = binding.layout(np.array([[True, False], [False, True]]))
        >>> x, v, h = tf.constant([[1.0, 10.0]]), tf.constant([2.0, 3.0]), tf.zeros((2, 2))
        >>> binding.matmul(x, v, m, h).numpy()
        array([[ 2., 30.]], dtype=float32)
    """

    name: ClassVar[str] = "sparse_tensor"
    format: Literal["auto", "coo", "lookup", "compiled", "block", "compact", "dense"] = field(
        default="auto", metadata={"implied": "coo"}
    )
    """How the layer computes its outputs."""

    def __post_init__(self) -> None:
        require(
            self.format in FORMATS,
            "format",
            self.format,
            f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
        )

    @property
    def follows(self) -> Literal["all masks", "equal counts", "nothing"]:  # type: ignore[override]
        """Which changes of the masks it can follow: none that break the blocks or rows it needs."""
        if self.format in ("auto", "compiled", "dense"):
            return "all masks"
        return "nothing" if self.format in ("block", "compact") else "equal counts"

    @property
    def xla(self) -> bool:  # type: ignore[override]
        """Whether its training step compiles with XLA, which depends on the format."""
        return self.format in ("compact", "dense")

    def refuses(self, plan: Plan) -> str | None:
        for w in plan.weights:
            name = w.weight.name
            if w.weight.layer not in MATRIX_LAYERS or variable_of(name) != "kernel":
                return f"{name}: only kernels of {', '.join(MATRIX_LAYERS)} can be sparse matrices"
            if w.weight.not_a_matrix:
                return f"{name}: {w.weight.not_a_matrix}"
            if reason := misfit(self.format, w):
                return f"{name}: format={self.format} takes {reason} only"
            if w.weight.shared:
                return f"{name}: another layer uses this kernel too, and needs it dense"
            if w.weight.constrained or w.weight.regularized:
                return f"{name}: a constraint or regularizer needs the dense kernel"
            if not w.holds_zero:
                return f"{name}: a sparse matrix holds zero only"
        return None

    def for_weight(self, masked: MaskedWeight, on_gpu: bool | None = None) -> SparseTensor:
        if self.format != "auto":
            return self
        format: Any = choose(masked, on_gpu).format
        return replace(self, format=format)

    def for_moving_masks(self, on_gpu: bool | None = None) -> SparseTensor:
        if self.format != "auto":
            return self
        format: Any = choose_for_moving_masks(on_gpu).format
        return replace(self, format=format)

    def choices(self, plan: Plan, on_gpu: bool | None = None) -> dict[str, str]:
        if self.format != "auto" or not plan.weights:
            return {}
        names_by_text: dict[str, list[str]] = {}
        for w in plan.weights:
            format, reason = choose(w, on_gpu)
            text = f"{format} ({reason})" if reason else format
            names_by_text.setdefault(text, []).append(w.weight.name)
        if len(names_by_text) == 1:
            return {"format": next(iter(names_by_text))}
        texts = [f"{text} for {', '.join(names)}" for text, names in names_by_text.items()]
        return {"format": "; ".join(texts)}

    def bind(self) -> Binding:
        """Returns the functions of the format; with `auto`, which is not chosen yet, of `coo`."""
        if self.format in MODULES:
            return binding(self.format)
        if self.format == "dense":
            return _written_out()
        import tensorflow as tf

        formats = {"coo": (_multiply, _indices), "lookup": (_look_up, _indices_by_output)}
        matmul, layout = formats["lookup" if self.format == "lookup" else "coo"]
        return Binding(
            layout=layout,
            keep=lambda held, m: held,
            init=lambda w, m, h: tf.gather_nd(w, m),
            substitute=lambda v, m, h: tf.tensor_scatter_nd_update(dense_zeros(h), m, v),
            matmul=matmul,
            matmul_layers=MATRIX_LAYERS,
            places=_places,
        )
