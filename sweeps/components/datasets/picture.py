"""Reads one picture, which may come from anyone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from masksweep.strategies.errors import Invalid

if TYPE_CHECKING:
    from PIL.Image import Image

ColorMode = Literal["rgb", "grayscale"]
MAX_PIXELS = 2**26
"""Largest number of pixels of a picture: 67 million. A small file may unpack to far more."""
FORMATS = ("PNG", "JPEG")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
"""Pillow's names for pixels of at most 8 bits in each channel."""


def size_of(folder: str, file: str) -> tuple[int, int]:
    """Returns height and width of a picture. Only its header is read.

    Args:
        folder: The folder of the pictures, for messages.
        file: Path of the picture, relative to the folder.

    Raises:
        Invalid: (key `path`) The header cannot be read, or states a size that is too large.
    """
    with _opened(folder, file) as picture:
        return picture.height, picture.width


def read(folder: str, file: str, color_mode: ColorMode, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Returns a picture as an array of bytes, `[height, width, channels]`.

    Args:
        folder: The folder of the pictures, for messages.
        file: Path of the picture, relative to the folder.
        color_mode: `rgb` for three channels, `grayscale` for one. Transparency is left out.
        size: Height and width of the array. A picture of another size is resized, bilinearly.

    Raises:
        Invalid: (key `path`) The picture cannot be read, or is too large.
    """
    from PIL.Image import Resampling

    with _opened(folder, file) as picture:
        converted = picture.convert("RGB" if color_mode == "rgb" else "L")
        if (converted.height, converted.width) != size:
            converted = converted.resize(size[::-1], Resampling.BILINEAR)
        pixels = np.asarray(converted)
    return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]


@contextmanager
def _opened(folder: str, file: str) -> Iterator[Image]:
    """Context with a picture, of which only the header is read; errors in it become `Invalid`."""
    from PIL import Image

    try:
        with Image.open(Path(folder, file), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                size = f"{picture.width} x {picture.height} pixels"
                raise ValueError(f"{size}, and {MAX_PIXELS:,} are allowed")
            if picture.mode not in MODES:
                raise ValueError(f"pixels of the kind {picture.mode}; save it with 8 bits")
            yield picture
    except Invalid:
        raise
    except Exception as error:  # Pillow raises errors of many types
        reason = "no PNG or JPEG" if type(error).__name__ == "UnidentifiedImageError" else error
        reason_line = " ".join(str(reason).split()) or type(error).__name__
        raise Invalid("path", folder, f"{file} cannot be read: {reason_line}") from error
