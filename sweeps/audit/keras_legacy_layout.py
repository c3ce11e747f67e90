"""Reads the HDF5 layout of Keras 2, which Keras 3 also uses for `.h5` files."""

from __future__ import annotations

import re

import h5py

from masksweep.strategies.core.weights import unique_names
from masksweep.sweeps.audit.hdf5 import Tree, weight
from masksweep.sweeps.audit.stored import StoredWeight

WHOLE_MODEL = "model_weights"
"""Group of the weights in the file of a whole model. A file of weights has no such group."""


def legacy_weights(path: str, file: h5py.File) -> list[StoredWeight]:
    """Returns the weights, in the order of the file.

    The file has a group for each layer of the model. In it, each variable has the name that
    TensorFlow or Keras gives it: `hidden/kernel:0`, `sequential/hidden/kernel`.

    Args:
        path: Path of the file, for messages.
        file: The open file.

    Raises:
        Invalid: (key `path`) The layout of the file is not one of Keras.
    """
    tree = Tree(path)
    variables: list[tuple[str, str, h5py.Dataset]] = []

    def walk(group: h5py.Group, layer: str, groups: tuple[str, ...]) -> None:
        if "weight_names" in group.attrs or "weight_names0" in group.attrs:
            layer, groups = "/".join([part for part in (layer, *groups) if part]), ()
        children = tree.children(group)
        if not layer and not groups and isinstance(children.get(WHOLE_MODEL), h5py.Group):
            walk(children[WHOLE_MODEL], "", ())
            return
        for name, child in children.items():
            if isinstance(child, h5py.Group):
                walk(child, layer, (*groups, name))
            elif layer and isinstance(child, h5py.Dataset):
                raw = re.sub(r":\d+$", "", "/".join([*groups, name]))
                variables.append((_name(layer, raw), raw, child))

    walk(file, "", ())
    names = unique_names(name for name, _, _ in variables)
    weights = [
        weight(path, dataset, name, aliases=(raw,))
        for name, (_, raw, dataset) in zip(names, variables, strict=True)
    ]
    return [w for w in weights if w]


def _name(layer: str, raw: str) -> str:
    """Returns `layer/variable` for a variable with the name `raw` in the group of a layer."""
    if layer == "top_level_model_weights":
        return raw.rpartition("/")[2]
    _, separator, variable = f"/{raw}".partition(f"/{layer}/")
    return f"{layer}/{variable if separator else raw}"
