"""What the files of `docker/` say, as Compose and a builder of images read them."""

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
    """What Compose makes of its file, with variables from `env`, and from `file` as its .env.

    Raises `ValueError` for what Compose refuses or warns of.
    """
    base = [command("docker-compose"), "--file", COMPOSE, "--env-file", file]
    done = subprocess.run(
        [*base, "config", "--format=json"], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode or done.stderr:
        raise ValueError(done.stderr)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def variables(file: Path) -> dict[str, str]:
    """What `docker/secrets.sh` wrote."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def in_the_image(instruction: str) -> str:
    """What follows the Dockerfile's one instruction of that name."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    (found,) = re.findall(rf"^{instruction} (.+)$", text, re.M)
    return str(found)


def seconds(duration: str) -> int:
    """As Compose writes them: 1m30s."""
    return sum(int(n) * {"m": 60, "s": 1}[unit] for n, unit in re.findall(r"(\d+)([ms])", duration))
