"""Components by name: what ships with Masksweep, and what other distributions add.

A component is a frozen dataclass with a `name`, a strategy or a model say. What ships is registered
as everything else is, by `register`; another distribution names its components as entry points.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from masksweep.strategies.base import Invalid, Strategy

T = TypeVar("T")
PREFIX = "masksweep."
"""What the entry-point groups begin with: `masksweep.strategies`, `masksweep.models`, ..."""
NAME = re.compile(r"[a-z][a-z0-9_]*")

_distribution: ContextVar[str] = ContextVar("distribution", default="")
"""The distribution whose entry point is loaded now, with its version."""
_registries: list[Registry[Any]] = []


class Registry(Mapping[str, type[T]]):
    """The components of one kind by name.

    Args:
        kind: What they are, as in the name of their entry-point group: `strategies`, `models`.
        base: The class that all of them derive from.
        package: The package whose modules have those that ship with Masksweep.
    """

    def __init__(self, kind: str, base: type[T], package: str) -> None:
        self.kind, self.base, self._package = kind, base, package
        self._components: dict[str, type[T]] = {}
        self._origins: dict[str, str] = {}
        self._loaded, self._lock = False, RLock()
        _registries.append(self)

    def add(self, component: type[T]) -> None:
        """Add a component.

        Raises:
            TypeError: It is no frozen dataclass with a name.
            Invalid: Another component has its name.
        """
        name = vars(component).get("name")
        parameters = getattr(component, "__dataclass_params__", None)
        if (
            parameters is None
            or not parameters.frozen
            or "__dataclass_fields__" not in vars(component)
        ):
            raise TypeError(f"{component.__qualname__} must be a frozen dataclass")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise TypeError(f"{component.__qualname__}.name must be lower case, as {NAME.pattern}")
        with self._lock:
            known = self._components.setdefault(name, component)
            if known is not component:
                said = " and ".join(f"{c.__module__}.{c.__qualname__}" for c in (known, component))
                raise Invalid(f"{PREFIX}{self.kind}", name, f"a name of two components: {said}")
            if _distribution.get() or name not in self._origins:
                self._origins[name] = _distribution.get() or _own(component)

    def origin(self, name: str) -> str:
        """Where a component comes from: a distribution and its version, or a file's digest.

        Empty for what ships with Masksweep.
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
        """Import what there is, once.

        Raises:
            Invalid: An entry point cannot be imported, or is no such component.
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
                for point in entry_points(group=f"{PREFIX}{self.kind}"):
                    self._load_point(point)
            except Invalid:
                self._loaded = False
                raise

    def _load_point(self, point: EntryPoint) -> None:
        of = f"{point.dist.name} {point.dist.version}" if point.dist else point.value
        token = _distribution.set(of)
        try:
            component = point.load()
            if inspect.isclass(component):
                register(component)
        except Invalid:
            raise
        except Exception as error:  # it is somebody else's code
            said = " ".join(str(error).split()) or "no reason given"
            allowed = f"of {of} cannot be loaded: {type(error).__name__}: {said}"
            raise Invalid(f"{PREFIX}{self.kind}", point.name, allowed) from error
        finally:
            _distribution.reset(token)


def register(component: type[T]) -> type[T]:
    """Make a component known by its name, to configs too. Usable as a decorator.

    Args:
        component: A frozen dataclass that derives from `Strategy`, `Pattern`, `Held`, `Model`,
            `DataSet` or `Optimizer`. Its fields are its settings.

    Returns:
        The component.

    Raises:
        TypeError: It derives from none of them, or is no frozen dataclass with a name.
        Invalid: Another component of its kind has its name.
    """
    for registry in _registries:
        if issubclass(component, registry.base):
            registry.add(component)
            return component
    bases = ", ".join(registry.base.__name__ for registry in _registries)
    raise TypeError(f"{component.__qualname__} must derive from one of {bases}")


def _own(component: type) -> str:
    """Where code comes from that belongs to no distribution: empty for our own, or its digest."""
    if component.__module__.startswith(PREFIX):
        return ""
    file = inspect.getsourcefile(component)
    if file is None:
        return component.__module__
    return f"{Path(file).name} sha256:{hashlib.sha256(Path(file).read_bytes()).hexdigest()}"


STRATEGIES = Registry("strategies", Strategy, __package__)
"""Every strategy by name."""
