"""Seeds and permutations from stable digests, equal in every process."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.patterns.drawing import raw


def derive_seed(seed: int, purpose: str) -> int:
    """Returns a 31-bit seed for one purpose of a trial.

    Args:
        seed: The trial's seed.
        purpose: A text that makes the seed independent of those for other purposes.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def short_digest(text: str) -> str:
    """Returns the first 16 hexadecimal digits of a text's SHA-256 digest."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def permutation(size: int, seed: int, purpose: str) -> NDArray[np.int32]:
    """Returns a permutation of `range(size)`, an int32 array of shape `[size]`.

    It depends on the arguments only, not on the process or the platform.
    """
    return np.argsort(raw(size, seed, purpose), kind="stable").astype(np.int32)
