"""Reading a saved model and masks from files, and whether the weights are held. Nothing of a file
runs.

It may import `common` and `strategies`.
"""
