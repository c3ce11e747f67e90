"""Trains a model with masked weights, and audits them: weights by name, training step, audit.

A module imports TensorFlow if it needs it. Of `strategies`, this package may import the basic types
only: `base`, `binding`, `plan` and `errors`. The other packages of `strategies` may import it.
"""
