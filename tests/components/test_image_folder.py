"""Tests of pictures in folders: what is read, the identity, and folders that are refused."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from masksweep.strategies import Invalid
from masksweep.sweeps.components.datasets import base, image_files, image_folder, stored_images
from masksweep.sweeps.components.datasets.image_folder import ImageFolder
from masksweep.sweeps.components.datasets.stored_images import StoredImages
from tests.support.data_files import write_images
from tests.support.trials import trial


def by_keras(path: str, part: str, **settings: Any) -> tuple[Any, Any]:
    """Reads a part with Keras. `settings` are those of `image_dataset_from_directory`."""
    settings = {"image_size": (6, 5), "shuffle": False, "verbose": False} | settings
    data = keras.utils.image_dataset_from_directory(f"{path}/{part}", **settings)
    x, y = zip(*data.as_numpy_iterator(), strict=True)
    return np.concatenate(x) / np.float32(255), np.concatenate(y)


def streamed(path: str, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> base.Arrays:
    monkeypatch.setattr(image_folder, "MAX_BYTES_IN_MEMORY", 0)
    base._load.cache_clear()
    return ImageFolder(path=path, **settings).load()


def test_pictures_are_those_that_keras_reads(tmp_path: Path) -> None:
    path = write_images(tmp_path, {"train": 20, "validation": 3, "test": 5}, classes="bca")
    data = ImageFolder(path=path).load()
    assert data.validation is not None
    assert (data.outputs, data.shape, data.samples) == (3, (6, 5, 3), 60)
    for part in ("train", "validation", "test"):
        for ours, theirs in zip(getattr(data, part), by_keras(path, part), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_jpeg_and_grayscale_are_close_to_what_keras_reads(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    for file in tmp_path.rglob("*.png"):
        ramp = np.linspace(0, 250, 30).reshape(6, 5).astype(np.uint8)
        Image.fromarray(np.stack([ramp, ramp, 255 - ramp], -1)).save(file.with_suffix(".JPG"))
        file.unlink()
    data = ImageFolder(path=path, color_mode="grayscale").load()
    assert data.shape == (6, 5, 1)
    expected, _ = by_keras(path, "test", color_mode="grayscale")
    np.testing.assert_allclose(data.test[0], expected, atol=3 / 255)  # rounding


def test_pictures_are_resized(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    Image.new("L", (40, 30), 51).save(tmp_path / "test/b/009.png")
    with pytest.raises(
        Invalid, match=r"data.image_size=None: test/b/009.png has \[30, 40\] pixels"
    ):
        ImageFolder(path=path).load()
    data = ImageFolder(path=path, image_size=(4, 8)).load()
    assert data.shape == (4, 8, 3)
    np.testing.assert_allclose(data.test[0][-1], 0.2)


def test_data_in_a_file_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_images(tmp_path)
    here = ImageFolder(path=path, validation=0.25).load()
    there = streamed(path, monkeypatch, validation=0.25)
    monkeypatch.setattr(stored_images, "RELEASE_BYTES", 100)
    assert there.in_memory is None
    for part in ("train", "validation", "test"):
        (x, y), (stored, labels) = getattr(here, part), getattr(there, part)
        assert isinstance(stored, StoredImages)
        assert stored.shape == x.shape
        np.testing.assert_array_equal(stored[:], x)
        np.testing.assert_array_equal(stored[np.array([3, 1])], x[[3, 1]])
        np.testing.assert_array_equal(labels, y)
    assert there.described() != streamed(path, monkeypatch, validation=0.5).described()


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path / "here")
    path = str((tmp_path / "here").rename(tmp_path / "there"))
    monkeypatch.setenv("MASKSWEEP_CACHE", str(tmp_path / "cache"))
    streamed(path, monkeypatch)
    (file,) = (tmp_path / "cache").iterdir()
    monkeypatch.setattr(stored_images.picture, "read", None)
    assert streamed(path, monkeypatch).samples == 36
    monkeypatch.undo()
    monkeypatch.setenv("MASKSWEEP_CACHE", str(tmp_path / "cache"))
    file.write_bytes(b"too short")
    expected, _ = by_keras(path, "test")
    np.testing.assert_array_equal(streamed(path, monkeypatch).test[0][:], expected)


def test_the_content_is_the_identity_and_not_the_path(tmp_path: Path) -> None:
    settings = {"name": "image_folder"}
    paths = [write_images(tmp_path / name) for name in ("here", "there")]
    first, second = (trial(data=settings | {"path": path}) for path in paths)
    assert first.id == second.id
    Image.new("RGB", (5, 6)).save(tmp_path / "there/test/b/000.png")
    assert trial(data=settings | {"path": paths[1]}).id != first.id
    renamed = tmp_path / "here/test/b"
    (renamed / "000.png").rename(renamed / "z.png")
    assert trial(data=settings | {"path": paths[0]}).id != first.id


def test_another_file_in_the_folder_does_not_hide_the_pictures(tmp_path: Path) -> None:
    path = write_images(tmp_path)
    before = ImageFolder(path=path).digest
    (tmp_path / "notes-ubyte.txt").write_text("of no matter")
    assert ImageFolder(path=path).digest == before
    Image.new("RGB", (5, 6)).save(tmp_path / "test/b/000.png")
    assert ImageFolder(path=path).digest != before


def test_a_folder_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, compute = write_images(tmp_path), image_files.digest
    asked: list[str] = []
    monkeypatch.setattr(image_files, "digest", lambda file: asked.append(file) or compute(file))
    for file in tmp_path.rglob("*"):
        os.utime(file, (0, 0))
    monkeypatch.setattr(image_files, "RECENT_SECONDS", -1.0)
    digests = {ImageFolder.digest_of(path) for _ in range(3)}
    assert (len(digests), len(asked)) == (1, 50)
    file = tmp_path / "train/a/000.png"
    file.write_bytes(file.read_bytes()[:-1] + b"\x00")
    os.utime(file, (0, 0))
    assert ImageFolder.digest_of(path) not in digests


# -- folders that are refused ------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int) -> bytes:
    """A small file that states any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(2**16))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def replace(file: Path, make: Callable[[Path], Any]) -> None:
    file.unlink()
    make(file)


def remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink() if file.is_file() else remove(file)
    folder.rmdir()


LISTED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no test part": (lambda f: remove(f / "test"), ": must be a folder with train/ and test/"),
    "no folder": (lambda f: remove(f), ": must be a folder with train/ and test/ (no links)"),
    "a part is a file": (
        lambda f: (remove(f / "test"), (f / "test").touch()), ": must be a folder with train/"
    ),
    "a link to a part": (
        lambda f: ((f / "test").rename(f / "x"), (f / "test").symlink_to("x")),
        ": must be a folder with train/ and test/ (no links)",
    ),
    "another class": (
        lambda f: (f / "test/b").rename(f / "test/c"), ": train/ has a class b, which test/ has not"
    ),
    "one more class in the test part": (
        lambda f: write_images(f, {"test": 1}, classes="z"), ": test/ has a class z, which train/"
    ),
    "one class": (
        lambda f: [remove(f / p / "b") for p in ("train", "test")], ": train/ has 1 folders of"
    ),
    "an empty class": (
        lambda f: (remove(f / "train/a"), (f / "train/a").mkdir()), ": train/a has no picture"
    ),
    "another file": (lambda f: (f / "train/a/x.gif").touch(), ": train/a/x.gif must be a picture"),
    "a file beside the classes": (lambda f: (f / "train/x").touch(), ": train/x must be a folder"),
    "a link to a picture": (
        lambda f: (f / "train/a/x.png").symlink_to("/etc/passwd"), ": train/a/x.png must be a pict"
    ),
    "a link to a class": (lambda f: (f / "train/x").symlink_to("/etc"), ": train/x must be a fold"),
    "a pipe": (lambda f: os.mkfifo(f / "train/a/x.png"), ": train/a/x.png must be a picture"),
    "a file of holes": (
        lambda f: os.truncate(f / "train/a/000.png", 2**40), ": train/a/000.png has 1,099,511,627,"
    ),
    "an escape in a name": (
        lambda f: (f / "train/\x1b[31m\n").mkdir(), ": train/ has a name that is not text: '\\x1b["
    ),
    "no name": (
        lambda f: (f / os.fsdecode(b"train/\xff")).mkdir(), ": train/ has a name that is not t"
    ),
    "a folder in a class": (lambda f: (f / "train/a/x.png").mkdir(), ": train/a/x.png must be a"),
}  # fmt: skip
"""What is found when the trials are planned."""

