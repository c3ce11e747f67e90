"""Registries of components by name, of Masksweep, of other distributions and of plugins.

A component is a frozen dataclass with a `name`, for example a strategy or a model. `register` adds
it to the registry of its kind. Another distribution lists its components as entry points.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from masksweep.strategies.base import Strategy
from masksweep.strategies.errors import Invalid

T = TypeVar("T")
GROUP_PREFIX = "masksweep."
"""Prefix of the entry-point groups: `masksweep.strategies`, `masksweep.models`, ..."""
NAME_PATTERN = re.compile(r"[a-z][a-z0-9_]*")

_origin_loading: ContextVar[str] = ContextVar("origin", default="")
"""Origin of the distribution or plugin that is being loaded; empty if none is."""
_registries: list[Registry[Any]] = []


class Registry(Mapping[str, type[T]]):
    """A read-only mapping from names to component classes of one kind, sorted by name.

    The modules of the package and the entry points are imported when the mapping is first read.

    Args:
        kind: The kind of components, as in the entry-point group: `strategies`, `models`.
        base: The class that all components of this kind derive from.
        package: The package that has the components of Masksweep, one in each module.

    Example:
        >>> from masksweep.strategies import PATTERNS
        >>> PATTERNS["columns"].__name__
        'Columns'
    """

    def __init__(self, kind: str, base: type[T], package: str) -> None:
        self.kind, self.base, self._package = kind, base, package
        self._components: dict[str, type[T]] = {}
        self._origins: dict[str, str] = {}
        self._loaded, self._lock = False, RLock()
        _registries.append(self)

    def add(self, component: type[T]) -> None:
        """Adds a component. Adding the same class again changes nothing.

        Raises:
            TypeError: The component is not a frozen dataclass, or has no valid `name`.
            Invalid: Another component of this kind has the same name.
        """
        name = vars(component).get("name")
        parameters = getattr(component, "__dataclass_params__", None)
        if (
            parameters is None
            or not parameters.frozen
            or "__dataclass_fields__" not in vars(component)
        ):
            raise TypeError(f"{component.__qualname__} must be a frozen dataclass")
        if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
            raise TypeError(
                f"{component.__qualname__}.name must be lower case, as {NAME_PATTERN.pattern}"
            )
        with self._lock:
            existing = self._components.setdefault(name, component)
            if existing is not component:
                classes = " and ".join(
                    f"{c.__module__}.{c.__qualname__}" for c in (existing, component)
                )
                raise Invalid(
                    f"{GROUP_PREFIX}{self.kind}", name, f"the name of two components: {classes}"
                )
            if _is_own(component):
                self._origins[name] = ""
            elif _origin_loading.get() or name not in self._origins:
                self._origins[name] = _origin_loading.get() or _file_origin(component)

    def origin(self, name: str) -> str:
        """Returns where the component of this name comes from.

        This is the name and version of a distribution, or a file name and its SHA-256 digest. It is
        empty for a component of Masksweep.
        """
        self._load()
        return self._origins[name]

    def __getitem__(self, name: str) -> type[T]:
        self._load()
        return self._components[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._components))

    def __len__(self) -> int:
        self._load()
        return len(self._components)

    def _load(self) -> None:
        """Imports all components of this kind, once.

        Raises:
            Invalid: An entry point cannot be imported, or is not a valid component.
        """
        with self._lock:
            if self._loaded:
                return
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                if not module.ispkg:
                    importlib.import_module(f"{self._package}.{module.name}")
            self._loaded = True
            try:
                for point in entry_points(group=f"{GROUP_PREFIX}{self.kind}"):
                    self._load_point(point)
            except Invalid:
                self._loaded = False
                raise

    def _load_point(self, point: EntryPoint) -> None:
        origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        try:
            with registering_from(origin):
                component = point.load()
                if inspect.isclass(component):
                    register(component)
        except Invalid:
            raise
        except Exception as error:  # code of another distribution can raise anything
            message = " ".join(str(error).split()) or "no reason given"
            allowed = f"of {origin} cannot be loaded: {type(error).__name__}: {message}"
            raise Invalid(f"{GROUP_PREFIX}{self.kind}", point.name, allowed) from error


def register(component: type[T]) -> type[T]:
    """Adds a component to the registry of its kind, so that configs can name it.

    Usable as a class decorator.

    Args:
        component: A frozen dataclass that derives from `Strategy`, `Pattern`, `Held`,
            `MaskSchedule`, `Model`, `DataSet`, `Optimizer`, `Schedule` (of the learning rate),
            `Loss` or `Metric`. Its fields are its settings.

    Returns:
        The component.

    Raises:
        TypeError: The component does not derive from one of these classes, is not a frozen
            dataclass, or has no valid `name`.
        Invalid: Another component of the same kind has the same name.

    Example:
        >>> from dataclasses import dataclass
        >>> import numpy as np
        >>> from masksweep.strategies import PATTERNS, Pattern
        >>> @register
        ... @dataclass(frozen=True)
        ... class Diagonal(Pattern):
        ...     name = "diagonal"
        ...
        ...     def masks(self, shapes, seed):
        ...         return {name: np.eye(*shape, dtype=bool) for name, shape in shapes.items()}
        >>> PATTERNS["diagonal"]().masks({"hidden/kernel": (2, 2)}, seed=0)["hidden/kernel"]
        array([[ True, False],
               [False,  True]])
    """
    for registry in _registries:
        if issubclass(component, registry.base):
            registry.add(component)
            return component
    bases = ", ".join(registry.base.__name__ for registry in _registries)
    raise TypeError(f"{component.__qualname__} must derive from one of {bases}")


@contextmanager
def registering_from(origin: str) -> Iterator[None]:
    """Context in which registered components have this origin, unless they are Masksweep's own."""
    token = _origin_loading.set(origin)
    try:
        yield
    finally:
        _origin_loading.reset(token)


def _is_own(component: type) -> bool:
    """Whether a component ships with Masksweep."""
    return component.__module__.startswith(GROUP_PREFIX)


def _file_origin(component: type) -> str:
    """Returns the name and SHA-256 digest of a component's file."""
    file = inspect.getsourcefile(component)
    if file is None:
        return component.__module__
    return f"{Path(file).name} sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


STRATEGIES = Registry("strategies", Strategy, __package__)
"""Every strategy by name."""
