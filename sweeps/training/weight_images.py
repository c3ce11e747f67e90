"""Draws images of a trial: one of each masked weight, and one of the violations in each epoch.

They are drawn with Pillow, which takes ten milliseconds an image. A plotting library takes a tenth
of a second, which is longer than a whole trial of a pack. An image that fails is left out and the
error is printed to the trial's log, so that the trial's results are not lost.
"""

from __future__ import annotations

import io
import re
import traceback
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from masksweep.strategies.core import audit
from masksweep.strategies.plan import Array, MaskedWeight, Plan

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, GAP, TOP, BOTTOM = 200, 20, 62, 26
"""Sizes in pixels: side of a panel, gap between panels, space above the panels and below."""
WIDTH = 4 * SIDE + 5 * GAP
"""Width of an image in pixels: four panels with gaps."""
TEXT_COLOUR, FAINT_COLOUR, KEPT_COLOUR, WRONG_COLOUR = "#222222", "#b5b5b5", "#0072B2", "#D55E00"
MASK_COLOURS = [(221, 221, 221), (0, 114, 178)]
VALUE_COLOURS = [(118, 42, 131), (247, 247, 247), (27, 120, 55)]
"""Purple, white and green: colour-blind readers can tell them apart."""
HISTOGRAM_BINS = 40
"""Bins of the histogram."""
SHOWN_CHANGES = 60
"""Largest number of changes of the masks that have a line; more would fill the picture."""


def draw_weights(
    plan: Plan, before: Mapping[str, Array], after: Mapping[str, Array]
) -> dict[str, bytes]:
    """Images of the masked weights: the mask, and the values before and after the training.

    The columns of a panel are the last axis of the weight, the rows all other axes. A weight that
    is larger than its panel is reduced: masks by means, values by sampling. A masked value that
    differs from its held value in any bit is orange. The last panel is a histogram of the kept
    values.

    Args:
        plan: The masked weights.
        before: Dense weights by name before the training.
        after: Dense weights by name after the training.

    Returns:
        PNG images by file name. Weights without entries have none.
    """
    images = {}
    for masked in plan.weights:
        name = masked.weight.name
        if not masked.mask.size:
            continue
        try:
            image = _weight_png(masked, before[name], after[name])
        except Exception:
            traceback.print_exc()
            continue
        images[f"weights/{re.sub(r'[^A-Za-z0-9_.=-]+', '_', name)[:100]}.png"] = image
    return images


def draw_violations(
    epochs: Sequence[Mapping[str, float]], changes: Sequence[float] = ()
) -> dict[str, bytes]:
    """An image of the number of violations in each epoch.

    Args:
        epochs: Metrics of each epoch; an epoch that was not audited has no `audit/violations`.
        changes: When the masks changed, in epochs from the start. Each is a vertical line, unless
            there are more than `SHOWN_CHANGES`.

    Returns:
        A PNG image by file name; empty if no epoch was audited.
    """
    violations = tuple(metrics.get("audit/violations") for metrics in epochs)
    if all(v is None for v in violations):
        return {}
    return {"integrity.png": _violations_png(violations, tuple(changes))}


@lru_cache(maxsize=8)
def _violations_png(violations: Sequence[float | None], changes: Sequence[float]) -> bytes:
    """The PNG for the violations of each epoch; None stands for an epoch without an audit.

    It is cached, because all trials without violations have the same image.
    """
    audited = {n: v for n, v in enumerate(violations) if v is not None}
    leaking_epochs, largest = sum(v > 0 for v in audited.values()), max(audited.values())
    canvas = _Canvas()
    canvas.text(0, 8, "Masked values that differ from their held values, by epoch", size=15)
    summary = f"the most: {largest:,.0f}; in {leaking_epochs} of " if leaking_epochs else "none in "
    canvas.text(
        0, 34, f"{summary}{len(audited)} audited epochs", WRONG_COLOUR * bool(leaking_epochs)
    )
    bar_width, bottom = (WIDTH - 2 * GAP) / len(violations), TOP + SIDE
    for number, value in audited.items():
        height = max(4, SIDE * value / largest) if value else 4
        canvas.bar(
            number * bar_width,
            (number + 1) * bar_width,
            bottom,
            height,
            WRONG_COLOUR if value else KEPT_COLOUR,
        )
    lines = changes if len(changes) <= SHOWN_CHANGES else ()
    for change in lines:
        canvas.line(change * bar_width, bottom)
    if changes:
        message = f"the masks changed {len(changes)} times{' (lines)' if lines else ''}"
        canvas.text(WIDTH - 2 * GAP, 34, message, anchor="ra")
    canvas.text(0, bottom + 6, "1")
    canvas.text(WIDTH - 2 * GAP, bottom + 6, f"epoch {len(violations)}", anchor="ra")
    return canvas.png()


