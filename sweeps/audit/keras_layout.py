"""Reads the layout in which Keras 3 stores the weights of a model in an HDF5 file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import h5py

from masksweep.strategies.core.weights import unique_names
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.audit.hdf5 import (
    MAX_DEPTH,
    MAX_OBJECTS,
    MAX_TEXT_CHARACTERS,
    Tree,
    text,
    weight,
)
from masksweep.sweeps.audit.keras_variables import (
    CELL_CLASSES,
    INNER_LAYER_CLASSES,
    known_class,
    snake_case,
    variable_names,
)
from masksweep.sweeps.audit.stored import StoredWeight

NOT_WEIGHTS = ("optimizer", "metrics")
"""Groups of a compiled model that are not layers."""


@dataclass(frozen=True)
class _Variable:
    path: tuple[str, ...]
    """Names of the groups that lead to the layer in the file."""
    layer: str
    """Names of the layers from the outermost to this one, each followed by a slash: `outer/x/`."""
    name: str
    dataset: h5py.Dataset
    by_place: bool
    """Whether `name` is the number of the variable in its layer."""
    guesses: tuple[str, ...] = ()
    """Likely names of the variable, if the file does not have its name."""


def is_keras3(file: h5py.File) -> bool:
    """Returns whether the file has the layout of `.weights.h5`, which `.keras` files have too."""
    return any(name in file for name in ("layers", "vars", "_layer_checkpoint_dependencies"))


class Keras3:
    """The weights of a file in the layout of Keras 3, or of a `.keras` file of Keras 2.

    Each layer has a group, named after its class or after the attribute that holds the layer. In
    it, a group `vars` has the variables 0, 1, 2, ...; in newer files its attribute `name` is the
    layer's name. Groups without `vars` are lists of layers.
    """

    def __init__(self, path: str, file: h5py.File, config: Mapping[str, Any] | None) -> None:
        """Reads the description of the layers.

        Args:
            path: Path of the file, for messages.
            file: The open file.
            config: The model's config, if the weights come from a `.keras` file.

        Raises:
            Invalid: (key `path`) The config describes too many layers.
        """
        self._path, self._file, self._tree = path, file, Tree(path)
        described = list(islice(_layer_configs(config, ()), MAX_OBJECTS + 1)) if config else []
        if len(described) > MAX_OBJECTS:
            raise Invalid("path", path, f"its config describes more than {MAX_OBJECTS:,} layers")
        self._described = dict(described)
        self._model = _name(_config(config).get("name"))

    def weights(self) -> list[StoredWeight]:
        """Returns the weights, in the order of the file.

        Raises:
            Invalid: (key `path`) The layout of the file is not one of Keras.
        """
        variables = list(self._walk(self._file, (), "", ""))
        layers = Counter(layer for layer, _ in {(v.layer, v.path) for v in variables})
        names = unique_names(
            # layers with the same name are named by their groups, as their order is not known
            f"{v.layer if layers[v.layer] == 1 else '/'.join(v.path) + '/'}{v.name}"
            for v in variables
        )
        stored = []
        for name, v in zip(names, variables, strict=True):
            aliases = (f"{self._model}/{name}", *(f"{v.layer}{guess}" for guess in v.guesses))
            array = weight(self._path, v.dataset, name, aliases=aliases, by_place=v.by_place)
            stored += [array] if array else []
        return stored

    def _walk(
        self, group: h5py.Group, path: tuple[str, ...], around: str, parent: str
    ) -> Iterator[_Variable]:
        """Yields the variables of a layer and of all layers inside it.

        Args:
            group: The group of the layer, or of a list of layers.
            path: Names of the groups that lead to `group`.
            around: Names of the outer layers, each followed by a slash.
            parent: Class of the outer layer in snake case; empty if it is not known.
        """
        children = self._tree.children(group)
        variables = children.pop("vars", None)
        layer: str | None = parent
        if isinstance(variables, h5py.Group):
            config = _config(self._described.get(path))
            name = text(variables, "name") or _name(config.get("name"))
            name = name or _cell_class(path, parent) or (path[-1] if path else "")
            if path:
                around += f"{name}/"
            else:
                self._model = self._model or name
            layer = self._class(path, name, parent)
            yield from self._variables(variables, path, around, layer, config)
        for name, child in children.items():
            if isinstance(child, h5py.Group) and (path or name not in NOT_WEIGHTS):
                yield from self._walk(child, (*path, name), around, layer or "")

    def _variables(
        self,
        group: h5py.Group,
        path: tuple[str, ...],
        around: str,
        layer: str | None,
        config: Mapping[str, Any],
    ) -> Iterator[_Variable]:
        children = self._tree.children(group)
        datasets = {n: d for n, d in children.items() if isinstance(d, h5py.Dataset)}
        places = sorted((n for n in datasets if n.isdecimal() and n.isascii()), key=int)
        # a custom layer may save variables by name
        named = [n for n in datasets if n not in places]
        names = variable_names(layer, len(places), config) or places
        kernel_and_bias = names is places and _are_kernel_and_bias(*map(datasets.get, places))
        for place, name, guess in zip(places, names, ("kernel", "bias", *places), strict=False):
            guesses = (guess,) if kernel_and_bias else ()
            yield _Variable(path, around, name, datasets[place], names is places, guesses)
        for name in named:
            yield _Variable(path, around, name, datasets[name], False)

    def _class(self, path: tuple[str, ...], name: str, parent: str) -> str | None:
        """Returns the class of a Keras layer in snake case; None for a custom or unknown layer."""
        described = self._described.get(path)
        if described:
            return snake_case(described["class_name"]) if _is_keras(described) else None
        by_parent = _cell_class(path, parent) or INNER_LAYER_CLASSES.get(parent)
        return known_class(path[-1] if path else "") or by_parent or known_class(name)


def _cell_class(path: tuple[str, ...], parent: str) -> str | None:
    """Returns the class of a recurrent layer's cell, which is also its name; None for no cell."""
    return CELL_CLASSES.get(parent) if path[-1:] == ("cell",) else None


