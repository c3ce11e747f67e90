"""Tests of the `edges` pattern: the same graph in each of its forms, and what is refused."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from keras import layers

from masksweep import strategies
from masksweep.strategies import Edges, Invalid
from masksweep.strategies.core import edge_list
from masksweep.strategies.plan import Mask

NAME = "genes/kernel"
ADJACENCY = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(lambda s: arrays(bool, s))
FILES = pytest.TempPathFactory


def mask_of(pattern: Edges, shape: tuple[int, ...]) -> Mask:
    mask = pattern.masks({NAME: shape}, 0)[NAME]
    assert (mask.shape, mask.dtype) == (shape, np.dtype(bool))
    return mask


def written(folder: Path, rows: Any, header: str = "source,target") -> str:
    path = folder / "edges.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        stream.write(f"{header}\n")
        csv.writer(stream).writerows(rows)
    return str(path)


@given(ADJACENCY, st.integers(0, 99))
def test_a_graph_is_the_same_in_each_form(
    tmp_path_factory: FILES, adjacency: Mask, seed: int
) -> None:
    adjacency[0, 0] = True
    folder, shape = tmp_path_factory.mktemp("edges"), adjacency.shape
    pairs = np.random.default_rng(seed).permutation(np.argwhere(adjacency))
    genes = [f"gene, {i}" for i in range(shape[0])]
    pathways = [f"é{i}" for i in range(shape[1])]
    named = [(genes[i], pathways[j]) for i, j in pairs]
    frame = pd.DataFrame(named, columns=["a", "b"])
    forms = {
        "csv": Edges(written(folder, pairs)),
        "twice": Edges(pairs=[*pairs.tolist(), *pairs.tolist()]),
        "array": Edges(pairs=pairs),
        "frame": Edges(pairs=frame, inputs=genes, units=pd.Index(pathways)),
        "one side": Edges(pairs=[(i, pathways[j]) for i, j in pairs], units=pathways),
        "an iterator": Edges(pairs=zip(*pairs.T, strict=True)),
    }
    forms["again"] = Edges(**{k: getattr(forms["frame"], k) for k in ("pairs", "inputs", "units")})
    for name, form in forms.items():
        assert (mask_of(form, shape) == adjacency).all(), name
        assert hash(form) is not None
        assert form == form  # arrays would have no truth value
    named_file = written(folder, [(f"{j} ", 0.5, f" {i}") for i, j in named], " to ,weight,from")
    settings: dict[str, Any] = {"source": "from", "target": "to"}
    from_names = Edges(named_file, inputs=genes, units=pathways, **settings)
    assert (mask_of(from_names, shape) == adjacency).all()


@given(ADJACENCY, st.sampled_from(["csr", "csc", "coo"]), st.sampled_from([bool, "i1", "f4"]))
def test_a_sparse_matrix_is_read_as_scipy_wrote_it(
    tmp_path_factory: FILES, adjacency: Mask, kind: str, dtype: Any
) -> None:
    path = str(tmp_path_factory.mktemp("edges") / "edges.npz")
    matrix = scipy.sparse.coo_matrix(adjacency * 3).astype(dtype)
    if matrix.nnz:
        matrix.data[0] = 0  # a stored zero is no edge
    for form in (matrix, scipy.sparse.coo_array(matrix)):
        scipy.sparse.save_npz(path, form.asformat(kind))
        assert (mask_of(Edges(path), adjacency.shape) == (matrix.toarray() != 0)).all()


def test_an_entry_that_is_stored_twice_is_their_sum(tmp_path: Path) -> None:
    path = str(tmp_path / "edges.npz")
    places = [0, 0, 1, 1], [1, 1, 0, 0]
    scipy.sparse.save_npz(path, scipy.sparse.coo_matrix(([1, 1, 2, -2], places), shape=(2, 2)))
    assert mask_of(Edges(path), (2, 2)).astype(int).tolist() == [[0, 1], [0, 0]]


def test_large_lists_are_read_fast(tmp_path: Path) -> None:
    pairs = np.random.default_rng(0).integers(0, 2000, (200_000, 2))
    path = written(tmp_path, pairs)
    start = time.process_time()
    pattern = Edges(path)
    taken = time.process_time() - start
    assert mask_of(pattern, (2000, 2000)).sum() == len({*map(tuple, pairs.tolist())})
    assert taken < 1


def test_what_other_programs_write_is_read(tmp_path: Path) -> None:
    """A byte-order mark, CR LF, quotes, spaces, empty lines, and no end of the last line."""
    path = tmp_path / "edges.csv"
    path.write_bytes(b'\xef\xbb\xbfsource, target\r\n\r\n"0" , 1\r\n1,0,note\r\n\r\n0,0')
    assert mask_of(Edges(str(path)), (2, 2)).astype(int).tolist() == [[1, 1], [1, 0]]


def test_names_may_be_numbers() -> None:
    """Such as the numbers of genes at NCBI, which a DataFrame has as numbers."""
    frame = pd.DataFrame({"gene": [7157, 4609], "pathway": [1, 0]})
    pattern = Edges(pairs=frame, inputs=pd.Series([4609, 7157]))
    assert mask_of(pattern, (2, 2)).astype(int).tolist() == [[1, 0], [0, 1]]


def test_a_model_is_connected_as_its_graph() -> None:
    edges = [("TP53", "apoptosis"), ("MYC", "growth"), ("TP53", "growth")]
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(2, name="genes"), layers.Dense(1, name="output")]
    )
    pattern = Edges(pairs=edges, inputs=["MYC", "TP53"], units=["apoptosis", "growth"])
    masked = strategies.apply(model, pattern)
    masked.compile(keras.optimizers.AdamW(0.05, weight_decay=0.1), "mse")
    masked.fit(np.ones((32, 2)), np.ones((32, 1)), verbose=0)
    assert strategies.audit(masked).ok
    kernel = masked.export_plain().get_layer("genes").kernel.numpy()
    assert (kernel != 0).astype(int).tolist() == [[0, 1], [1, 1]]


# -- refusals -----------------------------------------------------------------------------------

CSV: dict[str, tuple[str, dict[str, Any], str]] = {
    "an index out of the range": (
        "source,target\n0,1\n\n1,3\n",
        {},
        "line 4: target 3 is out of the range; genes/kernel has 3 units",
    ),
    "a negative index": ("source,target\n-1,1\n", {}, "line 2: source -1 is out of the range"),
    "an index that is too long": (
        f"source,target\n{2**70},1\n",
        {},
        "line 2: source '1180591620717411303424' is no index",
    ),
    "an unknown name": (
        "source,target\na,0\nb,1\nc,1\n",
        {"inputs": ["a", "b"]},
        "line 4: source 'c' is not among the 2 names in inputs",
    ),
    "a name without names": (
        "source,target\n0,growth\n",
        {},
        "line 2: target 'growth' is no index; if it is a name, give units",
    ),
    "a number that is not whole": ("source,target\n0,1.5\n", {}, "target '1.5' is no index"),
    "no column": ("from,to\n0,1\n", {}, "a file with one column source; it has from, to"),
    "the column twice": ("source,source,target\n0,1,2\n", {}, "a file with one column source"),
    "a short line": ("source,target\n0,1\n1\n", {}, "line 3: target '' is no index"),
    "lines in a cell": (
        'note,source,target\n"two\nlines",0,0\n"a\nb",9,0\n',
        {},
        "line 5: source 9 is out of the range; genes/kernel has 2 inputs",
    ),
    "only a header": ("source,target\n", {}, "a file with one edge or more"),
    "nothing": ("", {}, "a file with one column source; it has "),
    "too few names": (
        "source,target\na,0\n",
        {"inputs": ["a"]},
        "inputs=1 names: must be as many as genes/kernel has inputs: 2",
    ),
    "control characters": ("source,target\n\x1b[31m,0\n", {}, r"source '\x1b[31m' is no index"),
}


@pytest.mark.parametrize("name", CSV)
def test_a_file_that_does_not_fit_is_one_line(name: str, tmp_path: Path) -> None:
    content, settings, words = CSV[name]
    path = tmp_path / "edges.csv"
    path.write_bytes(content.encode())
    with pytest.raises(Invalid) as error:
        mask_of(Edges(str(path), **settings), (2, 3))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Edges(), "path=None: must be given, or else pairs"),
        (lambda: Edges("a.csv", [(0, 1)]), "path=path and pairs: must be given, or else pairs"),
        (lambda: Edges("edges.tsv"), "path=edges.tsv: must be a .csv file of edges, or a .npz"),
        (lambda: Edges("none.csv"), "path=none.csv: no such file"),
        (lambda: Edges("none.npz"), "path=none.npz: no such file"),
        (lambda: Edges("a\0b.csv"), "no such file"),
        (lambda: Edges("."), "must be a .csv file"),
        (lambda: Edges(pairs=[]), "pairs=[]: must be one edge or more"),
        (lambda: Edges(pairs=3), "pairs=int: must be pairs (source, target)"),
        (lambda: Edges(pairs="ab"), "pairs=str: must be pairs"),
        (lambda: Edges(pairs=[(0, 1, 2)]), "pairs=list: must be pairs"),
        (lambda: Edges(pairs=[(0, 1.5)]), "pairs=list: must be pairs"),
        (lambda: Edges(pairs=np.eye(2, dtype=bool)), "pairs=ndarray: must be pairs"),
        (lambda: Edges(pairs=pd.DataFrame({"a": [0, None], "b": [0, 1]})), "pairs=DataFrame: must"),
        (lambda: Edges(pairs=[("a", 0)]), "pairs=1 edges: edge 0: source 'a' is no index"),
        (
            lambda: mask_of(Edges(pairs=[(0, 0), (0, 3)]), (2, 3)),
            "pairs=2 edges: edge 1: target 3 is out of the range; genes/kernel has 3 units",
        ),
        (lambda: Edges(pairs=[(0, 0)], units="ab"), "units=ab: must be a list of names"),
        (lambda: Edges(pairs=[(0, 0)], units=["a", "a"]), "units=['a']: must be names, each once"),
        (
            lambda: mask_of(Edges(pairs=[(0, 0)]), (3,)),
            "genes/kernel=[3]: must be a weight [inputs, units], to have edges",
        ),
    ],
)
def test_what_is_no_graph_is_one_line(
    make: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Invalid) as error:
        make()
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_text_or_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "edges.csv"
    for content in (b"source,target\n\xff,0\n", b"source,target\n" + b"1" * 200_000 + b",0\n"):
        path.write_bytes(content)
        with pytest.raises(Invalid, match=r"not a readable \.csv file in UTF-8"):
            Edges(str(path))
    monkeypatch.setattr(edge_list, "MAX_CSV_BYTES", 20)
    with pytest.raises(Invalid, match="more than 20 bytes; use a sparse matrix"):
        Edges(str(path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Invalid, match="no such file"):
        Edges(str(path))


def sparse(**changed: Any) -> dict[str, Any]:
    """Returns the arrays of a CSR matrix [[0, 1, 0], [1, 0, 1]], with some of them changed."""
    arrays = {"indices": [1, 0, 2], "indptr": [0, 1, 3], "data": [1, 1, 1], "shape": [2, 3]}
    return {"format": np.array(b"csr"), **arrays, **changed}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (sparse(indices=[1, 0, 3]), "is no valid sparse matrix"),
        (sparse(indices=[1, 0, -1]), "is no valid sparse matrix"),
        (sparse(indices=[1, 0]), "is no valid sparse matrix"),
        (sparse(data=[1, 1]), "is no valid sparse matrix"),
        (sparse(indices=[1.0, 0, 2]), "is no valid sparse matrix"),
        (sparse(indices=[[1], [0], [2]]), "is no valid sparse matrix"),
        (sparse(indptr=[0, 1]), "is no valid sparse matrix"),
        (sparse(indptr=[1, 1, 3]), "is no valid sparse matrix"),
        (sparse(indptr=[0, 4, 3]), "is no valid sparse matrix"),
        (sparse(indptr=[0, 1, 2**60]), "is no valid sparse matrix"),
        (sparse(indptr=np.array([0, 2**64 - 1, 3], "u8")), "is no valid sparse matrix"),
        (sparse(data=np.ones(99)), "has more entries than a matrix of its shape"),
        (sparse(data=np.array([{}, 1, 1])), "holds pickled objects"),
        (sparse(data=np.array(["a", "b", "c"])), "data of the sparse mask=dtype <U1: must be"),
        (sparse(format=np.array(b"dia"), offsets=[0]), "a sparse matrix in csr, csc, coo format"),
        (sparse(format=np.array(b"lil")), "must be a sparse matrix in csr, csc, bsr, coo, dia"),
        (sparse(shape=[2, 3, 1]), "must be a sparse matrix, of two dimensions"),
        (sparse(shape=[3, 2], indptr=[0, 0, 1, 3], indices=[1, 0, 1]), "it is [3, 2]"),
        ({NAME: np.ones((2, 3))}, "must be a sparse matrix; it has genes/kernel"),
    ],
)
def test_a_matrix_that_is_damaged_or_does_not_fit_is_refused(
    parts: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "edges.npz")
    np.savez(path, **parts)
    with pytest.raises(Invalid) as error:
        mask_of(Edges(path), (2, 3))
    assert words in str(error.value)
    with pytest.raises(Invalid, match=r"units=.*null with a \.npz file"):
        Edges(path, units=["a"])


def test_the_matrix_of_these_tests_is_valid(tmp_path: Path) -> None:
    path = str(tmp_path / "edges.npz")
    np.savez(path, **sparse())
    assert mask_of(Edges(path), (2, 3)).astype(int).tolist() == [[0, 1, 0], [1, 0, 1]]
