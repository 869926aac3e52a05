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
_HELM: Final = ROOT / "docs" / "how-to" / "helm.md"
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


def test_keda_asks_brokers_with_tls_as_the_page_says(cluster: ControlPlane, manifests: Path) -> None:
    folder = manifests / "overlays" / "keda-tls"
    folder.mkdir()
    for title, content in pages.titled(_PAGE).items():
        if title.startswith("keda-tls/"):
            (folder / Path(title).name).write_text(content.replace("namespace: rillcast", "namespace: keda-tls"))
    cluster.kubectl("create", "namespace", "keda-tls")
    apply(cluster, folder)
    (trigger,) = cluster.get("scaledobject", "rillcast", "--namespace", "keda-tls")["spec"]["triggers"]
    assert cluster.get("triggerauthentication", trigger["authenticationRef"]["name"], "--namespace", "keda-tls")


def volume(cluster: ControlPlane, name: str, namespace: str, claim: str) -> None:
    """Make a volume for a claim; no storage class makes one here."""
    access = {"accessModes": ["ReadWriteMany"], "capacity": {"storage": "10Gi"}, "hostPath": {"path": "/models"}}
    spec = access | {"claimRef": {"namespace": namespace, "name": claim}}
    cluster.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec})


def pushed(cluster: ControlPlane, namespace: str, job: str) -> bool:
    """Return whether a Job has ended well: PodSecurity let its pod in, and a node ran it."""
    return bool(cluster.get("job", job, "--namespace", namespace)["status"].get("succeeded"))


def test_the_first_model_of_the_retraining_loop_is_pushed_under_pod_security(
    cluster: ControlPlane, manifests: Path
) -> None:
    folder = overlay_of(manifests, "retrained", component="retraining")
    said = apply(cluster, folder)
    assert "Warning" not in said
    volume(cluster, "retrained", "retrained", "rillcast-models")
    cluster.wait("the first model", lambda: pushed(cluster, "retrained", "rillcast-first-model"))
    cluster.kubectl("create", "job", "night", "--from=cronjob/rillcast-retraining", "--namespace", "retrained")
    cluster.wait("a night", lambda: pushed(cluster, "retrained", "night"))
    cluster.wait("a member", lambda: ready(cluster, "retrained") == 1)


def test_an_installation_that_waits_has_its_first_model(cluster: ControlPlane, tmp_path: Path) -> None:
    cluster.kubectl("create", "namespace", "first")
    cluster.kubectl("label", "namespace", "first", "pod-security.kubernetes.io/enforce=restricted")
    claim = yaml.safe_load((ROOT / "deploy/kubernetes/components/retraining/registry.yaml").read_text())
    cluster.apply(claim | {"metadata": {"name": "models", "namespace": "first"}})
    volume(cluster, "first", "first", "models")
    values = {"model": {"reference": "/registry@live"}}
    values["modelRegistry"] = {"existingClaim": "models", "first": "universal:1h"}
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    cluster.helm(
        "install", "first", _CHART, "--namespace", "first", "--values", str(tmp_path / "values.yaml"),
        "--wait", "--timeout", "90s",
    )  # fmt: skip
    assert ready(cluster, "first", "first") == 2
    cluster.helm("uninstall", "first", "--namespace", "first", "--wait")


def test_the_commands_of_the_page_on_helm_as_they_stand(cluster: ControlPlane, registry: str, tmp_path: Path) -> None:
    """As a new user gives them in a checkout; the registry is one without TLS, and nothing else differs."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    (tmp_path / "sales.yaml").write_text(pages.titled(_HELM)["sales.yaml"])
    install, upgrade, publish, install_published = pages.commands(_HELM)

    def run(command: str) -> None:
        plain = re.sub(r"^(.*oci://.*)$", r"\1 --plain-http", command, flags=re.MULTILINE)
        cluster.shell(f"cd {tmp_path}\n{plain.replace('registry.example', registry)}")

    run(install)
    cluster.wait("two members", lambda: ready(cluster, "forecasts", "sales") == 2)
    run(upgrade)
    run(publish)
    cluster.helm("uninstall", "sales", "--namespace", "forecasts", "--wait")
    run(install_published)
    cluster.wait("two members", lambda: ready(cluster, "forecasts", "sales") == 2)
    cluster.helm("uninstall", "sales", "--namespace", "forecasts", "--wait")


def test_the_chart_installs_upgrades_scales_and_rolls_back(cluster: ControlPlane, tmp_path: Path) -> None:
    cluster.kubectl("create", "namespace", "sales")
    cluster.kubectl("label", "namespace", "sales", "pod-security.kubernetes.io/enforce=restricted")
    values = tmp_path / "sales.yaml"
    values.write_text(pages.titled(_HELM)["sales.yaml"])
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
