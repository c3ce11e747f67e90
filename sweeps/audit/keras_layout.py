"""Where Keras 3 puts the weights of a model in an HDF5 file, and what they are called there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import h5py

from masksweep.strategies.base import Invalid
from masksweep.strategies.core.weights import unique_names
from masksweep.sweeps.audit.hdf5 import DEPTH, OBJECTS, TEXT, Tree, text, weight
from masksweep.sweeps.audit.keras_variables import CELLS, INNER, known, snake_case, variable_names
from masksweep.sweeps.audit.stored import StoredWeight

NOT_WEIGHTS = ("optimizer", "metrics")
"""What a compiled model keeps beside its layers."""


@dataclass(frozen=True)
class _Variable:
    path: tuple[str, ...]
    """Where its layer stands in the file."""
    layer: str
    """The names of its layer and of those around it, each with a slash behind it."""
    name: str
    dataset: h5py.Dataset
    by_place: bool
    guesses: tuple[str, ...] = ()
    """What it may be called, where the file does not say it."""


def is_keras3(file: h5py.File) -> bool:
    """Whether this is the layout of `.weights.h5`, and of the weights in a `.keras` file."""
    return any(name in file for name in ("layers", "vars", "_layer_checkpoint_dependencies"))


class Keras3:
    """The layout of Keras 3, and of `.keras` files of Keras 2.

    A group for each layer, named after its class or after the attribute that it is kept in; in it
    a group `vars` of variables 0, 1, 2, ..., which has the layer's name in newer files. Groups
    without `vars` are lists of layers.
    """

    def __init__(self, path: str, file: h5py.File, config: Mapping[str, Any] | None) -> None:
        """`config` is the model's own, from the `.keras` file around the weights."""
        self._path, self._file, self._tree = path, file, Tree(path)
        described = list(islice(_described(config, ()), OBJECTS + 1)) if config else []
        if len(described) > OBJECTS:
            raise Invalid("path", path, f"its config describes more than {OBJECTS:,} layers")
        self._described = dict(described)
        self._model = _name(_config(config).get("name"))

    def weights(self) -> list[StoredWeight]:
        """The weights in the file's order.

        Raises:
            Invalid: (key `path`) The file is not as Keras writes it.
        """
        variables = list(self._walk(self._file, (), "", ""))
        layers = Counter(layer for layer, _ in {(v.layer, v.path) for v in variables})
        names = unique_names(
            # which of two layers of one name comes first in the model is not known
            f"{v.layer if layers[v.layer] == 1 else '/'.join(v.path) + '/'}{v.name}"
            for v in variables
        )
        stored = []
        for name, v in zip(names, variables, strict=True):
            aliases = (f"{self._model}/{name}", *(f"{v.layer}{guess}" for guess in v.guesses))
            one = weight(self._path, v.dataset, name, aliases=aliases, by_place=v.by_place)
            stored += [one] if one else []
        return stored

    def _walk(
        self, group: h5py.Group, path: tuple[str, ...], around: str, parent: str
    ) -> Iterator[_Variable]:
        """The variables of a layer and those inside of it; `parent` is the class around it."""
        children = self._tree.children(group)
        variables = children.pop("vars", None)
        layer: str | None = parent
        if isinstance(variables, h5py.Group):
            config = _config(self._described.get(path))
            name = text(variables, "name") or _name(config.get("name"))
            name = name or _cell(path, parent) or (path[-1] if path else "")
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
        named = [n for n in datasets if n not in places]  # as a layer of one's own may save them
        names = variable_names(layer, len(places), config) or places
        kernel_and_bias = names is places and _like_kernel_and_bias(*map(datasets.get, places))
        for place, name, guess in zip(places, names, ("kernel", "bias", *places), strict=False):
            guesses = (guess,) if kernel_and_bias else ()
            yield _Variable(path, around, name, datasets[place], names is places, guesses)
        for name in named:
            yield _Variable(path, around, name, datasets[name], False)

    def _class(self, path: tuple[str, ...], name: str, parent: str) -> str | None:
        """The class of a layer of Keras in snake case; None for another, or one not known."""
        described = self._described.get(path)
        if described:
            return snake_case(described["class_name"]) if _is_keras(described) else None
        by_parent = _cell(path, parent) or INNER.get(parent)
        return known(path[-1] if path else "") or by_parent or known(name)


def _cell(path: tuple[str, ...], parent: str) -> str | None:
    """Name and class of the cell of a recurrent layer."""
    return CELLS.get(parent) if path[-1:] == ("cell",) else None


def _config(layer: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The config of a layer, or an empty one if it is none."""
    config = layer.get("config") if layer else None
    return config if isinstance(config, dict) else {}


def _name(value: Any) -> str:
    """A layer's name from a file, or nothing if it is none."""
    return value if isinstance(value, str) and len(value) <= TEXT else ""


def _like_kernel_and_bias(*datasets: h5py.Dataset) -> bool:
    """Whether these are as the variables of a Dense layer or a convolution."""
    shapes = [dataset.shape or () for dataset in datasets]
    return len(shapes) == 2 and len(shapes[0]) > 1 and shapes[1] == shapes[0][-1:]


def _is_keras(described: Mapping[str, Any]) -> bool:
    own = described.get("registered_name") not in (None, described["class_name"])
    return bool(re.match(r"keras(\.|$)", str(described.get("module")))) and not own


def _described(
    layer: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """What the config of a model says of each layer, by its place in the file.

    Each Bidirectional describes its inner layer three times, so a small config can describe any
    number of layers: take no more than are needed.
    """
    if len(path) > DEPTH:
        return  # a file may not have groups so deep
    yield path, layer
    for key, value in _config(layer).items():
        inner = [value] if isinstance(value, dict) else value if isinstance(value, list) else []
        inner = [i for i in inner if isinstance(i, dict) and isinstance(i.get("class_name"), str)]
        counts: Counter[str] = Counter()
        for one in inner:
            where = (*path, key)
            if isinstance(value, list):
                snake = snake_case(one["class_name"])
                where = (*where, f"{snake}_{counts[snake]}" if counts[snake] else snake)
                counts[snake] += 1
            yield from _described(one, where)
            if key == "layer" and layer["class_name"] == "Bidirectional":
                for way in ("forward", "backward"):
                    yield from _described(_renamed(one, way), (*path, f"{way}_layer"))


def _renamed(layer: Mapping[str, Any], way: str) -> Mapping[str, Any]:
    """One of the two layers that a Bidirectional makes of the one in its config."""
    config = _config(layer)
    name = str(config.get("name")).removeprefix("forward_")
    return {**layer, "config": {**config, "name": f"{way}_{name}"}}
