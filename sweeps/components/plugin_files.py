"""Reads a file of Python that a command line names, and the files beside it that it imports.

All of them together are the plugin: they are sent to the workers, and their digest belongs to the
identity of each trial that uses a component of the plugin.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from masksweep.strategies.errors import Invalid, require

FLAG = "--plugin"
MAX_PLUGIN_BYTES = 2**20
"""Largest size of a plugin, in bytes. It is sent to each worker."""
MAX_PLUGIN_FILES = 500
"""Largest number of files of a plugin."""
ORIGIN_PATTERN = re.compile(r"([\w.-]+\.py) sha256:[0-9a-f]{64}")
"""The origin of a component of a plugin: the name of a file, and a digest."""


@dataclass(frozen=True)
class Plugin:
    """A file of Python, with the files beside it that it imports."""

    folder: str
    """Absolute path of the folder on the machine where the command line named the file."""
    files: tuple[tuple[str, bytes], ...]
    """Path in the folder and content of each file: first the named one, then the others sorted."""

    @property
    def name(self) -> str:
        """Name of the file that the command line named."""
        return self.files[0][0]

    @property
    def origin(self) -> str:
        """Origin of the components: the file's name, and a SHA-256 digest in hexadecimal.

        The digest is that of the file, or if there are several files, of their paths and digests.
        """
        digests = [(name, hashlib.sha256(content).hexdigest()) for name, content in self.files]
        lines = "".join(f"{digest}  {name}\n" for name, digest in digests)
        digest = digests[0][1] if len(digests) == 1 else hashlib.sha256(lines.encode()).hexdigest()
        return f"{self.name} sha256:{digest}"


def read(path: Path, is_installed: Callable[[str], bool]) -> Plugin:
    """Reads a file of Python, and the files beside it that it imports.

    Args:
        path: The file.
        is_installed: Whether a module of this name can be imported without the plugin. Such a
            module has precedence over a file beside the plugin, which is then left out.

    Raises:
        Invalid: There is no such file, its name does not end with `.py`, or the files are too
            large. The key is `--plugin`.
    """
    require(path.suffix == ".py", FLAG, path, "a file of Python, as my_net.py")
    require(bool(re.fullmatch(r"[\w.-]+", path.name)), FLAG, path, "letters, digits, _, - and .")
    if not path.is_file():
        raise Invalid(FLAG, path, "no such file")
    files, size = {path.name: _read(path, MAX_PLUGIN_BYTES)}, 0
    waiting, seen = _imported_names(files[path.name]), {path.stem}
    while waiting:
        name = waiting.pop()
        if name in seen or is_installed(name):
            continue
        seen.add(name)
        for neighbour in _files_of_module(path.parent, name):
            size = sum(map(len, files.values()))
            content = _read(neighbour, MAX_PLUGIN_BYTES - size)
            files[neighbour.relative_to(path.parent).as_posix()] = content
            require(len(files) <= MAX_PLUGIN_FILES, FLAG, path, f"at most {MAX_PLUGIN_FILES} files")
            waiting |= _imported_names(content)
    first = (path.name, files.pop(path.name))
    return Plugin(str(path.parent.absolute()), (first, *sorted(files.items())))


def module_name(file: str) -> str:
    """Returns the name of the module of a file in the plugin's folder.

    Example:
        >>> module_name("blocks/__init__.py"), module_name("blocks/residual.py")
        ('blocks', 'blocks.residual')
    """
    parts = PurePosixPath(file).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _read(path: Path, max_bytes: int) -> bytes:
    """Returns the content of a file. Raises `Invalid` if it is larger, or cannot be read."""
    try:
        with path.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except OSError as error:
        raise Invalid(FLAG, path, f"cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        limit = f"at most {MAX_PLUGIN_BYTES} bytes, with the files beside it that it imports"
        raise Invalid(FLAG, path, f"must have {limit}")
    return content


def _imported_names(source: bytes) -> set[str]:
    """Returns the names of the modules that a source imports anywhere, also within functions.

    Of a dotted name this is the first part. A source that is no Python has none: the error is
    reported when it is imported.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _files_of_module(folder: Path, name: str) -> Iterator[Path]:
    """Yields the files of a module or package in a folder, in Python's order of precedence."""
    package, module = folder / name, folder / f"{name}.py"
    if module.is_file() and not (package / "__init__.py").is_file():
        yield module
    else:
        yield from islice(sorted(package.rglob("*.py")), MAX_PLUGIN_FILES + 1)
