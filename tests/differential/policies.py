"""The dtype policies of Keras that are compared."""

POLICIES: tuple[str, ...] = (
    "float32",
    "mixed_float16",
    "mixed_bfloat16",
    "float16",
    "bfloat16",
    "float64",
)

TRAINING: tuple[str, ...] = ("float32", "mixed_float16", "mixed_bfloat16")
"""The policies under which Keras can train nearly all layers. Under the others TensorFlow lacks
many kernels."""