def _config(layer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Returns the config of a layer; empty if there is none."""
    config = layer.get("config") if layer else None
    return config if isinstance(config, dict) else {}


def _name(value: Any) -> str:
    """Returns a layer's name from a file; empty if the value is not a short text."""
    return value if isinstance(value, str) and len(value) <= MAX_TEXT_CHARACTERS else ""


def _are_kernel_and_bias(*datasets: h5py.Dataset) -> bool:
    """Returns whether two arrays have shapes as kernel and bias of a Dense layer or convolution."""
    shapes = [dataset.shape or () for dataset in datasets]
    return len(shapes) == 2 and len(shapes[0]) > 1 and shapes[1] == shapes[0][-1:]


def _is_keras(described: Mapping[str, Any]) -> bool:
    registered = described.get("registered_name") not in (None, described["class_name"])
    return bool(re.match(r"keras(\.|$)", str(described.get("module")))) and not registered


def _layer_configs(
    layer: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yields the config of each layer with the names of the groups that lead to it in the file.

    Each Bidirectional yields its inner layer three times, so a small config can describe a huge
    number of layers. The caller must stop after a limit.

    Args:
        layer: Description of a layer or model, with its `class_name` and `config`.
        path: Names of the groups that lead to the layer.
    """
    if len(path) > MAX_DEPTH:
        return  # no file may have groups so deep, see `Tree`
    yield path, layer
    for key, value in _config(layer).items():
        inner = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        inner = [i for i in inner if isinstance(i, dict) and isinstance(i.get("class_name"), str)]
        counts: Counter[str] = Counter()
        for child in inner:
            child_path = (*path, key)
            if isinstance(value, list):
                snake = snake_case(child["class_name"])
                child_path = (*child_path, f"{snake}_{counts[snake]}" if counts[snake] else snake)
                counts[snake] += 1
            yield from _layer_configs(child, child_path)
            if key == "layer" and layer["class_name"] == "Bidirectional":
                for way in ("forward", "backward"):
                    yield from _layer_configs(_directed_layer(child, way), (*path, f"{way}_layer"))


def _directed_layer(layer: Mapping[str, Any], direction: str) -> Mapping[str, Any]:
    """Returns the forward or backward layer that a Bidirectional makes of its inner layer."""
    config = _config(layer)
    name = str(config.get("name")).removeprefix("forward_")
    return {**layer, "config": {**config, "name": f"{direction}_{name}"}}
