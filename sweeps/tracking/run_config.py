"""A run's config file: all that it takes to run a trial again, and what it found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from masksweep.strategies.base import Invalid
from masksweep.sweeps.common import safe_yaml
from masksweep.sweeps.common.limits import LARGE
from masksweep.sweeps.common.provenance import code_version
from masksweep.sweeps.config.trial import Trial, parse, recorded
from masksweep.sweeps.results import TrialResult

LONG = 2**24
"""Bytes of a config file, most of them curves."""
VALUES = 500_000
"""Values of a config file: curves of 25 metrics over 10,000 epochs, or masks written out."""
NAME = "config.yaml"
BLOCK = "recorded"
"""The key of what was found; all else is the trial's config."""
GIVEN = ("pattern", "held")
"""Groups whose setting `path` names a file; it travels beside the config."""
FILES = (NAME, *(f"given_{group}.npz" for group in GIVEN))
Curves = Mapping[str, Mapping[int, float]]
"""Values by epoch, by metric."""


@dataclass(frozen=True)
class Recorded:
    """What a run found."""

    trial: str
    """Identity of the config that ran: a file that was changed since has another."""
    run: str
    """As the run's tag `trial.run`."""
    code: str
    status: str
    reason: str = ""
    weights_sha256: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Curves = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of the files beside the config, by name."""


def files(trial: Trial) -> dict[str, bytes]:
    """The files that the trial's config names, as they travel with it.

    None of them where one is not as it was when the trial was planned, or is large: what was found
    is kept all the same, and `read` will say that the file is not there.
    """
    found = {}
    with suppress(OSError):
        for group, settings in _with_paths(recorded(trial)).items():
            path = Path(settings["path"])
            if path.stat().st_size > LARGE:
                return {}
            found[f"given_{group}.npz"] = path.read_bytes()
        return found if not found or parse(trial.resolved()).id == trial.id else {}
    return {}


def of(
    trial: Trial,
    run: str,
    result: TrialResult,
    curves: Curves,
    given: Mapping[str, bytes],
    failed: bool = False,
) -> Recorded:
    """What is kept of a trial that has ended; `given` are its `files`."""
    told = result.artifacts.get("environment.txt", b"").decode().splitlines()
    return Recorded(
        trial=trial.id,
        run=run,
        code=code_version(),
        status="failed" if failed else result.status,
        reason=result.reason,
        weights_sha256=result.tags.get("trial.weights_sha256", ""),
        metrics={k: float(v) for k, v in sorted(result.metrics.items())},
        curves={k: dict(v) for k, v in curves.items()},
        environment=dict(line.split(": ", 1) for line in told if ": " in line),
        files={name: hashlib.sha256(content).hexdigest() for name, content in given.items()},
    )


def text(trial: Trial, found: Recorded | None = None) -> str:
    """The file's content, with what was found if the trial has ended well."""
    config = recorded(trial)
    for group, settings in _with_paths(config).items():
        settings["path"] = f"given_{group}.npz"
    if found is not None:
        config[BLOCK] = asdict(found)
    return yaml.dump(
        config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None
    )


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _with_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    return {g: config[g] for g in GIVEN if config[g].get("path")}


def read(path: Path) -> tuple[Trial, Recorded | None]:
    """The trial that a run's config file describes, and what its run found if it ended well.

    The file may be a stranger's: it is read as plain data, and can name no file but those beside
    it. Raises `Invalid` where it is no such file, or a file beside it is not the one that ran.
    """
    try:
        _, config = safe_yaml.read(path, LONG, VALUES)
    except ValueError as error:
        raise Invalid("config", path, str(error)) from error
    if not isinstance(config, dict):
        raise Invalid("config", path, "must be keys and values")
    found = _recorded(path, config.pop(BLOCK)) if BLOCK in config else None
    for group in GIVEN:
        settings = config.get(group)
        if isinstance(settings, dict) and "path" in settings:
            settings["path"] = str(_beside(path, f"{group}.path", settings["path"], found))
    return parse(config), found


def _recorded(path: Path, block: Any) -> Recorded:
    try:
        found = Recorded(**block)
        points = [point for curve in found.curves.values() for point in curve.items()]
        numbers = [*found.metrics.values(), *(value for _, value in points)]
        texts = [found.trial, found.run, found.code, found.status, found.reason]
        texts += [found.weights_sha256, *found.metrics, *found.curves]
        pairs = [*found.environment.items(), *found.files.items()]
        texts += [t for pair in pairs for t in pair]
        well = all(isinstance(t, str) for t in texts)
        if not (well and all(isinstance(epoch, int) for epoch, _ in points)):
            raise TypeError("texts and numbers")
        if not all(isinstance(float(n), float) and not isinstance(n, str) for n in numbers):
            raise TypeError("numbers")
        return found
    except (TypeError, AttributeError, ValueError, OverflowError) as error:
        raise Invalid(BLOCK, path, "must be as a run has written it") from error


def _beside(config: Path, key: str, name: Any, found: Recorded | None) -> Path:
    """A file in the config's own folder, with the content that ran."""
    known = found.files if found else {}
    if not isinstance(name, str) or Path(name).name != name or name not in known:
        raise Invalid(key, name, f"must be a file beside the config, named in `{BLOCK}`")
    file = config.parent / name
    if file.is_symlink() or not file.is_file():
        raise Invalid(key, name, f"no such file beside {config.name}")
    if hashlib.sha256(file.read_bytes()).hexdigest() != known[name]:
        raise Invalid(key, name, "another content than the one that ran")
    return file
