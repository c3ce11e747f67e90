"""What trains a model with masked weights and audits them: weights by name, the training step, the
audit. Loads TensorFlow where a module needs it.

It may import `strategies.base` only; the strategies beside this package may import it.
"""
