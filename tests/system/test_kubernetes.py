"""Checks what `kubectl apply` would send: valid, restricted, without secrets. Uses no cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.server.security_utils import is_allowed_host_header

from masksweep import sweeps
from masksweep.sweeps.cli.submit import JOB_FOLDER, STOP_SECONDS, SWEEP_NAME_KEY
from tests.support.docker_files import DOCKER
from tests.support.extras import command, module

MANIFESTS = DOCKER / "kubernetes"
OVERLAYS = ("overlays/cpu", "overlays/gpu")
VERSIONS = ("1.30", "latest")
SECRET = "masksweep"
KEYS = {
    *("POSTGRES_PASSWORD", "RAY_AUTH_TOKEN", "MLFLOW_AUTH_ADMIN_PASSWORD"),
    *("MLFLOW_FLASK_SERVER_SECRET_KEY", "RUSTFS_ACCESS_KEY", "RUSTFS_SECRET_KEY"),
}
"""Names of the secrets that docker/secrets.sh writes."""

# KubeRay's schema is not installed; the keys that we use were checked against it by hand
CLUSTER = {
    *("authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "headGroupSpec"),
    *("rayVersion", "upgradeStrategy", "workerGroupSpecs"),
}
AUTOSCALER = {"idleTimeoutSeconds", "resources", "securityContext", "version", "volumeMounts"}
HEAD = {"rayStartParams", "template"}
WORKERS = HEAD | {"groupName", "maxReplicas", "minReplicas", "replicas"}
JOB = {"clusterSelector", "entrypoint", "metadata", "runtimeEnvYAML", "submissionMode"}

Object = dict[str, Any]


@cache
def built(folder: str) -> Sequence[Object]:
    return kustomized(MANIFESTS / folder)


def kustomized(folder: Path) -> list[Object]:
    process = subprocess.run(
        [command("kubectl"), "kustomize", folder], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert not process.stderr, process.stderr  # kustomize warns of deprecated fields
    return list(yaml.safe_load_all(process.stdout))


def of_kind(objects: Sequence[Object], kind: str) -> dict[str, Object]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def ray(objects: Sequence[Object]) -> Object:
    (cluster,) = of_kind(objects, "RayCluster").values()
    return cluster


def pods(objects: Sequence[Object]) -> dict[str, Object]:
    """Templates of all pods that the objects create; KubeRay's additions to Ray's are included."""
    templates = {
        o["metadata"]["name"]: o["spec"]["template"]
        for o in objects
        if o["kind"] in ("Deployment", "StatefulSet")
    }
    cluster = ray(objects)
    head = cluster["spec"]["headGroupSpec"]["template"]
    options = cluster["spec"]["autoscalerOptions"]
    autoscaler = {k: options[k] for k in ("resources", "securityContext", "volumeMounts")}
    image = head["spec"]["containers"][0]["image"]
    containers = [*head["spec"]["containers"], {"name": "autoscaler", "image": image} | autoscaler]
    templates["head"] = _of_ray(
        cluster, "head", head | {"spec": head["spec"] | {"containers": containers}}
    )
    for group in cluster["spec"]["workerGroupSpecs"]:
        templates[group["groupName"]] = _of_ray(cluster, "worker", group["template"])
    return templates


def _of_ray(cluster: Object, kind: str, template: Object) -> Object:
    labels = {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": kind}
    metadata = template.get("metadata", {})
    return template | {"metadata": metadata | {"labels": metadata.get("labels", {}) | labels}}


def containers(objects: Sequence[Object]) -> Iterator[tuple[str, Object, Object]]:
    """Yields (name as `pod/container`, container, spec of its pod)."""
    for name, pod in pods(objects).items():
        spec = pod["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            yield f"{name}/{container['name']}", container, spec


def environment(container: Object) -> dict[str, Object]:
    return {e["name"]: e for e in container.get("env", ())}


def who_reads(objects: Sequence[Object], key: str) -> set[str]:
    """The names of the containers that get this key of the Secret."""
    return {
        name
        for name, container, _ in containers(objects)
        for entry in container.get("env", ())
        if entry.get("valueFrom", {}).get("secretKeyRef", {}).get("key") == key
    }


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    assert selector is not None
    assert set(selector) <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def validate(manifest: Object, version: str) -> None:
    kubernetes = module("kubernetes_validate")
    number = kubernetes.latest_version() if version == "latest" else version
    kubernetes.validate(manifest, number, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", OVERLAYS)
def test_kubernetes_takes_every_object(folder: str, version: str) -> None:
    core = [o for o in built(folder) if not o["apiVersion"].startswith("ray.io/")]
    assert {o["kind"] for o in core} >= {"Deployment", "StatefulSet", "Service", "NetworkPolicy"}
    for manifest in core:
        validate(manifest, version)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", OVERLAYS)
def test_kubernetes_takes_the_pods_of_ray(folder: str, version: str) -> None:
    templates = pods(built(folder))
    assert templates.keys() >= {"head", "cpu"}
    for name, pod in templates.items():
        manifest = {"apiVersion": "v1", "kind": "Pod"} | pod
        manifest["metadata"] = pod["metadata"] | {"name": name}
        validate(manifest, version)


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_cluster_has_only_keys_that_kuberay_knows(folder: str) -> None:
    cluster = ray(built(folder))
    assert cluster["apiVersion"] == "ray.io/v1"
    spec = cluster["spec"]
    assert set(spec) == CLUSTER
    assert set(spec["autoscalerOptions"]) <= AUTOSCALER
    assert set(spec["headGroupSpec"]) == HEAD
    for group in spec["workerGroupSpecs"]:
        assert set(group) == WORKERS
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(v, str) for v in group["rayStartParams"].values())


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_container_is_confined_and_bounded(folder: str) -> None:
    (namespace,) = of_kind(built(folder), "Namespace").values()
    labels = namespace["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, container, pod in containers(built(folder)):
        pod_context = pod["securityContext"]
        assert pod_context["runAsNonRoot"] is True, name
        assert pod_context["runAsUser"] > 0, name
        assert pod_context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        context = container["securityContext"]
        assert context == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, (
            name
        )
        assert container["resources"]["limits"]["memory"], name
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
        assert not any("hostPort" in port for port in container.get("ports", ())), name
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}, name
        # service links would set variables that MLflow or Ray may read
        assert pod["enableServiceLinks"] is False, name


@pytest.mark.parametrize("folder", OVERLAYS)
def test_only_the_autoscaler_may_talk_to_kubernetes(folder: str) -> None:
    for name, container, pod in containers(built(folder)):
        assert pod["automountServiceAccountToken"] is False, name
        tokens = {
            volume["name"]
            for volume in pod.get("volumes", ())
            for source in volume.get("projected", {}).get("sources", ())
            if "serviceAccountToken" in source
        }
        mounted = {m["name"]: m for m in container.get("volumeMounts", ())}
        if name != "head/autoscaler":
            assert not mounted.keys() & tokens, name
        else:
            (token,) = tokens
            # Ray's autoscaler reads the token from this folder
            path = "/var/run/secrets/kubernetes.io/serviceaccount"
            assert mounted[token]["mountPath"] == path


@pytest.mark.parametrize("folder", OVERLAYS)
def test_what_is_mounted_is_there(folder: str) -> None:
    claims = of_kind(built(folder), "PersistentVolumeClaim").keys()
    sets = of_kind(built(folder), "StatefulSet").values()
    own_claims = {c["metadata"]["name"] for s in sets for c in s["spec"]["volumeClaimTemplates"]}
    used_claims = set()
    for name, container, pod in containers(built(folder)):
        volumes = {v["name"]: v for v in pod.get("volumes", ())}
        for mount in container.get("volumeMounts", ()):
            assert mount["name"] in volumes.keys() | own_claims, name
        used_claims |= {
            v["persistentVolumeClaim"]["claimName"]
            for v in volumes.values()
            if "persistentVolumeClaim" in v
        }
    assert used_claims == claims


@pytest.mark.parametrize("folder", [*OVERLAYS, "job"])
def test_no_manifest_holds_a_secret(folder: str) -> None:
    assert not of_kind(built(folder), "Secret")
    assert not of_kind(built(folder), "ConfigMap")
    for manifest in built(folder):
        text = yaml.safe_dump(manifest)
        assert not re.search(r"://[^/\s]*@", text), "a URL with a password"
        entries = re.findall(r"(?im)^\W*name: (\S*(?:passw|secret|token|key)\S*)\n.*value:", text)
        assert not entries, "a value where only a reference belongs"
        assert not re.search(r"(?i)(?:passw\w*|secret_key|token)\s*[=]", text), "in a command line"


@pytest.mark.parametrize("folder", OVERLAYS)
def test_every_reference_names_a_key_of_the_secret(folder: str) -> None:
    used_keys = set()
    for name, container, _ in containers(built(folder)):
        assert "envFrom" not in container, f"{name} is given all of it"
        for entry in container.get("env", ()):
            if "valueFrom" in entry:
                reference = entry["valueFrom"]["secretKeyRef"]
                assert set(reference) == {"name", "key"}
                assert reference["name"] == SECRET
                assert reference["key"] in KEYS
                used_keys.add(reference["key"])
    assert used_keys == {k for k in KEYS if k.startswith(("POSTGRES", "MLFLOW"))}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_passwords_are_where_they_are_needed_only(folder: str) -> None:
    objects = built(folder)
    assert who_reads(objects, "MLFLOW_AUTH_ADMIN_PASSWORD") == {"mlflow/mlflow", "head/ray-head"}
    assert who_reads(objects, "MLFLOW_FLASK_SERVER_SECRET_KEY") == {"mlflow/mlflow"}
    database = {"postgres/postgres", "mlflow/migrate", "mlflow/mlflow"}
    assert who_reads(objects, "POSTGRES_PASSWORD") == database


@pytest.mark.parametrize("folder", OVERLAYS)
def test_ray_is_of_the_version_that_is_tested(folder: str) -> None:
    pinned = re.search(r"(?m)^ray==(.+)$", (DOCKER / "constraints.txt").read_text())
    assert pinned is not None
    assert ray(built(folder))["spec"]["rayVersion"] == pinned[1]


@pytest.mark.parametrize("folder", OVERLAYS)
def test_ray_asks_for_its_own_token(folder: str) -> None:
    cluster = ray(built(folder))
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    # KubeRay keeps the token in a Secret with the cluster's name, and uses an existing one
    assert cluster["metadata"]["name"] != SECRET
    for name, container, _ in containers(built(folder)):
        # KubeRay does not overwrite variables that are set
        assert not environment(container).keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}, name


@pytest.mark.parametrize("folder", OVERLAYS)
def test_the_driver_shares_the_head_with_no_trial(folder: str) -> None:
    spec = ray(built(folder))["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    for group in spec["workerGroupSpecs"]:
        # Ray takes its CPUs from the limits; a sweep that needs a missing kind of node is refused
        assert "num-cpus" not in group["rayStartParams"]
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_only_the_gpu_overlay_asks_for_gpus() -> None:
    def cards(folder: str) -> dict[str, tuple[Any, Any]]:
        amounts = {}
        for name, container, _ in containers(built(folder)):
            spec = container["resources"]
            gpu_amounts = (
                spec["requests"].get("nvidia.com/gpu"),
                spec["limits"].get("nvidia.com/gpu"),
            )
            if any(gpu_amounts):
                amounts[name] = gpu_amounts
        return amounts

    assert cards("overlays/cpu") == {}
    assert cards("overlays/gpu") == {"gpu/ray-worker": (1, 1)}
    (toleration,) = pods(built("overlays/gpu"))["gpu"]["spec"]["tolerations"]
    assert toleration == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def test_both_kinds_of_workers_are_confined_alike() -> None:
    by_name = pods(built("overlays/gpu"))
    skip = {"containers", "tolerations"}
    cpu, gpu = (
        {k: v for k, v in by_name[n]["spec"].items() if k not in skip} for n in ("cpu", "gpu")
    )
    assert cpu == gpu
    assert environment(by_name["cpu"]["spec"]["containers"][0]) == environment(
        by_name["gpu"]["spec"]["containers"][0]
    )


@pytest.mark.parametrize("folder", OVERLAYS)
def test_nothing_is_reached_from_outside_the_cluster(folder: str) -> None:
    assert not of_kind(built(folder), "Ingress")
    for name, service in of_kind(built(folder), "Service").items():
        assert service["spec"].get("type", "ClusterIP") == "ClusterIP", name
        assert "externalIPs" not in service["spec"], name


@pytest.mark.parametrize("folder", OVERLAYS)
def test_who_may_reach_whom(folder: str) -> None:
    templates = pods(built(folder))
    labels = {name: pod["metadata"]["labels"] for name, pod in templates.items()}
    policies = of_kind(built(folder), "NetworkPolicy")
    for policy in policies.values():
        assert "Ingress" in policy["spec"]["policyTypes"]
    # selects every pod, also future ones, and allows no incoming traffic
    assert policies["deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}
    allowed = {
        name: set().union(*(_lets_in(p, labels) for p in policies.values() if _for(p, own_labels)))
        for name, own_labels in labels.items()
    }
    nodes = {(name, None) for name in templates if name not in ("postgres", "mlflow")}
    expected = {name: nodes for name, _ in nodes}
    expected["head"] = nodes | {("kuberay-operator", 8265)}
    assert allowed == expected | {"mlflow": {("head", 5000)}, "postgres": {("mlflow", 5432)}}
    assert policies["postgres"]["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policies["postgres"]["spec"]


def _for(policy: Object, labels: Mapping[str, str]) -> bool:
    return selects(policy["spec"]["podSelector"], labels)


def _lets_in(policy: Object, labels: Mapping[str, Mapping[str, str]]) -> set[tuple[str, Any]]:
    """The (source, port) pairs that a policy allows; port None is any port."""
    sources = set()
    for rule in policy["spec"].get("ingress", ()):
        ports = [p["port"] for p in rule.get("ports", ())] or [None]
        for source in rule["from"]:  # KeyError if missing: such a rule allows every source
            if "namespaceSelector" in source:
                namespace = source["namespaceSelector"]["matchLabels"]
                assert namespace.keys() == {"kubernetes.io/metadata.name"}
                pod_labels = source["podSelector"]["matchLabels"]
                names = {pod_labels["app.kubernetes.io/component"]}
            else:
                assert set(source) == {"podSelector"}
                names = {
                    n
                    for n, pod_labels in labels.items()
                    if selects(source["podSelector"], pod_labels)
                }
            sources |= {(name, port) for name in names for port in ports}
    return sources


@pytest.mark.parametrize("folder", OVERLAYS)
def test_services_reach_the_pods_that_they_are_for(folder: str) -> None:
    by_name = pods(built(folder))
    for name, service in of_kind(built(folder), "Service").items():
        selector = {"matchLabels": service["spec"]["selector"]}
        assert [n for n, p in by_name.items() if selects(selector, p["metadata"]["labels"])] == [
            name
        ]
        ports = {
            p["containerPort"]: p["name"]
            for c in by_name[name]["spec"]["containers"]
            for p in c["ports"]
        }
        for port in service["spec"]["ports"]:
            assert ports[port["port"]] == port.get("targetPort", ports[port["port"]])


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow's import
def test_mlflow_understands_how_it_is_started() -> None:
    from mlflow.cli import server

    templates = pods(built("overlays/cpu"))
    (container,) = templates["mlflow"]["spec"]["containers"]
    name, command, *arguments = container["command"]
    assert (name, command) == ("mlflow", "server")
    with server.make_context("server", arguments) as context:
        params = context.params
    assert params["app_name"] == "basic-auth"
    assert (params["host"], params["port"]) == ("0.0.0.0", 5000)
    assert params["artifacts_destination"] == "file:///artifacts"
    assert {m["mountPath"] for m in container["volumeMounts"]} == {"/artifacts"}
    hosts = params["allowed_hosts"].split(",")
    uri = environment(templates["head"]["spec"]["containers"][0])["MLFLOW_TRACKING_URI"]["value"]
    assert uri == "http://mlflow:5000"
    for host in ("mlflow:5000", "mlflow.masksweep.svc:5000", "localhost:5000", "127.0.0.1:9999"):
        assert is_allowed_host_header(hosts, host), host
    for host in ("evil.example", "mlflow.evil.example:5000", "localhost.evil.example:5000"):
        assert not is_allowed_host_header(hosts, host), host


@pytest.mark.parametrize("folder", OVERLAYS)
def test_images_have_a_version_and_are_replaced_everywhere(folder: str, tmp_path: Path) -> None:
    images = {name: c["image"] for name, c, _ in containers(built(folder))}
    version = sweeps.__version__
    cpu, gpu = f"masksweep-cpu:{version}", f"masksweep-gpu:{version}"
    kinds = {"gpu/ray-worker": gpu, "postgres/postgres": "postgres:17-bookworm"}
    assert images == {name: kinds.get(name, cpu) for name in images}
    overlay_folder = shutil.copytree(MANIFESTS, tmp_path / "kubernetes") / folder
    file = overlay_folder / "kustomization.yaml"
    text = file.read_text().replace("newName: ", "newName: there/")
    file.write_text(text.replace(f'newTag: "{version}"', "newTag: other"))
    replaced = {name: c["image"] for name, c, _ in containers(kustomized(overlay_folder))}
    expected = {n: f"there/{i}".replace(version, "other") for n, i in images.items()}
    assert replaced == expected | {"postgres/postgres": "postgres:17-bookworm"}


@pytest.mark.parametrize("folder", OVERLAYS)
def test_a_new_version_renews_the_nodes_of_ray_which_have_time_to_end(folder: str) -> None:
    assert ray(built(folder))["spec"]["upgradeStrategy"] == {"type": "Recreate"}
    for name, pod in pods(built(folder)).items():
        if "ray.io/cluster" in pod["metadata"]["labels"]:
            assert pod["spec"]["terminationGracePeriodSeconds"] == 60, name


@pytest.mark.parametrize("folder", OVERLAYS)
def test_pods_run_as_the_user_of_their_image(folder: str) -> None:
    (user,) = re.findall(r"--uid (\d+)", (DOCKER / "Dockerfile").read_text())
    for name, container, pod in containers(built(folder)):
        if container["image"].startswith("masksweep-"):
            context = pod["securityContext"]
            assert {context[k] for k in ("runAsUser", "runAsGroup", "fsGroup")} == {int(user)}, name


def test_the_job_is_what_submit_would_send() -> None:
    (job,) = built("job")
    spec = job["spec"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert set(spec) == JOB
    cluster = ray(built("overlays/cpu"))
    assert spec["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    assert job["metadata"]["namespace"] == cluster["metadata"]["namespace"]
    # a submitter pod would need the token, and be refused in a restricted namespace
    assert spec["submissionMode"] == "HTTPMode"
    # the same arguments as sweeps.cli.submission.prepare returns, which would compose every trial
    command = "python -m masksweep.sweeps.cli run +experiment=quickstart launch.address=auto"
    assert spec["entrypoint"] == f"mkdir -p {JOB_FOLDER} && cd {JOB_FOLDER} && exec {command}"
    experiment = yaml.safe_load((DOCKER.parent / "conf/experiment/quickstart.yaml").read_text())
    assert spec["metadata"] == {SWEEP_NAME_KEY: experiment["sweep"]["name"]}
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    assert yaml.safe_load(spec["runtimeEnvYAML"]) == {"env_vars": variables}


def test_every_file_begins_with_what_it_is_for() -> None:
    files = sorted(MANIFESTS.rglob("*.yaml"))
    assert len(files) > 5
    for file in files:
        assert file.read_text().startswith("# "), file
