"""Components from files of Python that the command line names with `--plugin`.

Only a command line names such a file: a config is data, and cannot. Each process that builds trials
from configs loads the same plugins first. They are imported from the content that the driver has
read, not from the disk: so a file that is edited while a sweep runs changes nothing in it, and a
worker on another machine needs no copy of the folder.

The folder itself is not on the import path. Of its files only those can be imported that the plugin
imports by a statement, and only if no other module has this name. So it shadows nothing, and all
code that can run is in the digest.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from masksweep.strategies.errors import Invalid
from masksweep.strategies.registry import registering_from
from masksweep.sweeps.common import streams
from masksweep.sweeps.components.groups import REGISTRIES
from masksweep.sweeps.components.plugin_files import FLAG, Plugin, module_name, read

HELP = """\
--plugin FILE.py: also load this file, which registers a model, a data set or another component
(masksweep.strategies.register). It may import files from its own folder. All of them are sent to
the workers of a cluster; data files are not. May be given several times.
"""

_loaded: dict[Plugin, str] = {}
"""The plugins of this process, and the path of each as the command line has it."""
_keras_origins: dict[str, str] = {}
"""Origin of each object that a plugin has registered with Keras, by its registered name."""


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Splits a command line into the paths that `--plugin` names and the other arguments.

    Raises:
        Invalid: The last argument is `--plugin` without a path.
    """
    paths, others, waiting = list[str](), list[str](), iter(arguments)
    for argument in waiting:
        flag, equals, path = argument.partition("=")
        if flag != FLAG:
            others.append(argument)
            continue
        paths.append(path if equals else next(waiting, ""))
        if not paths[-1]:
            raise Invalid(FLAG, "", "must be followed by a file of Python, as my_net.py")
    return paths, others


def load_files(paths: Sequence[str]) -> None:
    """Reads and loads the files of Python that a command line names.

    Raises:
        Invalid: A file cannot be read or imported, registers nothing, or registers a component of
            a name that exists already. The key is `--plugin`.
    """
    for path in paths:
        load(read(Path(path), _is_installed), path)


def load(plugin: Plugin, path: str = "") -> None:
    """Imports a plugin, so that configs can name its components. Loading it again does nothing.

    Args:
        plugin: The plugin.
        path: The path on the command line.

    Raises:
        Invalid: As in `load_files`.
    """
    if plugin in _loaded:
        return
    path = path or plugin.name
    for registry in REGISTRIES.values():
        len(registry)  # imports all others first, so that the fault is found in the plugin
    # a file may import TensorFlow, which prints to stderr
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    names_before = {kind: set(registry) for kind, registry in REGISTRIES.items()}
    keras_before = _registered_with_keras()
    name = _finder.add(plugin, path)
    try:
        # what the file prints must not be mixed with the output of a command, as of plan --json
        with registering_from(plugin.origin), streams.only_python_on_stderr():
            importlib.import_module(name)
    except Invalid as error:
        raise Invalid(FLAG, path, str(error)) from error
    except (Exception, SystemExit) as error:  # code of the user can raise anything
        reason = describe(error, [plugin])
        raise Invalid(FLAG, path, f"does not import: {reason}") from error
    keras_names = [n for n, o in _registered_with_keras().items() if keras_before.get(n) is not o]
    registers = any(names_before[kind] != set(registry) for kind, registry in REGISTRIES.items())
    if not registers and not keras_names:
        allowed = "registers no component; see masksweep.strategies.register"
        raise Invalid(FLAG, path, allowed)
    _keras_origins.update(dict.fromkeys(keras_names, plugin.origin))
    _loaded[plugin] = path


def _registered_with_keras() -> dict[str, Any]:
    """Returns the layers and functions that are registered with Keras, by their registered name.

    `model=keras_file` finds them there, so a plugin with nothing but layers needs no component.
    """
    keras = sys.modules.get("keras")
    return dict(keras.saving.get_custom_objects()) if keras else {}


