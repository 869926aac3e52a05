"""The manifests and the chart on a real API server: what it accepts, and what it does with them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane
from tests.support import pages
from tests.support.paths import ROOT

_CHART: Final = str(ROOT / "deploy" / "helm" / "rillcast")
_PAGE: Final = ROOT / "docs" / "how-to" / "kubernetes.md"
_DRILLS: Final = ROOT / "docs" / "how-to" / "drills.md"


def stateful_set(cluster: ControlPlane, namespace: str, name: str = "rillcast") -> Any:
    return cluster.get("statefulset", name, "--namespace", namespace)


def ready(cluster: ControlPlane, namespace: str, name: str = "rillcast") -> int:
    return int(stateful_set(cluster, namespace, name)["status"].get("readyReplicas", 0))


def apply(cluster: ControlPlane, overlay: Path) -> str:
    return cluster.kubectl("apply", "--validate=strict", "--kustomize", str(overlay))


def overlay_of(manifests: Path, namespace: str, *, replicas: bool = False, component: str = "") -> Path:
    """Write an overlay of a user: the base in a namespace, with a number of members or an autoscaler."""
    folder = manifests / "overlays" / namespace
    folder.mkdir(exist_ok=True)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": namespace, "labels": labels}
    (folder / "namespace.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    )
    document: dict[str, Any] = {"namespace": namespace, "resources": ["namespace.yaml", "../../base"]}
    if component:
        document["components"] = [f"../../components/{component}"]
    if replicas:
        patch = [{"op": "add", "path": "/spec/replicas", "value": 4}]
        document["patches"] = [{"target": {"kind": "StatefulSet"}, "patch": json.dumps(patch)}]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return folder


@pytest.mark.parametrize("overlay", ["cpu", "dev", "gpu"])
def test_an_overlay_is_accepted_whole_and_runs(cluster: ControlPlane, manifests: Path, overlay: str) -> None:
    folder = manifests / "overlays" / overlay
    namespace = yaml.safe_load((folder / "kustomization.yaml").read_text())["namespace"]
    said = apply(cluster, folder)
    assert "Warning" not in said
    if overlay == "gpu":  # kwok's nodes have no GPU, so the members stay pending: accepted is all that is shown
        cluster.kubectl("delete", "namespace", namespace, "--wait=true")
        return
    members = 1  # no autoscaler runs here, and cpu states no number
    cluster.wait("its members", lambda: ready(cluster, namespace) == members)
    assert "statefulset.apps/rillcast unchanged" in apply(cluster, folder), "a second apply rolls the members"
    cluster.kubectl("delete", "namespace", namespace, "--wait=true")


@pytest.mark.parametrize("component", ["hpa", "keda"])
def test_an_autoscaler_after_a_fixed_number_keeps_the_members_by_the_documented_way(
    cluster: ControlPlane, manifests: Path, component: str
) -> None:
    namespace = f"migrated-{component}"
    apply(cluster, overlay_of(manifests, namespace, replicas=True))
    cluster.wait("four members", lambda: ready(cluster, namespace) == 4)
    (command,) = (block for block in pages.commands(_PAGE) if "set-last-applied" in block)
    cluster.shell(command.replace("--namespace rillcast ", f"--namespace {namespace} "))
    assert stateful_set(cluster, namespace)["spec"]["replicas"] == 4
    apply(cluster, overlay_of(manifests, namespace, component=component))
    assert stateful_set(cluster, namespace)["spec"]["replicas"] == 4
    assert ready(cluster, namespace) == 4
    for block in pages.section(_DRILLS, "An autoscaler takes over"):
        cluster.shell(block.replace("--namespace rillcast ", f"--namespace {namespace} "))
        if "rollout" in block:
            apply(cluster, overlay_of(manifests, namespace, component=component))


def test_an_autoscaler_without_that_way_loses_the_members(cluster: ControlPlane, manifests: Path) -> None:
    """Why the page says so: if an API server ever keeps the number, the page can be shorter."""
    apply(cluster, overlay_of(manifests, "lost", replicas=True))
    apply(cluster, overlay_of(manifests, "lost", component="keda"))
    assert stateful_set(cluster, "lost")["spec"]["replicas"] == 1


def test_a_changed_setting_rolls_the_members_and_a_second_drain_waits(cluster: ControlPlane, manifests: Path) -> None:
    folder = overlay_of(manifests, "rolled", replicas=True)
    apply(cluster, folder)
    cluster.wait("four members", lambda: ready(cluster, "rolled") == 4)
    before = stateful_set(cluster, "rolled")["status"]["updateRevision"]
    toml = manifests / "base" / "rillcast.toml"
    toml.write_text(toml.read_text().replace('topic = "forecasts"', 'topic = "other"'))
    apply(cluster, folder)
    cluster.kubectl("rollout", "status", "statefulset/rillcast", "--namespace", "rolled", "--timeout=180s")
    status = stateful_set(cluster, "rolled")["status"]
    assert status["currentRevision"] == status["updateRevision"] != before
    cluster.wait("the budget", lambda: allowed(cluster, "rolled", "rillcast") == 1)
    cluster.kubectl("cordon", "--selector", "type=kwok")  # kwok's pods are back within a moment otherwise
    try:
        assert evicted(cluster, "rolled", "rillcast-0")
        assert not evicted(cluster, "rolled", "rillcast-1"), "the budget lets one member go at a time"
    finally:
        cluster.kubectl("uncordon", "--selector", "type=kwok")


def allowed(cluster: ControlPlane, namespace: str, budget: str) -> int:
    found = cluster.get("poddisruptionbudget", budget, "--namespace", namespace)
    return int(found.get("status", {}).get("disruptionsAllowed", 0))


def evicted(cluster: ControlPlane, namespace: str, pod: str) -> bool:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    said = cluster.kubectl("create", "--raw", path, "--filename", "-", stdin=json.dumps(eviction), check=False)
    return "disruption budget" not in said and "TooManyRequests" not in said


def test_two_services_of_a_namespace_do_not_select_each_other(cluster: ControlPlane, manifests: Path) -> None:
    blocks = pages.titled(_PAGE)
    cluster.kubectl("create", "namespace", "forecasts")
    for name in ("north", "south"):
        folder = manifests / "overlays" / name
        folder.mkdir()
        for file in ("kustomization.yaml", "names.yaml"):
            (folder / file).write_text(blocks[f"north/{file}"].replace("north", name))
        apply(cluster, folder)
    for name in ("north", "south"):
        cluster.wait("its member", lambda name=name: ready(cluster, "forecasts", f"{name}-rillcast") == 1)  # type: ignore[misc]
    cluster.wait("both budgets", lambda: all(healthy(cluster, f"{n}-rillcast") == 1 for n in ("north", "south")))
    assert evicted(cluster, "forecasts", "north-rillcast-0")
    assert evicted(cluster, "forecasts", "south-rillcast-0"), "each service has a budget of its own"


def healthy(cluster: ControlPlane, budget: str) -> int:
    status = cluster.get("poddisruptionbudget", budget, "--namespace", "forecasts").get("status", {})
    assert status.get("expectedPods", 0) <= 1, "the budget counts the pods of the other service"
    return int(status.get("currentHealthy", 0))


def test_the_chart_installs_upgrades_scales_and_rolls_back(cluster: ControlPlane, tmp_path: Path) -> None:
    cluster.kubectl("create", "namespace", "sales")
    cluster.kubectl("label", "namespace", "sales", "pod-security.kubernetes.io/enforce=restricted")
    values = tmp_path / "sales.yaml"
    values.write_text(pages.titled(ROOT / "docs" / "how-to" / "helm.md")["sales.yaml"])
    in_place = ("sales", _CHART, "--namespace", "sales", "--values", str(values))
    cluster.helm("install", *in_place, "--set", "replicas=4")
    cluster.wait("four members", lambda: ready(cluster, "sales", "sales") == 4)
    settings = cluster.get("configmap", "sales", "--namespace", "sales")["data"]["rillcast.toml"]
    assert re.search('group_id = "sales"', settings)

    cluster.helm("upgrade", *in_place, "--set", "autoscaling.kind=hpa,monitoring.podMonitor.enabled=true")
    assert stateful_set(cluster, "sales", "sales")["spec"]["replicas"] == 4, "an autoscaler takes over what runs"
    cluster.kubectl("scale", "statefulset/sales", "--replicas=5", "--namespace", "sales")
    cluster.wait("five members", lambda: ready(cluster, "sales", "sales") == 5)
    cluster.helm("upgrade", *in_place, "--set", "autoscaling.kind=keda,monitoring.rules.enabled=true")
    assert stateful_set(cluster, "sales", "sales")["spec"]["replicas"] == 5
    cluster.helm("upgrade", *in_place, "--set", "replicas=3", "--set", "settings.worker.commit_interval_s=2")
    cluster.kubectl("rollout", "status", "statefulset/sales", "--namespace", "sales", "--timeout=180s")
    cluster.helm("rollback", "sales", "1", "--namespace", "sales")
    cluster.kubectl("rollout", "status", "statefulset/sales", "--namespace", "sales", "--timeout=180s")
    assert stateful_set(cluster, "sales", "sales")["spec"]["replicas"] == 4
    restored = cluster.get("configmap", "sales", "--namespace", "sales")["data"]["rillcast.toml"]
    assert restored == settings
    cluster.helm("uninstall", "sales", "--namespace", "sales", "--wait")
