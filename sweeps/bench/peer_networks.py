"""The network of a bench in PyTorch, SparseLab and JAX: functions that train a number of steps.

They run in a child process, and import their library there. Each gets the `widths` of the layers,
the `format`, the `sparsity` of all layers but the last, and the number of `threads`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from masksweep.sweeps.bench.cases import BATCH_SIZE


def _data(request: dict[str, Any]) -> tuple[Any, Any, list[Any], list[Any]]:
    """Random (x, y, kernels `[inputs, outputs]`, masks of all kernels but the last)."""
    import numpy as np

    rng, widths = np.random.default_rng(0), request["widths"]
    x = rng.standard_normal((8 * BATCH_SIZE, widths[0]), np.float32)
    y = rng.integers(0, widths[-1], len(x))
    pairs = list(pairwise(widths))
    kernels = [rng.standard_normal(shape, np.float32) * (2 / sum(shape)) ** 0.5 for shape in pairs]
    masks = [rng.random(shape, np.float32) >= request["sparsity"] for shape in pairs[:-1]]
    return x, y, kernels, masks


def _torch(request: dict[str, Any]) -> Callable[[int], None]:
    import torch
    from torch.nn import functional

    torch.set_num_threads(request["threads"])
    x, y, kernels, masks = _data(request)
    xs, ys = torch.from_numpy(x).split(BATCH_SIZE), torch.from_numpy(y).split(BATCH_SIZE)
    format_name, last = request["format"], len(kernels) - 1
    biases = [torch.zeros(k.shape[1], requires_grad=True) for k in kernels]
    weights: list[Any] = []
    mask_tensors: list[Any] = []
    for number, kernel in enumerate(kernels):
        dense = torch.from_numpy(kernel.T.copy())  # [outputs, inputs], as PyTorch's Linear
        mask = None if number == last else torch.from_numpy(masks[number].T.astype("float32"))
        if format_name == "csr" and mask is not None:
            sparse = (dense * mask).to_sparse_csr()
            weights.append(sparse.requires_grad_())
        else:
            weights.append(dense.requires_grad_())
        mask_tensors.append(mask)

    def product(number: int, h: Any) -> Any:
        weight = weights[number]
        if format_name == "masked" and number != last:
            weight = weight * mask_tensors[number]
        if format_name == "csr" and number != last:
            return torch.sparse.mm(weight, h.T).T + biases[number]
        return functional.linear(h, weight, biases[number])

    strided = [w for w in weights + biases if w.layout == torch.strided]
    optimizer = torch.optim.Adam(strided, fused=True)  # the dense control is fused too
    # torch.optim.Adam does not accept sparse parameters, so their values are updated by hand
    slots = [[torch.zeros_like(w.values()) for _ in "mv"] for w in weights if w.is_sparse_csr]
    counter = 0

    def step(number: int) -> None:
        nonlocal counter
        h = xs[number % len(xs)]
        for layer in range(last):
            h = torch.relu(product(layer, h))
        loss = functional.cross_entropy(product(last, h), ys[number % len(ys)])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        counter += 1
        with torch.no_grad():
            for weight, (m, v) in zip((w for w in weights if w.is_sparse_csr), slots, strict=True):
                gradient = weight.grad.values()
                m.lerp_(gradient, 0.1)
                v.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                rate = 1e-3 * (1 - 0.999**counter) ** 0.5 / (1 - 0.9**counter)
                weight.values().addcdiv_(m, v.sqrt().add_(1e-8), value=-rate)
                weight.grad = None

    def steps(count: int) -> None:
        for number in range(count):
            step(number)

    return steps


def _sparselab(request: dict[str, Any]) -> Callable[[int], None]:
    """SparseLab draws its masks and weights itself. Its last layer is PyTorch's.

    Reference:
        https://pypi.org/project/sparselab/
    """
    import torch
    from sparselab import SparseLinear
    from torch.nn import functional

    torch.set_num_threads(request["threads"])
    torch.manual_seed(0)
    x, y, kernels, _ = _data(request)
    xs, ys = torch.from_numpy(x).split(BATCH_SIZE), torch.from_numpy(y).split(BATCH_SIZE)
    layers: list[Any] = []
    for kernel in kernels[:-1]:
        layers += [SparseLinear(*kernel.shape, sparsity=request["sparsity"]), torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers, torch.nn.Linear(*kernels[-1].shape))
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def steps(count: int) -> None:
        for number in range(count):
            loss = functional.cross_entropy(network(xs[number % len(xs)]), ys[number % len(ys)])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    return steps


def _jax(request: dict[str, Any]) -> Callable[[int], None]:
    import jax
    import jax.numpy as jnp
    from jax.experimental import sparse

    x, y, kernels, masks = _data(request)
    xs, ys = (jnp.asarray(a).reshape(-1, BATCH_SIZE, *a.shape[1:]) for a in (x, y))
    format_name, last = request["format"], len(kernels) - 1
    values: list[Any] = [jnp.asarray(k) for k in kernels]
    mask_arrays = [jnp.asarray(m) for m in masks]
    indices: list[Any] = []
    if format_name == "bcoo":
        matrices = [sparse.BCOO.fromdense(v * m) for v, m in zip(values, mask_arrays, strict=False)]
        indices = [m.indices for m in matrices]
        values = [*(m.data for m in matrices), values[-1]]
    biases = [jnp.zeros(k.shape[1]) for k in kernels]

    def product(number: int, value: Any, h: Any) -> Any:
        if number == last or format_name == "dense":
            return h @ value
        if format_name == "masked":
            return h @ jnp.where(mask_arrays[number], value, 0)
        kernel = sparse.BCOO((value, indices[number]), shape=kernels[number].shape)
        return (kernel.T @ h.T).T

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        h = x
        for number, (value, bias) in enumerate(zip(*parameters, strict=True)):
            h = product(number, value, h) + bias
            h = jax.nn.relu(h) if number != last else h
        return -jnp.take_along_axis(jax.nn.log_softmax(h), y[:, None], 1).mean()

    def step(number: Any, state: Any) -> Any:
        parameters, m, v, count = state
        batch = number % len(xs)
        gradients = jax.grad(loss)(parameters, xs[batch], ys[batch])
        count = count + 1
        rate = 1e-3 * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
        tree_map = jax.tree_util.tree_map
        m = tree_map(lambda a, g: 0.9 * a + 0.1 * g, m, gradients)
        v = tree_map(lambda a, g: 0.999 * a + 0.001 * g * g, v, gradients)
        updated = tree_map(lambda p, a, b: p - rate * a / (jnp.sqrt(b) + 1e-8), parameters, m, v)
        return updated, m, v, count

    m, v = (jax.tree_util.tree_map(jnp.zeros_like, (values, biases)) for _ in "mv")
    state: Any = ((values, biases), m, v, jnp.float32(0))
    # the state is donated: otherwise each call would copy it first
    run_steps = jax.jit(lambda count, s: jax.lax.fori_loop(0, count, step, s), donate_argnums=1)

    def steps(count: int) -> None:
        nonlocal state
        state = jax.block_until_ready(run_steps(count, state))

    return steps


BUILDERS: dict[str, Callable[[dict[str, Any]], Callable[[int], None]]] = {
    "torch": _torch,
    "sparselab": _sparselab,
    "jax": _jax,
}
"""By library: takes the description of the network, and returns the function that trains it."""
