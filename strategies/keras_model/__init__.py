"""Masks for anyone's Keras model: `apply`, the masked model, its audit and its summary.

This package may import all of `strategies` but `testing`. Only `strategies/__init__.py` and
`testing` import it.
"""
