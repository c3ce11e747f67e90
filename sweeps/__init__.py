"""Running, recording and showing sweeps over strategies."""

__version__ = "0.1.0"
