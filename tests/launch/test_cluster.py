"""Joining and starting clusters, each in a new process. A wrong address fails within seconds."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from masksweep import sweeps
from masksweep.strategies.errors import Invalid
from masksweep.sweeps.launch import cluster
from tests.support.ray_head import Head, ray_head
from tests.support.ray_join import TOKEN, WRONG, join


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head(**TOKEN) as started_head:
        yield started_head


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a server that is not Ray."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("way", ["node", "laptop", "auto"])
def test_a_cluster_is_joined_and_the_code_travels(head: Head, way: str, tmp_path: Path) -> None:
    address = {"node": head.address, "laptop": head.client, "auto": "auto"}[way]
    process = join(tmp_path, address, **TOKEN, RAY_ADDRESS=head.address if way == "auto" else "")
    assert process.returncode == 0, process.stderr
    output: dict[str, Any] = json.loads(process.stdout)
    assert (output["nodes"], output["CPU"], output["slots"]) == (1, 2, 2)
    assert 0 <= output["free"] <= 2
    assert output["address"].endswith(head.address.partition(":")[2])
    assert output["own"]
    assert output["left"]
    assert output["code"].endswith("sweeps/__init__.py")
    assert Path(output["code"]) != Path(sweeps.__file__)


@pytest.mark.parametrize("refusals", [0, 2, 3])
def test_a_busy_head_gets_three_tries_to_start_rays_client_server(
    refusals: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray.init` is replaced, because a head that fails this way cannot be produced on purpose."""
    calls: list[str] = []

    def refuse(address: str, **_: Any) -> None:
        calls.append(address)
        if len(calls) <= refusals:
            raise ConnectionAbortedError("Starting Ray client server failed")

    monkeypatch.setattr(cluster, "_init", refuse)
    monkeypatch.setattr(cluster, "check_address", lambda address: None)
    pauses = tuple(0.0 for _ in cluster.JOIN_PAUSES_SECONDS)
    monkeypatch.setattr(cluster, "JOIN_PAUSES_SECONDS", pauses)
    if refusals < 3:
        cluster._join("ray://127.0.0.1:1")
        assert len(calls) == refusals + 1
    else:
        with pytest.raises(Invalid, match="no Ray cluster there: Starting Ray client server"):
            cluster._join("ray://127.0.0.1:1")
        assert len(calls) == 3


@pytest.mark.parametrize(
    ("way", "env", "said"),
    [
        ("node", {}, "it asks for a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or keep"),
        ("laptop", {}, "it asks for a token"),
        ("auto", TOKEN | {"RAY_AUTH_TOKEN": ""}, "it asks for a token"),
        ("node", WRONG, "it refuses this token"),
        ("laptop", WRONG, "it refuses this token"),
    ],
)
def test_a_cluster_that_refuses_the_token_is_told_soon_in_one_line(
    head: Head, way: str, env: dict[str, str], said: str, tmp_path: Path
) -> None:
    address = {"node": head.address, "laptop": head.client, "auto": "auto"}[way]
    start = time.monotonic()
    home = {"HOME": str(tmp_path), "RAY_ADDRESS": head.address if way == "auto" else ""}
    process = join(tmp_path, address, **home, **env)
    assert time.monotonic() - start < 30
    assert process.stderr.startswith(f"launch.address={address}: {said}")
    assert len(process.stderr.splitlines()) == 1
    assert WRONG["RAY_AUTH_TOKEN"] not in process.stderr


def test_without_an_address_ray_starts_here_whatever_runs_beside(
    head: Head, tmp_path: Path
) -> None:
    process = join(tmp_path, None, RAY_ADDRESS=head.address, HOME=str(head.home))
    assert process.returncode == 0, process.stderr
    output = json.loads(process.stdout)
    assert not output["address"].endswith(head.address.partition(":")[2])
    assert output["own"]
    assert Path(output["code"]) == Path(sweeps.__file__)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "Connection refused"),
        ("nobody.invalid:6379", ""),
        ("http://127.0.0.1:8265", "must be auto, host:port or ray://host:port"),
        ("ray://127.0.0.1", "must be auto, host:port or ray://host:port"),
        ("ray://127.0.0.1:WEB", "what answers at 127.0.0.1:WEB is not Ray"),
        ("auto", "Connection refused"),
    ],
)
def test_what_is_no_cluster_is_told_soon_in_one_line(
    web: int, address: str, said: str, tmp_path: Path
) -> None:
    address, said = (text.replace("WEB", str(web)) for text in (address, said))
    start = time.monotonic()
    process = join(tmp_path, address, RAY_ADDRESS="127.0.0.1:1")
    assert time.monotonic() - start < 30
    assert process.stderr.startswith(f"launch.address={address}: no Ray cluster there: {said}")
    assert len(process.stderr.splitlines()) == 1
