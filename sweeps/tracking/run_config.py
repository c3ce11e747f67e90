"""A run's config file: everything needed to run a trial again, and the results of the run."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from masksweep.strategies.errors import Invalid
from masksweep.strategies.registry import STRATEGIES
from masksweep.sweeps.common import safe_yaml
from masksweep.sweeps.common.limits import MAX_COPIED_DATA_BYTES, MAX_SENT_ARTIFACT_BYTES
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.components.datasets import DATASETS, DataSet
from masksweep.sweeps.components.datasets.content import REFERENCE
from masksweep.sweeps.components.groups import REGISTRIES
from masksweep.sweeps.components.named_files import GROUPS_WITH_FILES, named_files, with_files
from masksweep.sweeps.components.plugin_files import FLAG, ORIGIN_PATTERN
from masksweep.sweeps.config.trial import Trial, parse, recorded_config
from masksweep.sweeps.results import TrialResult

MAX_FILE_BYTES = 2**24
"""Largest size of a config file in bytes. Most of it are curves."""
MAX_FILE_VALUES = 500_000
"""Largest number of values in a config file: enough for curves of 25 metrics over 10,000 epochs,
or for masks written as lists."""
FILE_NAME = "config.yaml"
"""Name of the config file."""
RESULTS_KEY = "recorded"
"""Key of the results in the config file; the other keys are the trial's config."""
FILE_SUFFIXES = (".npz", ".csv", ".keras")
"""Suffixes of the copies of files that a config names: that of the file, or `.npz`."""
COPY_NAME = re.compile(rf"given_({'|'.join(GROUPS_WITH_FILES)})(_\d+)?\.(npz|csv|keras)")
"""Names of the copies beside the config file: of a pattern's parts they have a number."""
DATA_NAMES = (*(f"given_data{suffix}" for suffix in FILE_SUFFIXES), "given_data")
"""Names that data may have which were not copied; the last one is for a folder."""
DATA_KEY = "data.path"
Curves = Mapping[str, Mapping[int, float]]
"""Value by epoch, by metric."""


@dataclass(frozen=True)
class RecordedResults:
    """The results of a run."""

    trial: str
    """Id of the trial that ran. If the config file was edited since, the config has another id."""
    run: str
    """Key of the run, as in its tag `trial.run`."""
    code: str
    """Version of the code that ran."""
    status: str
    reason: str = ""
    weights_sha256: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files beside the config file, by name."""


def copy_named_files(trial: Trial) -> dict[str, bytes]:
    """Returns copies of the files that a trial's config names, by the name of the copy.

    Returns nothing if a file is missing, is large, or has changed since the trial was planned. The
    results are recorded all the same, and `read` then reports that the file is missing. Folders and
    large files of data are left out: the config then has their digest.
    """
    copies = {}
    with suppress(OSError):
        files = dict(named_files(recorded_config(trial)))
        for key, name in _names_of_copies(files).items():
            path = Path(files[key])
            if key == DATA_KEY and not _is_copied(path):
                continue
            if path.stat().st_size > MAX_SENT_ARTIFACT_BYTES:
                return {}
            copies[name] = path.read_bytes()
        return copies if not copies or parse(trial.resolved()).id == trial.id else {}
    return {}


def recorded_results(
    trial: Trial,
    run: str,
    result: TrialResult,
    curves: Curves,
    named_files: Mapping[str, bytes],
    failed: bool = False,
) -> RecordedResults:
    """Returns the results of a trial that has ended, as they are recorded.

    Args:
        trial: The trial.
        run: Key of the run.
        result: The trial's result.
        curves: Values of the curves by epoch.
        named_files: The files that the config names, as `copy_named_files` returns them.
        failed: Whether the trial failed.
    """
    environment_lines = result.artifacts.get("environment.txt", b"").decode().splitlines()
    return RecordedResults(
        trial=trial.id,
        run=run,
        code=code_version(),
        status="failed" if failed else result.status,
        reason=result.reason,
        weights_sha256=result.tags.get("trial.weights_sha256", ""),
        metrics={k: float(v) for k, v in sorted(result.metrics.items())},
        curves={k: dict(v) for k, v in curves.items()},
        environment=dict(line.split(": ", 1) for line in environment_lines if ": " in line),
        files={name: hashlib.sha256(content).hexdigest() for name, content in named_files.items()},
    )


def config_text(trial: Trial, results: RecordedResults | None = None) -> str:
    """Returns the content of the config file.

    Args:
        trial: The trial.
        results: The results; None while the trial has not ended.
    """
    config = recorded_config(trial)
    names = _names_of_copies(dict(named_files(config)))
    if names.get(DATA_KEY) not in (results.files if results else ()):
        names[DATA_KEY] = f"sha256:{trial.data.digest}"
    config = with_files(config, lambda key, _: names[key])
    if results is not None:
        config[RESULTS_KEY] = asdict(results)
    return yaml.dump(
        config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
    )


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes repeated objects in full, without YAML aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _is_copied(data: Path) -> bool:
    """Whether a file of data is small enough for a copy in each trial's run."""
    return data.is_file() and data.stat().st_size <= MAX_COPIED_DATA_BYTES


