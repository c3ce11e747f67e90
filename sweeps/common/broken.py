"""The exception that ends a whole sweep."""

from __future__ import annotations


class Broken(Exception):
    """No trial can go on, because the cluster is gone or results cannot be stored."""
