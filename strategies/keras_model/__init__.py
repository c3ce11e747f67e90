"""Masks for anyone's Keras model: `apply`, the masked model, its audit and its summary.

This package may import `strategies.base`, `strategies.core` and the registries of strategies,
patterns and held values. Only `strategies/__init__.py` imports it.
"""
