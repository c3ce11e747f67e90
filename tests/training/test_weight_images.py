"""The images of a trial: the colours of single pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from masksweep.strategies.plan import Array, MaskedWeight, Plan, Weight
from masksweep.sweeps.training import weight_images
from masksweep.sweeps.training.weight_images import GAP, SIDE, TOP

ORANGE, BLUE, GREY, WHITE = (213, 94, 0), (0, 114, 178), (221, 221, 221), (247, 247, 247)


def plan(mask: Array, held: float = 0.0) -> Plan:
    weight = Weight("dense/kernel", mask.shape, "float32", "Dense")
    return Plan((MaskedWeight(weight, mask, np.full(mask.shape, held, np.float32)),))


def drawn(mask: Array, before: Array, after: Array, held: float = 0.0) -> Image.Image:
    images = weight_images.draw_weights(
        plan(mask, held), {"dense/kernel": before}, {"dense/kernel": after}
    )
    assert list(images) == ["weights/dense_kernel.png"]
    return Image.open(io.BytesIO(images["weights/dense_kernel.png"]))


def at(image: Image.Image, panel: int, row: float, column: float) -> object:
    """The colour of one pixel of a panel; `row` and `column` are fractions of its size."""
    left = GAP + panel * (SIDE + GAP)
    return image.getpixel((int(left + column * SIDE), int(TOP + row * SIDE)))


def test_a_weight_by_its_places() -> None:
    mask = np.array([[True, False], [False, True]])
    before = np.array([[1, 0], [0, -1]], np.float32)
    image = drawn(mask, before, np.array([[-1, 0], [0, 1]], np.float32))
    assert [at(image, 0, *p) for p in ((0.25, 0.25), (0.25, 0.75))] == [BLUE, GREY]
    purple, green = at(image, 2, 0.25, 0.25), at(image, 2, 0.75, 0.75)
    assert [at(image, 1, *p) for p in ((0.25, 0.25), (0.75, 0.75))] == [green, purple]
    assert at(image, 1, 0.25, 0.75) == at(image, 2, 0.25, 0.75) == WHITE


@pytest.mark.parametrize("wrong", [1e-30, -0.0, np.nan, np.inf])
def test_one_wrong_bit_among_a_million_is_seen(wrong: float) -> None:
    mask = np.zeros((1000, 1000), bool)
    after = np.zeros(mask.shape, np.float32)
    after[755, 255] = wrong
    image = drawn(mask, np.zeros_like(after), after)
    assert at(image, 2, 0.755, 0.255) == ORANGE
    assert at(image, 2, 0.25, 0.75) == at(image, 1, 0.755, 0.255) == WHITE
    image_without = drawn(mask, np.zeros_like(after), np.zeros_like(after))
    assert ORANGE not in {c for _, c in image_without.getcolors(2**24) or ()}


@pytest.mark.parametrize("value", [3e38, 1e-44, np.nan, np.inf])
def test_kept_values_of_any_size(value: float) -> None:
    mask = np.ones((2, 2), bool)
    values = np.array([[value, -value], [0, value]], np.float32)
    assert drawn(mask, np.zeros_like(values), values).size[0] == weight_images.WIDTH


def test_a_picture_that_fails_takes_no_other_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    mask = np.array([[True, False]])
    (failing,) = plan(mask).weights
    other = MaskedWeight(Weight("b/kernel", (1, 2), "float32", "Dense"), mask, failing.held)
    values = np.zeros((1, 2), np.float32)
    by_name = {"dense/kernel": np.zeros(7, np.float32), "b/kernel": values}
    assert list(weight_images.draw_weights(Plan((failing, other)), by_name, by_name)) == [
        "weights/b_kernel.png"
    ]
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (3, 3, 2, 5)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    mask = np.ones(shape, bool)
    image = drawn(mask, np.zeros(shape, np.float32), np.ones(shape, np.float32))
    assert image.size == (weight_images.WIDTH, TOP + SIDE + weight_images.BOTTOM)


def test_of_an_empty_weight_there_is_no_picture() -> None:
    empty = np.zeros((0, 4), np.float32)
    assert not weight_images.draw_weights(
        plan(empty > 0), {"dense/kernel": empty}, {"dense/kernel": empty}
    )


def test_a_held_value_is_no_violation() -> None:
    mask = np.array([[True, False]])
    values = np.array([[0.1, 3.0]], np.float32)
    colours = drawn(mask, values, values, held=3.0).getcolors(2**24) or ()
    assert ORANGE not in {c for _, c in colours}


def test_the_time_of_a_leak() -> None:
    epochs = [{"audit/violations": v} for v in (0.0, 0.0, 5.0, 10.0)]
    image = Image.open(io.BytesIO(weight_images.draw_violations(epochs)["integrity.png"]))
    width, bottom = weight_images.WIDTH - 2 * GAP, TOP + SIDE
    columns = [int(GAP + (n + 0.5) * width / 4) for n in range(4)]
    assert [image.getpixel((x, bottom - 2)) for x in columns] == [BLUE, BLUE, ORANGE, ORANGE]
    colours_above = [image.getpixel((x, bottom - SIDE * 3 // 4)) for x in columns]
    assert colours_above == [(255, 255, 255)] * 3 + [ORANGE]


def test_an_epoch_without_an_audit_is_empty() -> None:
    image = Image.open(
        io.BytesIO(weight_images.draw_violations([{}, {"audit/violations": 0.0}])["integrity.png"])
    )
    columns = [GAP + 50, weight_images.WIDTH - GAP - 50]
    assert [image.getpixel((x, TOP + SIDE - 2)) for x in columns] == [(255, 255, 255), BLUE]


def test_where_nothing_is_audited_there_is_no_picture() -> None:
    assert weight_images.draw_violations([{"train/loss": 1.0}]) == {}


@pytest.mark.parametrize(("count", "shown"), [(60, True), (61, False)])
def test_many_changes_of_the_masks_have_no_lines(count: int, shown: bool) -> None:
    epochs = [{"audit/violations": 0.0}] * 8
    early, late = (
        weight_images.draw_violations(epochs, [n / count + start for n in range(count)])
        for start in (0, 5)
    )
    assert (early != late) is shown
