"""Where Keras 2, and Keras 3 in `.h5` files, puts the weights of a model in an HDF5 file."""

from __future__ import annotations

import re

import h5py

from masksweep.strategies.core.weights import unique_names
from masksweep.sweeps.audit.hdf5 import Tree, weight
from masksweep.sweeps.audit.stored import StoredWeight

WHOLE_MODEL = "model_weights"
"""The group of the weights in the file of a whole model; else they are the file."""


def legacy_weights(path: str, file: h5py.File) -> list[StoredWeight]:
    """The weights in the file's order.

    There is a group for each layer of the model, and in it each variable under the name that
    TensorFlow or Keras has for it: `hidden/kernel:0`, `sequential/hidden/kernel`.

    Raises:
        Invalid: (key `path`) The file is not as Keras writes it.
    """
    tree = Tree(path)
    found: list[tuple[str, str, h5py.Dataset]] = []

    def walk(group: h5py.Group, layer: str, inside: tuple[str, ...]) -> None:
        if "weight_names" in group.attrs or "weight_names0" in group.attrs:
            layer, inside = "/".join([part for part in (layer, *inside) if part]), ()
        children = tree.children(group)
        if not layer and not inside and isinstance(children.get(WHOLE_MODEL), h5py.Group):
            walk(children[WHOLE_MODEL], "", ())
            return
        for name, child in children.items():
            if isinstance(child, h5py.Group):
                walk(child, layer, (*inside, name))
            elif layer and isinstance(child, h5py.Dataset):
                raw = re.sub(r":\d+$", "", "/".join([*inside, name]))
                found.append((_name(layer, raw), raw, child))

    walk(file, "", ())
    names = unique_names(name for name, _, _ in found)
    weights = [
        weight(path, dataset, name, aliases=(raw,))
        for name, (_, raw, dataset) in zip(names, found, strict=True)
    ]
    return [w for w in weights if w]


def _name(layer: str, raw: str) -> str:
    """`layer/variable` of a variable in the group of a layer."""
    if layer == "top_level_model_weights":
        return raw.rpartition("/")[2]
    _, within, rest = f"/{raw}".partition(f"/{layer}/")
    return f"{layer}/{rest if within else raw}"
