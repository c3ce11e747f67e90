"""Installs a third-party distribution with plugins into a folder, as an installer does."""

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
    """Installs a distribution into a folder.

    Args:
        folder: The target. The caller puts it on PYTHONPATH.
        points: Entry points by group (such as `masksweep.models`) and name.
        files: Contents of the distribution's files by path.
        name: The distribution's name.
        version: The distribution's version.

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
