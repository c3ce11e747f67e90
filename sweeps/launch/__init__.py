"""Where trials run: on the workers of a Ray cluster, or in processes of this machine.

Only this package uses Ray. It may import `training` and the packages below it.
"""
