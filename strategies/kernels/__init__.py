"""Products with sparse matrices on a CPU, compiled by Numba.

This package may import `strategies.core` and the basic types: `binding`, `plan` and `errors`.
"""
