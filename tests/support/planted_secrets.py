"""Plants secrets in an environment, and searches everything that was written since for them."""

from __future__ import annotations

import base64
import gzip
import io
import sqlite3
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import quote, quote_plus

import psutil

from tests.support.sweep_process import cmdline

NAMES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
    "PGPASSWORD",
    "GITHUB_TOKEN",
    "OPENAI_API_KEY",
    "FOO_SECRET",
)

ZLIB = 0x78
"""First byte of zlib-compressed text."""


def secret(name: str) -> str:
    """A unique secret, with characters that must be quoted in a URL."""
    return f"pl4nt3d+{name.lower()}/q7"


def environment() -> dict[str, str]:
    """Environment variables that hold secrets, as users have them."""
    variables = {name: secret(name) for name in NAMES}
    variables["DATABASE_URL"] = f"postgresql://me:{quote(secret('database'), safe='')}@127.0.0.1/db"
    variables["NO_PROXY"] = "127.0.0.1"
    variables["HTTP_PROXY"] = f"http://me:{quote(secret('proxy'), safe='')}@127.0.0.1:1"
    return variables


ALL = (*NAMES, "database", "proxy", "store", "remote")


def _forms(text: str) -> set[bytes]:
    """The byte encodings in which a secret may appear."""
    raw = text.encode()
    forms = {raw, quote(text).encode(), quote(text, safe="").encode(), quote_plus(text).encode()}
    forms |= {raw.hex().encode(), text.encode("utf-16-le"), text.encode("utf-32-le")}
    for offset in range(3):  # base64 depends on the secret's offset, modulo 3
        for encoded in (base64.b64encode, base64.urlsafe_b64encode):
            # the first and last characters also depend on the bytes beside the secret
            forms.add(encoded(bytes(offset) + raw)[4 if offset else 0 : -4])
    return forms


FORMS = {name: _forms(secret(name)) for name in ALL}


def leaks(content: bytes, where: str) -> Iterator[str]:
    """Yields each secret that the bytes hold, and where; also searches archives in them."""
    for name, forms in FORMS.items():
        if any(form in content for form in forms):
            yield f"{name} in {where}"
    for inner, unpacked in _unpacked(content):
        yield from leaks(unpacked, f"{where}/{inner}")


def _unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    if content.startswith(b"PK"):  # .npz and .keras too
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            for info in file.infolist():
                yield info.filename, file.read(info)
                yield f"{info.filename}'s name", info.filename.encode() + info.comment
    elif content.startswith(b"\x1f\x8b"):
        yield "gz", gzip.decompress(content)
    elif content.startswith(b"\x89PNG"):
        yield "png", b"".join(_png_texts(content))
    elif content.startswith(b"PAR1"):
        import pandas as pd

        yield "parquet", pd.read_parquet(io.BytesIO(content)).to_csv().encode()


def _png_texts(content: bytes) -> Iterator[bytes]:
    """Yields the compressed texts of a PNG, unpacked."""
    at = 8
    while at < len(content):
        size, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if kind in (b"zTXt", b"iTXt"):
            text = content[at + 8 : at + 8 + size]
            for start in (i for i, byte in enumerate(text) if byte == ZLIB):
                with suppress(zlib.error):
                    yield zlib.decompress(text[start:])
        at += size + 12


def leaks_of(path: Path) -> list[str]:
    """Lists the secrets in a file; for a folder, in all files and file names below it."""
    secrets: list[str] = []
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        secrets += leaks(str(file).encode(), f"the name of {file}")
        if file.is_symlink() or not file.is_file():
            continue
        with suppress(FileNotFoundError):
            content = file.read_bytes()
            secrets += leaks(content, str(file))
            if content.startswith(b"SQLite format 3"):  # SQLite splits a long value over pages
                secrets += leaks(_rows(file), f"{file}, its rows")
    return secrets


def _rows(path: Path) -> bytes:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        rows = [database.execute(f'select * from "{name}"').fetchall() for (name,) in tables]
    database.close()
    return repr(rows).encode()


class Watch(threading.Thread):
    """A thread that records the command lines of child processes, and every file of a folder.

    It runs while its context is entered. It keeps the files open, so that they can be read at the
    end even if they were deleted.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self._folder, self._over = folder, threading.Event()
        self.files: dict[Path, BinaryIO] = {}
        self.commands: set[str] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        me = psutil.Process()
        while not self._over.wait(0.3):
            self.commands |= {" ".join(cmdline(p)) for p in me.children(recursive=True)}
            for path in self._folder.rglob("*"):
                if path not in self.files and path.is_file() and not path.is_symlink():
                    with suppress(OSError):
                        self.files[path] = path.open("rb")

    def leaks(self) -> list[str]:
        leak_list = [x for path, file in self.files.items() for x in leaks(file.read(), str(path))]
        for file in self.files.values():
            file.close()
        return leak_list + [x for c in self.commands for x in leaks(c.encode(), f"`{c[:300]}`")]
