"""The examples in docstrings and the README work, and the exceptions that they name exist."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest

from masksweep import strategies
from masksweep.strategies import PATTERNS
from masksweep.sweeps import components
from masksweep.sweeps import config as sweep_config


def modules(package: ModuleType) -> list[str]:
    """Names of the modules of a package and of the packages in it."""
    prefix = f"{package.__name__}."
    return [package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, prefix))]


PACKAGES = (strategies, components, sweep_config)


def test_every_example_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    # an example registers a pattern, which other tests must not see
    monkeypatch.setattr(PATTERNS, "_components", dict(PATTERNS))
    results = {}
    for package in PACKAGES:
        for name in modules(package):
            keras.utils.set_random_seed(0)  # which deterministic operations require
            results[name] = doctest.testmod(importlib.import_module(name))
    failing = {name: result for name, result in results.items() if result.failed}
    assert not failing
    assert sum(result.attempted for result in results.values()) > 50


def test_every_public_name_is_listed_and_has_an_example() -> None:
    assert set(strategies.__all__) <= set(dir(strategies))
    public = {name: getattr(strategies, name) for name in strategies.__all__}
    documented = {
        name: value.__doc__ or ""
        for name, value in public.items()
        if inspect.isclass(value) or inspect.isfunction(value)
    }
    assert len(documented) > 40
    assert [name for name, text in documented.items() if ">>> " not in text] == []


def test_the_code_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", readme, re.M | re.S)
    assert blocks
    for block in blocks:
        keras.utils.set_random_seed(0)
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    assert capsys.readouterr().out.endswith("ok\n")


def calls_of_the_readme() -> list[str]:
    """The code in the second column of the table "you want to | the call"."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    table = re.search(r"^\| you want to \| the call \|\n\|.*\n((?:\|.*\n)+)", readme, re.M)
    assert table is not None
    rows = [row.split("|")[2] for row in table[1].splitlines()]
    calls = [re.findall(r"`([^`]+)`", row) for row in rows]
    assert all(calls)
    return [call for of_row in calls for call in of_row]


@pytest.mark.parametrize("call", calls_of_the_readme())
def test_the_calls_in_the_readme_hold(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edges.csv").write_text("source,target\n0,1\n5,3\n2,0\n")
    keras.utils.set_random_seed(0)
    start = keras.Input((3,))
    words = keras.layers.Embedding(5010, 4, name="words")(start)
    attention = keras.layers.MultiHeadAttention(2, 2, name="attention")(words, words)
    x = keras.layers.Flatten()(words + attention)
    for name, size in {"genes": 40, "hidden": 50, "output": 12}.items():
        x = keras.layers.Dense(size, name=name)(x)
    model = keras.Model(start, x)
    names = {name: getattr(strategies, name) for name in strategies.__all__}
    names |= {"model": model, "mask": np.eye(40, 50, dtype=bool)}
    names |= {"units": 12, "edges": [(0, 1), (2, 11)]}
    made = eval(call, names)
    if isinstance(made, strategies.SparseDense):
        made = keras.Sequential([keras.Input((3,)), made])
    made.compile("adam", "mse", run_eagerly=True)
    made.fit(np.arange(5000, 5006).reshape(2, 3), np.ones((2, 12)), verbose=0)
    audit = strategies.audit(made)
    assert audit.ok
    assert any(weight.masked for weight in audit.weights)


def test_the_links_of_the_readme_lead_to_files() -> None:
    root = Path(__file__).parents[1]
    text = (root / "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)\)|^\[[\w-]+\]: (\S+)$", text, re.M)
    files = [link for pair in links for link in pair if link and "://" not in link]
    assert len(files) > 10
    assert [file for file in files if not (root / file).is_file()] == []


RAISES = re.compile(r"^Raises:\n((?:    .*\n?|\n)+)", re.M)
NAMED = re.compile(r"^    (?:\w+\.)*(\w+):", re.M)


def test_every_exception_that_a_docstring_names_exists() -> None:
    root = Path(__file__).parents[1]
    trees = {
        path: ast.parse(path.read_text())
        for folder in ("strategies", "sweeps")
        for path in (root / folder).rglob("*.py")
    }
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    known = {*dir(builtins), *(n.name for _, n in nodes if isinstance(n, ast.ClassDef))}
    known |= {n.id for _, n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    named = [
        (path.name, node.name, exception)
        for path, node in nodes
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        for section in RAISES.findall(ast.get_docstring(node) or "")
        for exception in NAMED.findall(section)
    ]
    assert len(named) > 50
    assert [item for item in named if item[-1] not in known] == []
