"""Counts the products of weights with inputs in the operations of a traced graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

Positions = int | None
"""How often each entry of a weight is multiplied; None if it is unknown."""
Sizes = Sequence[int | None]

NO_PRODUCTS = {"AddV2", "BiasAdd", "Sub", "ConcatV2", "Pack", "GatherV2"}
"""Operations that add a weight to something, put them side by side, or look rows up."""
KEEP_ENTRIES = {"Identity", "StopGradient", "Cast", "Reshape", "Transpose", "ExpandDims", "Squeeze",
                "Mul"}  # fmt: skip
"""Operations whose output, if it has as many entries, has those of the input at other places or
with a factor. So it is zero where the input is."""


def product(sizes: Iterable[int | None]) -> Positions:
    """Returns the product of sizes; None if one of them is unknown."""
    known = list(sizes)
    return None if None in known else prod(known)  # type: ignore[arg-type]


def add(counts: dict[Any, Positions], key: Any, count: Positions) -> None:
    """Adds a count to that of a key. Unknown counts have an unknown sum."""
    before = counts.get(key, 0)
    counts[key] = None if before is None or count is None else before + count


def raw_products(
    weights: Mapping[int, Any], inputs: Sequence[Any], operations: Sequence[Any]
) -> dict[int, Positions]:
    """Counts how often each entry of a weight is multiplied by something that depends on inputs.

    A weight may be transposed, reshaped or scaled first. If something else is computed from weights
    alone, such as a part of a kernel, then its products with inputs are unknown.

    Args:
        weights: The weights as tensors of a graph, by a key.
        inputs: The tensors of the graph that are its inputs.
        operations: The operations of the graph, each after those whose outputs it takes.

    Returns:
        The positions by the key of the weight. A weight with one axis that is not multiplied as a
        matrix has none, for example a bias or a scale.
    """
    counts: dict[int, Positions] = {}
    from_inputs = {tensor.name for tensor in inputs}
    from_weights = {tensor.name: {key: True} for key, tensor in weights.items()}
    """Whether a tensor has the entries of a weight as they are, by tensor and by weight."""
    for operation in operations:
        outputs = operation.outputs
        dependent = any(t.name in from_inputs for t in operation.inputs)
        if dependent:
            from_inputs.update(t.name for t in outputs)
        for index, tensor in enumerate(operation.inputs):
            for key, whole in from_weights.get(tensor.name, {}).items():
                if dependent:
                    vector = len(weights[key].shape) < 2
                    add(counts, key, _positions(operation, index, whole, vector))
                    continue
                for output in outputs:
                    entries_kept = operation.type in KEEP_ENTRIES and (
                        product(output.shape) == product(tensor.shape)
                    )
                    derived = from_weights.setdefault(output.name, {})
                    derived[key] = derived.get(key, False) or (whole and entries_kept)
    return counts


def _positions(operation: Any, index: int, whole: bool, vector: bool) -> Positions:
    """Returns how often an operation multiplies each entry of its input of this index."""
    if operation.type in NO_PRODUCTS:
        return 0
    if operation.type in PRODUCTS:
        return PRODUCTS[operation.type](operation, index) if whole else None
    return 0 if vector else None


def _matmul(operation: Any, index: int) -> Positions:
    first, second = (list(t.shape) for t in operation.inputs)
    transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
    contracted = first[-2] if transposed else first[-1]
    multiply_adds = product([*operation.outputs[0].shape, contracted])
    entries = product((first, second)[index])
    return multiply_adds // entries if multiply_adds is not None and entries else None


def _einsum(operation: Any, index: int) -> Positions:
    shapes = [list(t.shape) for t in operation.inputs]
    return einsum_positions(operation.get_attr("equation").decode(), shapes, index)


PRODUCTS: dict[str, Callable[[Any, int], Positions]] = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Einsum": _einsum,
}
"""Operations that multiply, and how to count with them."""


def einsum_sizes(equation: str, shapes: Sequence[Sizes]) -> list[dict[str, int | None]]:
    """Returns the sizes of each operand of an einsum equation, by label.

    The axes of an ellipsis are one label, `...`.

    Example:
        >>> einsum_sizes("...ab,bc->...ac", [(2, 5, 3, 4), (4, 6)])
        [{'a': 3, 'b': 4, '...': 10}, {'b': 4, 'c': 6}]
    """
    sizes = []
    for labels, shape in zip(equation.partition("->")[0].split(","), shapes, strict=True):
        left, ellipsis, right = labels.strip().partition("...")
        end = len(shape) - len(right)
        operand = dict(zip(left, shape, strict=False))
        operand |= zip(right, shape[end:], strict=True)
        if ellipsis:
            operand["..."] = product(shape[len(left) : end])
        sizes.append(operand)
    return sizes


def einsum_positions(equation: str, shapes: Sequence[Sizes], operand: int) -> Positions:
    """Returns how often an einsum multiplies each entry of one of its two operands.

    None if the operand has an ellipsis, or an axis that the equation repeats: not all of its
    entries are multiplied equally often then.

    Example:
        >>> einsum_positions("abc,cd->abd", [(1, 6, 4), (4, 8)], operand=1)
        6
    """
    sizes = einsum_sizes(equation, shapes)
    own = sizes[operand]
    if "..." in own or len(own) < len(shapes[operand]) or len(shapes) != 2:
        return None
    return product(s for label, s in sizes[1 - operand].items() if label not in own)
