"""Products with sparse matrices on a CPU, compiled by Numba. May import `strategies.base` only."""
