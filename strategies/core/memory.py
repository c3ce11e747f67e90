"""Gives memory that was freed back to the operating system."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Gives the memory of freed arrays back to the operating system, where the C library keeps it.

    The C library of most Linux systems keeps freed blocks of up to 32 MiB for the next allocation.
    After the masks and indices of large kernels were computed, these can be more than all that is
    still in use. Elsewhere nothing is done.

    Source: https://man7.org/linux/man-pages/man3/malloc_trim.3.html
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another system, or another C library
        return
    libc.malloc_trim(0)