OPENED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "text": (lambda f: f.write_text("no picture"), ": test/b/001.png cannot be read: no PNG or"),
    "nothing": (lambda f: f.write_bytes(b""), ": test/b/001.png cannot be read: no PNG or JPEG"),
    "half": (lambda f: f.write_bytes(f.read_bytes()[:70]), ": test/b/001.png cannot be read: "),
    "a bomb": (lambda f: f.write_bytes(png(10**5, 10**5)), ": test/b/001.png cannot be read: "),
    "large": (lambda f: f.write_bytes(png(2**14, 2**13)), "8192 pixels, and 67,108,864 are allow"),
    "a gif": (lambda f: Image.new("L", (5, 6)).save(f, "gif"), "cannot be read: no PNG or JPEG"),
    "16 bits": (
        lambda f: Image.fromarray(np.zeros((6, 5), np.uint16)).save(f), "of the kind I;16; save it"
    ),
}  # fmt: skip
"""What is found when the pictures are opened."""


@pytest.mark.parametrize("fault", LISTED)
def test_a_folder_of_another_layout_is_refused(fault: str, tmp_path: Path) -> None:
    path = write_images(tmp_path / "images")
    change, message = LISTED[fault]
    change(tmp_path / "images")
    with pytest.raises(Invalid) as caught:
        trial(data={"name": "image_folder", "path": path})
    assert f"data.path={path}{message}" in str(caught.value)


@pytest.mark.parametrize("image_size", [None, (6, 5)])
@pytest.mark.parametrize("fault", OPENED)
def test_a_picture_that_cannot_be_read_is_named(
    fault: str, image_size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_images(tmp_path / "images")
    change, message = OPENED[fault]
    change(tmp_path / "images/test/b/001.png")
    monkeypatch.setenv("MASKSWEEP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Invalid) as caught:
        ImageFolder(path=path, image_size=image_size).load()
    assert str(caught.value).startswith(f"data.path={path}: test/b/001.png cannot be read: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*(tmp_path / "cache").glob("*")]


@pytest.mark.parametrize("size", [(0, 5), (6, 5000), (-1, 2)])
def test_a_size_out_of_range_is_refused(size: Any, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="image_size"):
        ImageFolder(path=write_images(tmp_path), image_size=size)


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_images(tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("MASKSWEEP_CACHE", str(tmp_path / "file"))
    with pytest.raises(Invalid, match=r"MASKSWEEP_CACHE=.*: a folder for decoded images"):
        ImageFolder(path=path, validation=0.3).load()


def test_a_full_disk_is_not_filled_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = stored_images.shutil._ntuple_diskusage(10**6, 10**6 - 2000, 2000)
    monkeypatch.setattr(stored_images.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setenv("MASKSWEEP_CACHE", str(tmp_path / "cache"))
    with pytest.raises(Invalid, match=r"needs 4,500 bytes .* half of the free 2,000 may be taken"):
        ImageFolder(path=write_images(tmp_path), validation=0.3).load()
