"""Small files of masks or held values that declare, or unpack to, far too much data."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import scipy.sparse

from tests.support.archive_bombs import GIGABYTES, NAME, dataset, saved, zeros


def mask(content: bytes) -> None:
    saved()
    with zipfile.ZipFile("masks.npz", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{NAME}.npy", content)


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def mask_of_declared_size() -> None:
    mask(header((2**20, 2**20)))


def mask_of_gigabytes() -> None:
    saved()
    packed_zeros(NAME, (GIGABYTES * 2**6, 2**24))


def packed_zeros(name: str, shape: tuple[int, int]) -> None:
    """Saves a mask of zeros. Its number of entries must be a multiple of 2^24."""
    with (
        zipfile.ZipFile("masks.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(f"{name}.npy", "w", force_zip64=True) as part,
    ):
        part.write(header(shape))
        zeros(part, shape[0] * shape[1])


def held_of_gigabytes() -> None:
    mask_of_gigabytes()
    Path("masks.npz").rename("held.npz")
    np.savez("masks.npz", **{NAME: np.zeros((3, 4))})


def sparse_mask_of_gigabytes() -> None:
    """A CSR mask with gigabytes of zeros as `indptr`. Its shape fits no weight."""
    saved()
    rows = GIGABYTES * 2**27
    np.savez("masks.npz", format=b"csr", shape=(rows, 4), data=np.ones(1), indices=np.zeros(1, int))
    with (
        zipfile.ZipFile("masks.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("indptr.npy", "w", force_zip64=True) as part,
    ):
        part.write(header((rows,), "<i8"))
        zeros(part, rows * 8)


def sparse_mask_with_many_entries() -> None:
    """A COO mask with gigabytes of zeros as `data`. Its shape fits the weight."""
    saved()
    np.savez("masks.npz", format=b"coo", shape=(3, 4), row=np.zeros(1, int), col=np.zeros(1, int))
    count = GIGABYTES * 2**30
    with (
        zipfile.ZipFile("masks.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open("data.npy", "w", force_zip64=True) as part,
    ):
        part.write(header((count,)))
        zeros(part, count)


def sparse_mask_of_declared_size() -> None:
    saved()
    matrix = scipy.sparse.coo_matrix((np.ones(1), ([0], [0])), shape=(2**60, 4))
    scipy.sparse.save_npz("masks.npz", matrix)


def sparse_mask_outside() -> None:
    """A CSR mask with an index outside of the matrix."""
    saved()
    np.savez(
        "masks.npz",
        format=b"csr",
        shape=(3, 4),
        data=np.ones(3),
        indices=np.array([0, 2**30, 1], np.int32),
        indptr=np.array([0, 1, 2, 3], np.int32),
    )


def wide_entries(name: str) -> None:
    """Adds an array to the masks with one entry, a string of 400 MB."""
    size = 400_000_000
    with (
        zipfile.ZipFile("masks.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file,
        file.open(f"{name}.npy", "w", force_zip64=True) as part,
    ):
        part.write(header((1,), f"|S{size}"))
        zeros(part, size // 2**24 * 2**24)
        part.write(bytes(size % 2**24))


def mask_of_wide_entries() -> None:
    saved()
    Path("masks.npz").unlink()
    wide_entries("arr_0")


def named_mask_of_wide_entries() -> None:
    saved()
    Path("masks.npz").unlink()
    wide_entries(NAME)


def sparse_mask_of_wide_entries() -> None:
    saved()
    places = np.zeros(1, int)
    np.savez("masks.npz", format=b"coo", shape=(3, 4), row=places, col=places)
    wide_entries("data")


def sparse_mask_without_format() -> None:
    saved()
    places, data = np.zeros(1, int), np.ones(1)
    none = np.zeros(0, "S3")
    np.savez("masks.npz", format=none, shape=(3, 4), row=places, col=places, data=data)


def sparse_mask_of_no_numbers_for_shape() -> None:
    saved()
    places, data = np.zeros(1, int), np.ones(1)
    np.savez("masks.npz", format=b"coo", shape=("a", "b"), row=places, col=places, data=data)


def empty_of_any_length() -> None:
    """A kernel and its mask, both of shape (2^62, 0): no entries."""
    shape = (2**62, 0)
    dataset(shape=shape)
    mask(header(shape))
