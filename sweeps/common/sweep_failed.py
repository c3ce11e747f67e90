"""The exception that ends a whole sweep."""

from __future__ import annotations


class SweepFailed(Exception):
    """Raised if no trial can continue: the cluster is gone, or results cannot be stored."""
