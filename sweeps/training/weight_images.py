"""What became of the masked weights, as pictures: one of each weight, one of the whole training.

They are drawn with Pillow, in ten milliseconds: a plotting library takes a tenth of a second for
each, which is more than a packed trial takes in all. One that fails is left out, and its trial's
log says why: what was measured does not go with it.
"""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from masksweep.strategies.base import Array, MaskedWeight, Plan
from masksweep.strategies.core import audit

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, GAP, TOP, BOTTOM = 200, 20, 62, 26
"""Pixels of a panel, beside it, above it and below."""
WIDTH = 4 * SIDE + 5 * GAP
INK, FAINT, KEPT, WRONG = "#222222", "#b5b5b5", "#0072B2", "#D55E00"
MASK = [(221, 221, 221), (0, 114, 178)]
VALUES = [(118, 42, 131), (247, 247, 247), (27, 120, 55)]
"""Purple, white and green, which the colour-blind tell apart."""
BINS = 40


def of_weights(
    plan: Plan, before: Mapping[str, Array], after: Mapping[str, Array]
) -> dict[str, bytes]:
    """A PNG of each masked weight, by file name: its mask, its values before and after training.

    `before` and `after` are dense weights by name. Rows are what a weight takes in, columns its
    last axis; where it is larger than the panel, masks are shown as means and values as a sample. A
    masked value that is not what it must be, to the bit, is orange. The last panel counts the kept
    values.
    """
    found = {}
    for w in plan.weights:
        name = w.weight.name
        if not w.mask.size:
            continue
        try:
            drawn = _weight(w, before[name], after[name])
        except Exception:
            traceback.print_exc()
            continue
        found[f"weights/{re.sub(r'[^A-Za-z0-9_.=-]+', '_', name)[:100]}.png"] = drawn
    return found


def of_time(epochs: Sequence[Mapping[str, float]]) -> dict[str, bytes]:
    """A PNG of how many masked values were wrong in each epoch; none if nothing was audited."""
    found = tuple(e.get("audit/violations") for e in epochs)
    return {"integrity.png": _time(found)} if any(v is not None for v in found) else {}


@lru_cache(maxsize=8)
def _time(found: Sequence[float | None]) -> bytes:
    """Of each epoch, or None where it was not audited. Trials that hold look alike."""
    audited = {n: v for n, v in enumerate(found) if v is not None}
    leaks, most = sum(v > 0 for v in audited.values()), max(audited.values())
    drawn = _Canvas()
    drawn.text(0, 8, "Masked values that were not what they must be, by epoch", size=15)
    said = f"the most: {most:,.0f}; in {leaks} of " if leaks else "none in "
    drawn.text(0, 34, f"{said}{len(audited)} audited epochs", WRONG * bool(leaks))
    each, bottom = (WIDTH - 2 * GAP) / len(found), TOP + SIDE
    for number, value in audited.items():
        height = max(4, SIDE * value / most) if value else 4
        drawn.bar(number * each, (number + 1) * each, bottom, height, WRONG if value else KEPT)
    drawn.text(0, bottom + 6, "1")
    drawn.text(WIDTH - 2 * GAP, bottom + 6, f"epoch {len(found)}", anchor="ra")
    return drawn.png()


def _weight(masked: MaskedWeight, before: Array, after: Array) -> bytes:
    mask, shape = masked.mask, " x ".join(map(str, masked.mask.shape))
    wrong = ~mask & (audit.bits(after) != audit.bits(masked.held))
    values = [np.nan_to_num(a.astype(np.float32), posinf=0, neginf=0) for a in (before, after)]
    sampled = [_panel(a, mean=False) for a in values]
    # a few large ones would leave all others pale
    limit = float(np.quantile(np.abs(sampled), 0.99)) or float(np.abs(sampled).max()) or 1.0
    drawn = _Canvas()
    title = f"{masked.weight.name}   {shape}   {np.mean(~mask):.3g} masked"
    drawn.text(0, 8, title, size=15)
    said = f"{wrong.sum():,} masked values are not what they must be" if wrong.any() else ""
    held = "nothing is masked" if mask.all() else "every masked value is held"
    drawn.text(WIDTH - 2 * GAP, 11, said or held, WRONG * bool(said), "ra")
    panels = {
        "mask (blue: kept)": _coloured(_panel(mask), MASK),
        "before": _coloured(sampled[0] / limit / 2 + 0.5, VALUES),
        "after": _coloured(sampled[1] / limit / 2 + 0.5, VALUES),
    }
    if said:
        panels["after"][_panel(wrong) > 0] = tuple(bytes.fromhex(WRONG[1:]))
    for number, (title, panel) in enumerate(panels.items()):
        drawn.text(number * (SIDE + GAP), TOP - 19, title)
        drawn.paste(number * (SIDE + GAP), panel)
    drawn.text(SIDE + GAP, TOP + SIDE + 6, f"purple {-limit:.3g}, white 0, green {limit:.3g}")
    _histogram(drawn, 3 * (SIDE + GAP), *(a[mask & np.isfinite(a)] for a in (before, after)))
    return drawn.png()


