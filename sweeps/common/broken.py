"""The exception that ends a whole sweep."""

from __future__ import annotations


class Broken(Exception):
    """Raised if no trial can continue: the cluster is gone, or results cannot be stored."""
