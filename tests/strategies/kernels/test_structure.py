"""The structure of a sparse kernel, and the cache of the compiled products."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from masksweep.strategies.kernels.structure import flat_indices, pack, packed_length, unpack
from masksweep.strategies.plan import Mask


@st.composite
def masks(draw: st.DrawFn) -> Mask:
    """Masks with rows and columns of any number of entries, from none to all."""
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.8, 1.0]))
    mask: Mask = np.random.default_rng(draw(st.integers(0, 99))).random(shape) < density
    mask[:: draw(st.integers(1, 3))] &= draw(st.booleans())
    mask[:, :: draw(st.integers(1, 3))] |= draw(st.booleans())
    return mask


@given(masks(), st.sampled_from([1, 7, 40, None]))
@settings(max_examples=30)
def test_the_structure_has_each_entry_once_by_output_and_by_input(
    mask: Mask, band: int | None
) -> None:
    inputs, outputs = mask.shape
    packed, again = pack(mask, band), pack(mask[::-1], band)
    assert packed.dtype == "int32"
    assert len(packed) == len(again)  # it depends on the counts alone
    structure = unpack(packed, inputs, outputs)
    band = band or int(packed[0])
    bands = -(-inputs // band), -(-outputs // band)
    by_output = np.repeat(np.tile(np.arange(outputs), bands[0]), np.diff(structure.output_starts))
    by_input = np.repeat(np.tile(np.arange(inputs), bands[1]), np.diff(structure.input_starts))
    order = np.lexsort((structure.inputs, by_output, structure.inputs // band))
    np.testing.assert_array_equal(order, np.arange(mask.sum()))
    order = np.lexsort((structure.outputs, by_input, structure.outputs // band))
    np.testing.assert_array_equal(order, np.arange(mask.sum()))
    for outputs_, inputs_ in ((by_output, structure.inputs), (structure.outputs, by_input)):
        np.testing.assert_array_equal(np.sort(inputs_ * outputs + outputs_), np.flatnonzero(mask))
    np.testing.assert_array_equal(by_output[structure.positions], structure.outputs)
    np.testing.assert_array_equal(structure.inputs[structure.positions], by_input)
    flat = flat_indices(tf.constant(packed), inputs, outputs)
    np.testing.assert_array_equal(flat, structure.inputs * outputs + by_output)


@given(masks(), st.integers(0, 50))
@settings(max_examples=30)
def test_places_that_are_left_over_are_of_masked_entries(mask: Mask, more: int) -> None:
    kept = int(mask.sum())
    places = min(kept + more, mask.size)
    packed = pack(mask, places=places)
    assert len(packed) == packed_length(mask.shape, places)
    flat = np.asarray(flat_indices(tf.constant(packed), *mask.shape))
    assert len(flat) == places
    assert (np.unique(flat[:kept]) == np.flatnonzero(mask)).all()
    left_over = np.unique(-1 - flat[kept:])
    assert len(left_over) == places - kept
    assert not mask.ravel()[left_over].any()


SCRIPT = """
import numpy as np
from masksweep.strategies.kernels.products import SUM_ROWS
starts, rows, result = np.array([0, 2], "int32"), np.array([0, 1], "int32"), np.zeros((1, 32), "f4")
SUM_ROWS[32](starts, rows, rows, np.array([2, 3], "f4"), np.ones((2, 32), "f4"), result, 0, 1)
print(result[:, :3].tolist(), sum(sum(f.stats.cache_hits.values()) for f in SUM_ROWS.values()))
"""


def compute_in_processes(count: int, **environment: str) -> list[str]:
    """Runs `SCRIPT` in several processes at the same time. Returns what each has written."""
    command = [sys.executable, "-c", SCRIPT]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
        for _ in range(count)
    ]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert not any(process.returncode for process in processes)
    return outputs


@pytest.mark.slow  # each of the processes compiles
def test_processes_that_start_at_once_share_a_cache(tmp_path: Path) -> None:
    outputs = compute_in_processes(16, NUMBA_CACHE_DIR=str(tmp_path))
    assert {output[:18] for output in outputs} == {"[[5.0, 5.0, 5.0]] "}
    assert compute_in_processes(1, NUMBA_CACHE_DIR=str(tmp_path)) == ["[[5.0, 5.0, 5.0]] 4"]


def test_without_a_folder_that_can_be_written_each_process_compiles() -> None:
    only = "numba.core.caching.UserProvidedCacheLocator"
    environment = {"NUMBA_CACHE_DIR": "/dev/null", "NUMBA_CACHE_LOCATOR_CLASSES": only}
    assert compute_in_processes(1, **environment) == ["[[5.0, 5.0, 5.0]] 0"]
