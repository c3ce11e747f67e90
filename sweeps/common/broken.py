"""The exception that ends a sweep whose machine fails it."""

from __future__ import annotations


class Broken(Exception):
    """Why no trial can go on: what they run on is gone, or what they leave cannot be kept."""
