"""Components of other people: a file for `--plugin`, and a distribution that is installed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

PAGE = Path(__file__).parents[2] / ".github" / "CONTRIBUTING.md"

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

WIDE = {"masksweep.models": {"wide": "their_models:Wide"}}
"""Entry points of a distribution that has `MODEL` in `their_models.py`."""


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


def my_net() -> str:
    """The file `my_net.py` of CONTRIBUTING.md, with a model `my_net` and a data set `my_data`."""
    return _on_page("my_net")


def my_training() -> str:
    """The file `my_training.py` of CONTRIBUTING.md: loss `quartic`, metric `largest`, schedule
    `inverse`."""
    return _on_page("my_training")


def _on_page(name: str) -> str:
    block = rf"^`{name}.py`:\n\n```python\n(.*?)^```$"
    (text,) = re.findall(block, PAGE.read_text(), re.M | re.S)
    return str(text)


def my_stream() -> str:
    """The data set of CONTRIBUTING.md that returns `tf.data.Dataset`."""
    (text,) = re.findall(r"^```python\n(@register.*?)^```$", PAGE.read_text(), re.M | re.S)
    return str(text)


def split_my_net(folder: Path) -> Path:
    """Writes `my_net.py`, whose network is built by a file beside it, and returns its path."""
    text, lazy = (
        my_net(),
        "        import parts.layers\n\n        hidden = parts.layers.hidden(self)\n",
    )
    hidden = re.compile(r"^        hidden = (.*\n)", re.M)
    (call,) = hidden.findall(text)
    (folder / "parts").mkdir()
    (folder / "parts/layers.py").write_text(
        f"import keras\n\n\ndef hidden(self):\n    return {call}"
    )
    (folder / "my_net.py").write_text(hidden.sub(lazy, text))
    return folder / "my_net.py"


def my_ends() -> str:
    """The file `my_ends.py` of CONTRIBUTING.md: several inputs and outputs."""
    return _on_page("my_ends")
