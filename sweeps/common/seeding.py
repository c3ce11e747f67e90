"""Seeds from stable digests, so that every process draws the same."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.patterns.base import raw


def derive(seed: int, purpose: str) -> int:
    """A 31-bit seed for one purpose of a trial."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "little") >> 1


def short_digest(text: str) -> str:
    """16 hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def permutation(size: int, seed: int, purpose: str) -> NDArray[np.int32]:
    """A permutation of `range(size)` that depends on the seed and the purpose alone."""
    return np.argsort(raw(size, seed, purpose), kind="stable").astype(np.int32)
