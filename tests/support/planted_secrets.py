"""Secrets that are planted in an environment, and looked for in all that was written since."""

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
"""What packed text begins with."""


def secret(name: str) -> str:
    """A secret that is found nowhere else, with signs that a URL quotes."""
    return f"pl4nt3d+{name.lower()}/q7"


def environment() -> dict[str, str]:
    """What a careful person has in an environment, and nobody else is to see."""
    found = {name: secret(name) for name in NAMES}
    found["DATABASE_URL"] = f"postgresql://me:{quote(secret('database'), safe='')}@127.0.0.1/db"
    found["NO_PROXY"] = "127.0.0.1"
    found["HTTP_PROXY"] = f"http://me:{quote(secret('proxy'), safe='')}@127.0.0.1:1"
    return found


ALL = (*NAMES, "database", "proxy", "store", "remote")


def _forms(text: str) -> set[bytes]:
    """The ways in which bytes may say it."""
    raw = text.encode()
    found = {raw, quote(text).encode(), quote(text, safe="").encode(), quote_plus(text).encode()}
    found |= {raw.hex().encode(), text.encode("utf-16-le"), text.encode("utf-32-le")}
    for before in range(3):  # where it begins among what is encoded
        for encoded in (base64.b64encode, base64.urlsafe_b64encode):
            # the first and the last signs are not of it alone
            found.add(encoded(bytes(before) + raw)[4 if before else 0 : -4])
    return found


FORMS = {name: _forms(secret(name)) for name in ALL}


def leaks(content: bytes, where: str) -> Iterator[str]:
    """Which secrets the bytes hold, and where, also in what is packed in them."""
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
    """Of its chunks, those that are packed text."""
    at = 8
    while at < len(content):
        size, kind = int.from_bytes(content[at : at + 4]), content[at + 4 : at + 8]
        if kind in (b"zTXt", b"iTXt"):
            text = content[at + 8 : at + 8 + size]
            for begun in (i for i, byte in enumerate(text) if byte == ZLIB):
                with suppress(zlib.error):
                    yield zlib.decompress(text[begun:])
        at += size + 12


def leaks_of(path: Path) -> list[str]:
    """Which secrets lie in a file, or in or by the names of what lies in a folder."""
    found: list[str] = []
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        found += leaks(str(one).encode(), f"the name of {one}")
        if one.is_symlink() or not one.is_file():
            continue
        with suppress(FileNotFoundError):
            content = one.read_bytes()
            found += leaks(content, str(one))
            if content.startswith(b"SQLite format 3"):  # a long value is not in one piece there
                found += leaks(_rows(one), f"{one}, its rows")
    return found


def _rows(path: Path) -> bytes:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        rows = [database.execute(f'select * from "{name}"').fetchall() for (name,) in tables]
    database.close()
    return repr(rows).encode()


class Watch(threading.Thread):
    """While it is entered, sees how processes were started, and all that a folder ever held.

    Files are held open, so that they can be read at the end though they are gone.
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
        found = [x for path, file in self.files.items() for x in leaks(file.read(), str(path))]
        for file in self.files.values():
            file.close()
        return found + [x for c in self.commands for x in leaks(c.encode(), f"`{c[:300]}`")]
