"""Files for those who run the service: what they name exists, and what they promise about ending in time holds."""

from __future__ import annotations

import configparser
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient
from tests.serving.doubles import ListMaker

from taiji.serving.app import build_app
from taiji.serving.clock import SteadyClock
from taiji.serving.gate import PROBES
from taiji.serving.keys import ENVIRONMENT, Keyring
from taiji.serving.scorers import Scorers
from taiji.serving.settings import PASSWORD, ServingSettings
from taiji.serving.store import Store

DEPLOY = Path(__file__).parents[2] / "deploy"


def settings_of(arguments: list[str]) -> ServingSettings:
    """The settings that a command line sets."""
    values = dict(
        re.fullmatch(r"(?:--set=)?serving\.(\w+)=(.*)", word).groups() for word in arguments if "serving." in word
    )  # type: ignore[union-attr]
    return ServingSettings.model_validate(values)


def ends_in_s(settings: ServingSettings) -> float:
    """Longest time from SIGTERM to the end of the supervisor, which ends releases' workers after the HTTP processes'
    drain."""
    return settings.worker.grace_s + settings.drain_s + 5


@pytest.fixture(scope="module")
def pod() -> dict[str, Any]:
    made = {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
    assert set(made) == {"Deployment", "Service", "PodDisruptionBudget"}
    spec = made["Deployment"]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert labels == spec["selector"]["matchLabels"] == made["Service"]["spec"]["selector"]
    assert labels == made["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]
    assert made["Service"]["spec"]["ports"][0]["targetPort"] == "http"
    return dict(spec["template"]["spec"])


def test_the_pods_are_probed_ended_in_time_and_told_no_secret(pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    settings = settings_of(container["args"])
    assert settings.port == container["ports"][0]["containerPort"] and settings.host == "0.0.0.0"
    assert pod["terminationGracePeriodSeconds"] > ends_in_s(settings) and settings.drain_s > 0
    assert settings.drain_s > 2 * container["readinessProbe"]["periodSeconds"]
    assert settings.health_port == container["ports"][1]["containerPort"]
    for probe, port in {"startupProbe": "health", "livenessProbe": "health", "readinessProbe": "http"}.items():
        assert container[probe]["httpGet"]["path"] in PROBES and container[probe]["httpGet"]["port"] == port
    assert {entry["name"] for entry in container["env"]} == {PASSWORD, ENVIRONMENT}
    assert all("secretKeyRef" in entry["valueFrom"] for entry in container["env"])
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]} and container["resources"]["limits"]["memory"]


def test_the_container_runs_the_service_as_nobody_in_particular(pod: dict[str, Any]) -> None:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    steps = [line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#")]
    last = dict(steps)
    assert json.loads(last["ENTRYPOINT"])[:2] == ["taiji", "serve"] and settings_of(json.loads(last["CMD"])).drain_s > 0
    assert last["USER"] == str(pod["securityContext"]["runAsUser"]) and last["EXPOSE"] == "8080"
    assert json.loads(last["ENTRYPOINT"])[2] == last["VOLUME"] == pod["containers"][0]["volumeMounts"][0]["mountPath"]
    assert "/healthz" in last["HEALTHCHECK"] and "PYTHONSAFEPATH=1" in last["ENV"]


def test_the_container_is_made_of_the_package_alone() -> None:
    kept = {line[1:] for line in (DEPLOY.parent / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
    assert kept == {"src", "pyproject.toml", "constraints.txt", project["readme"], *project["license-files"]}


def test_the_unit_ends_in_time_and_is_what_systemd_reads(tmp_path: Path) -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "taiji.service")
    service = unit["Service"]
    settings = settings_of(service["ExecStart"].split())
    assert float(service["TimeoutStopSec"]) > ends_in_s(settings) and service["KillMode"] == "mixed"
    assert " serve " in service["ExecStart"] and settings.keys is not None
    if shutil.which("systemd-analyze"):
        here = tmp_path / "taiji.service"
        here.write_text((DEPLOY / "taiji.service").read_text().replace("/opt/taiji/bin/taiji", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", str(here)], capture_output=True, text=True)
        assert "Unknown" not in done.stderr and "Failed to parse" not in done.stderr, done.stderr


def expressions() -> Iterator[str]:
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "warn") and rule["for"]
            yield rule["expr"]
    for panel in json.loads((DEPLOY / "grafana.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def test_alerts_and_dashboard_ask_for_metrics_that_there_are(make_store: Callable[..., Store]) -> None:
    store = make_store()
    scorers = Scorers(store, lambda run: ListMaker())
    app = build_app(store, scorers, ServingSettings(), Keyring(), SteadyClock())
    with TestClient(app, base_url="http://localhost") as client:
        client.get("/v1/features/u1")
        found = client.get("/metrics").text
    there = set(re.findall(r"^(?:# TYPE )?(taiji_\w+)", found, re.MULTILINE))
    there |= {f"{name}_bucket" for name in there}
    asked = [set(re.findall(r"taiji_\w+", expression)) for expression in expressions()]
    assert len(asked) > 20 and all(asked) and set().union(*asked) <= there, set().union(*asked) - there
    assert all(expression.count("(") == expression.count(")") for expression in expressions())
