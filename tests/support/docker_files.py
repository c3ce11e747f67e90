"""Reads the files of `docker/` as Compose and an image builder do."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.extras import command

DOCKER = Path(__file__).parents[2] / "docker"
COMPOSE = DOCKER / "compose.yaml"


def composed(env: Mapping[str, str], file: str | Path = os.devnull) -> dict[str, Any]:
    """Returns `compose.yaml` as Compose resolves it.

    Args:
        env: Environment variables.
        file: A file of further variables, as `.env`.

    Raises:
        ValueError: Compose refuses the file, or prints a warning.
    """
    base = [command("docker-compose"), "--file", COMPOSE, "--env-file", file]
    process = subprocess.run(
        [*base, "config", "--format=json"], env=env, capture_output=True, text=True, check=False
    )
    if process.returncode or process.stderr:
        raise ValueError(process.stderr)
    config: dict[str, Any] = json.loads(process.stdout)
    return config


def variables(file: Path) -> dict[str, str]:
    """The variables in a file that `docker/secrets.sh` has written."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def in_the_image(instruction: str) -> str:
    """The arguments of an instruction that the Dockerfile has once."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    (arguments,) = re.findall(rf"^{instruction} (.+)$", text, re.M)
    return str(arguments)


def seconds(duration: str) -> int:
    """Seconds of a duration in Compose's notation, such as `1m30s`."""
    return sum(int(n) * {"m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([ms])", duration))
