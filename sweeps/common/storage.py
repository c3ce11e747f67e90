"""Reads and writes files in a local folder or at an fsspec URI, such as `s3://bucket/folder`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any


class Folder:
    """A folder, which need not exist yet.

    The methods raise `OSError` and other exceptions of the file system. They raise `ValueError` if
    no file system is known for the URI, and `ImportError` if it is not installed.

    Args:
        uri: Local path or fsspec URI.
        inner: Path of a folder within `uri`; empty for `uri` itself.
    """

    def __init__(self, uri: str, inner: str = "") -> None:
        self._uri, self._inner = uri, inner

    def _open(self) -> tuple[Any, str]:
        """Returns the fsspec file system, and the folder's path in it."""
        from fsspec.core import url_to_fs

        files, path = url_to_fs(self._uri)
        return files, f"{path}/{self._inner}".rstrip("/")

    def names(self) -> list[str]:
        """Returns the names of the entries in the folder; none if the folder does not exist."""
        files, path = self._open()
        files.invalidate_cache()  # other processes may have written there
        with suppress(FileNotFoundError):
            return [PurePosixPath(p).name for p in files.ls(path, detail=False)]
        return []

    def read(self, name: str) -> bytes:
        """Returns the content of a file."""
        files, path = self._open()
        content: bytes = files.cat_file(f"{path}/{name}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, and makes the folder if needed.

        A local file is written under another name and then renamed, so that a file with this name
        is always complete. Object stores guarantee this themselves.
        """
        from fsspec.implementations.local import LocalFileSystem

        files, path = self._open()
        # without a slash in front, the path begins with a bucket, which must exist already
        if path.startswith("/"):
            files.makedirs(path, exist_ok=True)
        final = f"{path}/{name}"
        if not isinstance(files, LocalFileSystem):
            files.pipe_file(final, content)
            return
        try:
            files.pipe_file(f"{final}.new", content)
            files.mv(f"{final}.new", final)
        except BaseException:
            with suppress(OSError):
                files.rm_file(f"{final}.new")
            raise

    def remove(self, name: str) -> None:
        """Removes a file of the folder."""
        files, path = self._open()
        files.rm_file(f"{path}/{name}")

    def remove_all(self) -> None:
        """Removes the folder with all of its contents."""
        files, path = self._open()
        files.rm(path, recursive=True)