def _weight_png(masked: MaskedWeight, before: Array, after: Array) -> bytes:
    mask, shape = masked.mask, " x ".join(map(str, masked.mask.shape))
    wrong = ~mask & (audit.bits(after) != audit.bits(masked.held))
    values = [np.nan_to_num(a.astype(np.float32), posinf=0, neginf=0) for a in (before, after)]
    samples = [_panel(a, mean=False) for a in values]
    # a quantile, because the colour scale of a few large values would make all others pale
    limit = float(np.quantile(np.abs(samples), 0.99)) or float(np.abs(samples).max()) or 1.0
    canvas = _Canvas()
    title = f"{masked.weight.name}   {shape}   {np.mean(~mask):.3g} masked"
    canvas.text(0, 8, title, size=15)
    warning = f"{wrong.sum():,} masked values differ from their held values" if wrong.any() else ""
    held_message = "nothing is masked" if mask.all() else "every masked value is held"
    canvas.text(WIDTH - 2 * GAP, 11, warning or held_message, WRONG_COLOUR * bool(warning), "ra")
    panels = {
        "mask (blue: kept)": _coloured(_panel(mask), MASK_COLOURS),
        "before": _coloured(samples[0] / limit / 2 + 0.5, VALUE_COLOURS),
        "after": _coloured(samples[1] / limit / 2 + 0.5, VALUE_COLOURS),
    }
    if warning:
        panels["after"][_panel(wrong) > 0] = tuple(bytes.fromhex(WRONG_COLOUR[1:]))
    for number, (title, panel) in enumerate(panels.items()):
        canvas.text(number * (SIDE + GAP), TOP - 19, title)
        canvas.paste(number * (SIDE + GAP), panel)
    canvas.text(SIDE + GAP, TOP + SIDE + 6, f"purple {-limit:.3g}, white 0, green {limit:.3g}")
    _histogram(canvas, 3 * (SIDE + GAP), *(a[mask & np.isfinite(a)] for a in (before, after)))
    return canvas.png()


def _histogram(canvas: _Canvas, left: float, before: Array, after: Array) -> None:
    """Draws a histogram of the kept values: before as bars, after as a line."""
    before, after = before.astype(np.float64), after.astype(np.float64)
    limit = float(max(np.abs(a).max(initial=0) for a in (before, after)))
    limit = limit if limit > 1e-30 else 1.0
    canvas.text(left, TOP - 19, "kept values (grey: before)")
    counts = [np.histogram(a, HISTOGRAM_BINS, (-limit, limit))[0] for a in (before, after)]
    heights = SIDE * np.stack(counts) / max(1, *(int(c.max()) for c in counts))
    bottom, bin_width = TOP + SIDE, SIDE / HISTOGRAM_BINS
    for number, height in enumerate(heights[0]):
        canvas.bar(
            left + number * bin_width, left + (number + 1) * bin_width, bottom, height, FAINT_COLOUR
        )
    canvas.steps(left, bin_width, bottom - heights[1])
    for share, anchor in ((0, "la"), (0.5, "ma"), (1, "ra")):
        value = f"{(2 * share - 1) * limit:.3g}"
        canvas.text(left + share * SIDE, bottom + 6, value, anchor=anchor)


def _panel(values: Array, mean: bool = True) -> Array:
    """A weight resized to `[SIDE, SIDE]`, by means (`mean`) or by sampling."""
    from PIL import Image

    flat = np.ascontiguousarray(values, np.float32)  # makes a scalar a vector
    flat = flat.reshape(-1, flat.shape[-1])
    resampling = Image.Resampling.BOX if mean else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(flat).resize((SIDE, SIDE), resampling))


def _coloured(values: Array, colours: Sequence[tuple[int, int, int]]) -> Array:
    """The colours of numbers in [0, 1] on a colour scale, `[..., 3]` uint8."""
    stops = np.linspace(0, 1, len(colours))
    bands = [np.interp(np.arange(255) / 254, stops, band) for band in zip(*colours, strict=True)]
    scale = np.stack(bands, -1).astype(np.uint8)
    coloured: Array = scale[np.rint(np.clip(values, 0, 1) * 254).astype(np.uint8)]
    return coloured


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


class _Canvas:
    """An image. Coordinates are pixels; x counts from the left margin, y from the top."""

    def __init__(self) -> None:
        from PIL import Image, ImageDraw

        self._image: Image.Image = Image.new("RGB", (WIDTH, TOP + SIDE + BOTTOM), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: float, y: float, message: str, colour: str = "", anchor: str = "la", size: int = 12
    ) -> None:
        self._draw.text((GAP + x, y), message, colour or TEXT_COLOUR, _font(size), anchor)

    def paste(self, x: float, panel: Array) -> None:
        from PIL import Image

        self._image.paste(Image.fromarray(panel), (GAP + int(x), TOP))

    def bar(self, left: float, right: float, bottom: float, height: float, colour: str) -> None:
        box = (GAP + left, bottom - height, GAP + max(left, right - 1), bottom)
        self._draw.rectangle(box, colour)

    def line(self, x: float, bottom: float) -> None:
        """Draws a vertical line over the height of a panel."""
        self._draw.line([(GAP + x, bottom - SIDE), (GAP + x, bottom)], TEXT_COLOUR, 1)

    def steps(self, left: float, step_width: float, tops: Array) -> None:
        """Draws a line that stays at each height for `step_width` pixels."""
        edges = [GAP + left + number * step_width for number in range(len(tops) + 1)]
        lines = zip(edges, edges[1:], tops, strict=False)
        self._draw.line([p for a, b, y in lines for p in ((a, y), (b, y))], KEPT_COLOUR, 2)

    def png(self) -> bytes:
        buffer = io.BytesIO()
        self._image.save(buffer, "png", compress_level=1)
        return buffer.getvalue()
