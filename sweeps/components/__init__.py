"""What a trial is made of, beside its strategy: models, data sets, optimizers, initial weights.

It may import `common` and `strategies`.
"""