def keras_origins(names: Iterable[str]) -> str:
    """Returns the origins of objects that plugins have registered with Keras.

    Args:
        names: Registered names, as `package>Layer`. Those that no plugin has registered are left
            out.

    Returns:
        The different origins, separated by commas; empty if there is none.
    """
    return ", ".join(sorted({_keras_origins[name] for name in names if name in _keras_origins}))


def loaded() -> tuple[Plugin, ...]:
    """Returns the plugins that this process has loaded, in order."""
    return tuple(_loaded)


def flags(recorded: bool = False) -> list[str]:
    """Returns the flags of a command line that loads the same plugins.

    Args:
        recorded: Whether the flags are recorded. They have only the names of the files then,
            because paths of this machine mean nothing on another one.
    """
    return [f"{FLAG}={p.name if recorded else path}" for p, path in _loaded.items()]


def files() -> dict[str, bytes]:
    """Returns the content of the files of all loaded plugins, by their path in the folder."""
    return {name: content for plugin in _loaded for name, content in plugin.files}


def recorded_files() -> dict[str, bytes]:
    """Returns the files of all loaded plugins as they are recorded with a sweep, by name.

    They are kept for people to read. To run one of them again, a command line has to name it.
    """
    return {f"plugins/{name}": content for name, content in files().items()}


def describe(error: BaseException, plugins: Iterable[Plugin]) -> str:
    """Returns an exception as a line, with the last file and line in the plugins."""
    message = " ".join(str(error).split())[:300] or "no reason given"
    paths = {str(Path(p.folder, name)): name for p in plugins for name, _ in p.files}
    places = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        message = error.msg
        places.append((error.filename or "", error.lineno))
    own = [f"{paths[file]}, line {line}" for file, line in places if file in paths]
    return f"{type(error).__name__}: {message}" + (f" ({own[-1]})" if own else "")


class _Loader(SourceLoader):
    """Loads a module from a content in memory."""

    def __init__(self, path: str, content: bytes) -> None:
        self.path, self.content = path, content

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str | bytes) -> bytes:
        return self.content


class _Finder(MetaPathFinder):
    """Finds the modules of the plugins, after all other modules."""

    def __init__(self) -> None:
        self.loaders: dict[str, _Loader] = {}

    def add(self, plugin: Plugin, path: str) -> str:
        """Adds the files of a plugin, and returns the name of the module of the named file.

        Raises:
            Invalid: A file has the name of another plugin's file with another content, or of a
                module that is installed here, but not where the plugin was read.
        """
        main = module_name(plugin.name)
        if not main.isidentifier() or _is_installed(main):
            main = re.sub(r"\W", "_", f"masksweep_plugin_{main}")
        added = {}
        for file, content in plugin.files:
            name = main if file == plugin.name else module_name(file)
            known = self.loaders.get(name)
            if known is not None and known.content != content:
                raise Invalid(FLAG, path, f"{file}: another plugin has another file of this name")
            if _is_installed(name.partition(".")[0]):
                raise Invalid(FLAG, path, f"{file}: a module of this name is installed here")
            added[name] = known or _Loader(str(Path(plugin.folder, file)), content)
        for name in list(added):  # a folder without __init__.py is a package too
            for parent in _parents(name):
                folder = Path(plugin.folder, *parent.split("."), "__init__.py")
                added.setdefault(parent, _Loader(str(folder), b""))
        self.loaders = added | self.loaders
        if self not in sys.meta_path:
            sys.meta_path.append(self)
        return main

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        loader = self.loaders.get(fullname)
        if loader is None:
            return None
        return spec_from_file_location(fullname, loader.path, loader=loader)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:n]) for n in range(1, len(parts))]


_finder = _Finder()


def _is_installed(name: str) -> bool:
    """Whether a module of this name can be imported that is not of a plugin."""
    if name in _finder.loaders:
        return False
    try:
        return find_spec(name) is not None
    except ValueError:  # a module without a spec, as __main__
        return True
