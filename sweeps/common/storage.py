"""Files in a folder: on this machine, or under an fsspec URI such as `s3://bucket/folder`."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any


class Folder:
    """A folder by its path or URI, and maybe one in it. It need not be there yet.

    The methods raise what the file systems raise: `OSError`, and exceptions of their own;
    `ValueError` or `ImportError` where no file system is known for the URI, or installed.
    """

    def __init__(self, uri: str, inner: str = "") -> None:
        self._uri, self._inner = uri, inner

    def _open(self) -> tuple[Any, str]:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(self._uri)
        return files, f"{path}/{self._inner}".rstrip("/")

    def names(self) -> list[str]:
        """What is in the folder; nothing if it is not there."""
        files, path = self._open()
        files.invalidate_cache()  # others write there too
        with suppress(FileNotFoundError):
            return [PurePosixPath(p).name for p in files.ls(path, detail=False)]
        return []

    def read(self, name: str) -> bytes:
        files, path = self._open()
        content: bytes = files.cat_file(f"{path}/{name}")
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folder where there is none.

        On this machine half a file never has the name of a whole one, nor stays; object stores
        see to that by themselves.
        """
        from fsspec.implementations.local import LocalFileSystem

        files, path = self._open()
        # a path without a slash before it begins with a bucket, which is not ours to make
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
        files, path = self._open()
        files.rm_file(f"{path}/{name}")

    def remove_all(self) -> None:
        """Remove the folder with all that is in it."""
        files, path = self._open()
        files.rm(path, recursive=True)
