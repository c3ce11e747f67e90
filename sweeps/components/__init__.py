"""The parts of a trial besides its strategy: models, data sets, optimizers, initial weights.

It may import `common` and `strategies`.
"""
