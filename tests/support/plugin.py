"""A distribution of somebody else's, as an installer leaves it in a folder of Python's path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

MODEL = '''
from dataclasses import dataclass
from typing import Any, ClassVar

from masksweep.sweeps.components.models import Model


@dataclass(frozen=True)
class Wide(Model):
    """One hidden layer."""

    name: ClassVar[str] = "wide"
    units: int = 16

    def network(self, inputs: tuple[int, ...], outputs: int) -> Any:
        import keras

        layers = [keras.layers.Dense(self.units, "relu", name="hidden")]
        return keras.Sequential(
            [keras.Input(inputs), *layers, keras.layers.Dense(outputs, name="output")]
        )
'''


def install(
    folder: Path,
    points: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str],
    name: str = "their-parts",
    version: str = "1.0",
) -> Path:
    """Put a distribution into a folder.

    Args:
        folder: Where to; it is to be on PYTHONPATH.
        points: Entry points by group (`masksweep.models`) and name.
        files: Its files by their paths.
        name: The distribution's name.
        version: Its version.

    Returns:
        The folder.
    """
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, values in points.items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in values.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return folder
