"""Keras' dtype policies."""

POLICIES: tuple[str, ...] = (
    "float32",
    "mixed_float16",
    "mixed_bfloat16",
    "float16",
    "bfloat16",
    "float64",
)

TRAINING: tuple[str, ...] = ("float32", "mixed_float16", "mixed_bfloat16")
"""Those under which Keras trains nearly everything; of the others many a kernel is missing."""