def _names_of_copies(files: Mapping[str, str]) -> dict[str, str]:
    """Returns the names of the copies of `named_files`, by dotted key."""
    names: dict[str, str] = {}
    for key, path in files.items():
        group, suffix = key.partition(".")[0], Path(path).suffix
        stem = f"given_{group}" if key == f"{group}.path" else f"given_{group}_{len(names) + 1}"
        names[key] = f"{stem}{suffix if suffix in FILE_SUFFIXES else FILE_SUFFIXES[0]}"
    return names


def is_file_of_run(name: str) -> bool:
    """Whether an artifact has the name of the config file or of a file that may be beside it."""
    return name == FILE_NAME or bool(COPY_NAME.fullmatch(name))


def read(path: Path, data: str | None = None) -> tuple[Trial, RecordedResults | None]:
    """Reads a run's config file, which may come from someone else.

    The file is read as plain data. It can only name files that are beside it.

    Args:
        path: The config file.
        data: Path of the data, if they were not copied. By default they are looked for beside it.

    Returns:
        The trial, and the results of the run; None if the file has none.

    Raises:
        Invalid: The file is not a valid config file, or a file has another content than the one
            that ran.
    """
    try:
        _, config = safe_yaml.read(path, MAX_FILE_BYTES, MAX_FILE_VALUES)
    except ValueError as error:
        raise Invalid("config", path, str(error)) from error
    if not isinstance(config, dict):
        raise Invalid("config", path, "must be keys and values")
    results = _parse_results(path, config.pop(RESULTS_KEY)) if RESULTS_KEY in config else None

    def path_of_copy(key: str, name: Any) -> str:
        if key == DATA_KEY and REFERENCE.fullmatch(str(name)):
            kind = DATASETS.get(str(config["data"].get("name")), DataSet)
            return _data_at(kind, data, name) or _data_beside(kind, path, name)
        return str(_checked_file(path, key, name, results))

    config = with_files(config, path_of_copy)
    _require_plugins(config)
    return parse(config), results


def _require_plugins(config: Mapping[str, Any]) -> None:
    """Raises `Invalid` if a component is of a plugin that this process has not loaded.

    A config file cannot load one: it may come from someone else.
    """
    origins = config.get("components")
    if not isinstance(origins, dict):
        return
    registries: Mapping[str, Iterable[str]] = {**REGISTRIES, "compare": STRATEGIES}
    for group, origin in origins.items():
        match, kind = ORIGIN_PATTERN.fullmatch(str(origin)), str(group).partition(".")[0]
        name = _component_name(config, str(group))
        if match and kind in registries and name not in list(registries[kind]):
            reason = f"is of a file that was not named; add {FLAG} {match[1]}"
            raise Invalid(f"components.{group}", match[0], reason)


def _component_name(config: Mapping[str, Any], group: str) -> Any:
    """Returns the name of a component in a config, by its key in `components`."""
    if group.startswith("metric."):
        return group.removeprefix("metric.")
    path = {"loss": ("train", "loss"), "learning_rate": ("optimizer", "schedule", "name")}
    value: Any = config
    for key in path.get(group, (group, "name")):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _parse_results(path: Path, block: Any) -> RecordedResults:
    """Returns the results in a config file, after a check of their types."""
    try:
        results = RecordedResults(**block)
        points = [point for curve in results.curves.values() for point in curve.items()]
        numbers = [*results.metrics.values(), *(value for _, value in points)]
        texts = [results.trial, results.run, results.code, results.status, results.reason]
        texts += [results.weights_sha256, *results.metrics, *results.curves]
        pairs = [*results.environment.items(), *results.files.items()]
        texts += [t for pair in pairs for t in pair]
        all_texts = all(isinstance(t, str) for t in texts)
        if not (all_texts and all(isinstance(epoch, int) for epoch, _ in points)):
            raise TypeError("texts and numbers")
        if not all(isinstance(float(n), float) and not isinstance(n, str) for n in numbers):
            raise TypeError("numbers")
        return results
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Invalid(RESULTS_KEY, path, "must be as a run has written it") from error


def _data_at(kind: type[DataSet], path: str | None, reference: str) -> str | None:
    """Returns the path, after a check that the data there have this digest; None if it is None."""
    if path is None:
        return None
    try:
        digest = kind.digest_of(path)
    except Invalid as error:
        raise Invalid("--data", path, error.allowed) from error
    if f"sha256:{digest}" != reference:
        raise Invalid("--data", path, "another content than the one that ran")
    return path


def _data_beside(kind: type[DataSet], config: Path, reference: str) -> str:
    """Returns the path of the data with this digest beside the config file, else the reference."""
    for name in DATA_NAMES:
        data = config.parent / name
        links = [p for p in (data, *(data.iterdir() if data.is_dir() else ())) if p.is_symlink()]
        if data.exists() and not links:
            with suppress(Invalid):  # they are not data of this kind
                if f"sha256:{kind.digest_of(str(data))}" == reference:
                    return str(data)
    return reference


def _checked_file(config: Path, key: str, name: Any, results: RecordedResults | None) -> Path:
    """Returns the path of a file beside the config file, after a check of its name and content."""
    digests = results.files if results else {}
    if not isinstance(name, str) or Path(name).name != name or name not in digests:
        raise Invalid(key, name, f"must be a file beside the config, named in `{RESULTS_KEY}`")
    file = config.parent / name
    if file.is_symlink() or not file.is_file():
        raise Invalid(key, name, f"no such file beside {config.name}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != digests[name]:
        raise Invalid(key, name, "another content than the one that ran")
    return file