def _histogram(drawn: _Canvas, left: float, before: Array, after: Array) -> None:
    """How often each value is there: before as an area, after as a line."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    limit = float(max(np.abs(a).max(initial=0) for a in (before, after)))
    limit = limit if limit > 1e-30 else 1.0
    drawn.text(left, TOP - 19, "kept values (grey: before)")
    counts = [np.histogram(a, BINS, (-limit, limit))[0] for a in (before, after)]
    heights = SIDE * np.stack(counts) / max(1, *(int(c.max()) for c in counts))
    bottom, each = TOP + SIDE, SIDE / BINS
    for number, height in enumerate(heights[0]):
        drawn.bar(left + number * each, left + (number + 1) * each, bottom, height, FAINT)
    drawn.steps(left, each, bottom - heights[1])
    for share, anchor in ((0, "la"), (0.5, "ma"), (1, "ra")):
        value = f"{(2 * share - 1) * limit:.3g}"
        drawn.text(left + share * SIDE, bottom + 6, value, anchor=anchor)


def _panel(values: Array, mean: bool = True) -> Array:
    """A weight as a square of means, or of a sample, `[SIDE, SIDE]`."""
    from PIL import Image

    flat = np.ascontiguousarray(values, np.float32)  # of a scalar, a vector
    flat = flat.reshape(-1, flat.shape[-1])
    how = Image.Resampling.BOX if mean else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(flat).resize((SIDE, SIDE), how))


def _coloured(shares: Array, colours: Sequence[tuple[int, int, int]]) -> Array:
    """Numbers from 0 to 1 on a scale of colours, `[..., 3]`."""
    places = np.linspace(0, 1, len(colours))
    bands = [np.interp(np.arange(255) / 254, places, b) for b in zip(*colours, strict=True)]
    scale = np.stack(bands, -1).astype(np.uint8)
    coloured: Array = scale[np.rint(np.clip(shares, 0, 1) * 254).astype(np.uint8)]
    return coloured


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


class _Canvas:
    """A picture; places are pixels, from its left margin and its top."""

    def __init__(self) -> None:
        from PIL import Image, ImageDraw

        self._image: Image.Image = Image.new("RGB", (WIDTH, TOP + SIDE + BOTTOM), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: float, y: float, said: str, colour: str = "", anchor: str = "la", size: int = 12
    ) -> None:
        self._draw.text((GAP + x, y), said, colour or INK, _font(size), anchor)

    def paste(self, x: float, panel: Array) -> None:
        from PIL import Image

        self._image.paste(Image.fromarray(panel), (GAP + int(x), TOP))

    def bar(self, left: float, right: float, bottom: float, height: float, colour: str) -> None:
        box = (GAP + left, bottom - height, GAP + max(left, right - 1), bottom)
        self._draw.rectangle(box, colour)

    def steps(self, left: float, each: float, tops: Array) -> None:
        """A line that keeps each height for one step."""
        places = [GAP + left + number * each for number in range(len(tops) + 1)]
        ends = zip(places, places[1:], tops, strict=False)
        self._draw.line([p for a, b, y in ends for p in ((a, y), (b, y))], KEPT, 2)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self._image.save(buffer, "png", compress_level=1)
        return buffer.getvalue()
