"""Trains a model with masked weights, and audits them: weights by name, training step, audit.

A module imports TensorFlow if it needs it. This package may import `strategies.base`, but nothing
else of `strategies`. The other modules of `strategies` may import this package.
"""
