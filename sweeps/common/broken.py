"""The exception that ends a whole sweep."""

from __future__ import annotations


class Broken(Exception):
    """No trial can go on: the cluster is gone, or results cannot be stored. The message says why."""
