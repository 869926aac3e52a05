"""The chart: what it renders is what Kustomize renders, wherever both say something of the same."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rillcast import settings
from tests.cluster import build
from tests.integration.deploy.test_kubernetes import VERSIONS, check, container, one, pod
from tests.support import pages
from tests.support.kustomize import Manifest
from tests.support.paths import ROOT

CHART = ROOT / "deploy" / "helm" / "rillcast"
PAGE = ROOT / "docs" / "how-to" / "helm.md"
LIKE_CPU = {
    "image": {"tag": "0.1.0-cpu"},
    "model": {"image": {"repository": "registry.example/rillcast-model", "tag": "1"}},
    "autoscaling": {"kind": "keda"},
    "monitoring": {"podMonitor": {"enabled": True}, "rules": {"enabled": True}},
}
LIKE_GPU = {
    "model": LIKE_CPU["model"],
    "gpu": {"enabled": True},
    "resources": {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "8Gi"}},
    "env": [
        {"name": "RILLCAST_WORKER__MAX_POLL_RECORDS", "value": "20000"},
        {"name": "RILLCAST_WORKER__BATCH_ROWS", "value": "4096"},
    ],
    "monitoring": LIKE_CPU["monitoring"],
}


@pytest.fixture(scope="module")
def helm() -> str:
    built = build.PROGRAMS.folder() / "helm"
    found = shutil.which("helm") or (str(built) if built.is_file() else None)
    if found is None:
        pytest.skip("helm is not installed; `make test-cluster` builds it from its Go module")
    return found


def render(helm: str, folder: Path, values: dict[str, Any], release: str = "rillcast") -> dict[str, Manifest]:
    """Return the manifests of a release, by kind and name."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    command = [helm, "template", release, str(CHART), "--namespace", "rillcast", "--values", str(file)]
    command += ["--kube-version", VERSIONS[-1]]  # of a cluster, which `template` does not ask
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifests = [each for each in yaml.safe_load_all(done.stdout) if each]
    found = {f"{m['kind']}/{m['metadata']['name']}": m for m in manifests}
    assert len(found) == len(manifests), "two objects of one name"
    return found


def members_of(manifest: Manifest) -> list[Manifest]:
    """Return the selectors of pods that a NetworkPolicy lets speak with its own."""
    rules = manifest["spec"].get("ingress", []) + manifest["spec"].get("egress", []) if "spec" in manifest else []
    peers = [peer for rule in rules for peer in rule.get("from", []) + rule.get("to", [])]
    return [peer["podSelector"] for peer in peers if "podSelector" in peer]


def without_names(manifest: Manifest) -> Manifest:
    """Return what does not come from the release: labels, annotations, names of a ConfigMap, pull policy."""
    found = copy.deepcopy(manifest)
    for name in ("labels", "annotations"):
        found["metadata"].pop(name, None)
    spec = found.get("spec", {})
    for place in (spec, spec.get("selector", {}), spec.get("podSelector", {}), *members_of(found)):
        place.pop("matchLabels", None)
    if found["kind"] == "Service":
        spec.pop("selector")
    if found["kind"] == "StatefulSet":
        template = spec["template"]
        template.pop("metadata")
        for each in template["spec"]["topologySpreadConstraints"]:
            each.pop("labelSelector")
        for each in template["spec"]["containers"]:
            each.pop("imagePullPolicy", None)
        for volume in template["spec"]["volumes"]:
            volume.pop("configMap", None)
    return found


@pytest.mark.parametrize(
    ("overlay", "values"), [pytest.param("cpu", LIKE_CPU, id="cpu"), pytest.param("gpu", LIKE_GPU, id="gpu")]
)
def test_the_chart_renders_what_the_overlay_renders(
    helm: str, tmp_path: Path, overlay: str, values: dict[str, Any]
) -> None:
    rendered = render(helm, tmp_path, values)
    kinds = ["ServiceAccount", "Service", "StatefulSet", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"]
    kinds += ["PrometheusRule"] + (["ScaledObject"] if overlay == "cpu" else [])
    for kind in kinds:
        ours, theirs = rendered.pop(f"{kind}/rillcast"), one(overlay, kind)
        assert without_names(ours) == without_names(theirs), kind
    assert set(rendered) == {"ConfigMap/rillcast"}, "the chart has objects that the overlay lacks"


@pytest.mark.parametrize("values", [{}, LIKE_CPU, LIKE_GPU, {"localStore": {"enabled": True}}])
def test_every_manifest_is_valid_by_the_published_schemas(helm: str, tmp_path: Path, values: dict[str, Any]) -> None:
    for manifest in render(helm, tmp_path, values).values():
        for version in VERSIONS:
            check(manifest, version)


def test_lint_has_nothing_to_say(helm: str) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", "--kube-version", VERSIONS[-1], str(CHART)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"image": {"tags": "1"}},
        {"image": {"digest": "latest"}},
        {"autoscaling": {"kind": "lag"}},
        {"replicas": "three"},
    ],
)
def test_a_misspelt_value_is_refused(helm: str, tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match=next(iter(values))):
        render(helm, tmp_path, values)


def test_a_digest_names_the_image_in_place_of_a_tag(helm: str, tmp_path: Path) -> None:
    digest = f"sha256:{'0' * 64}"
    member = render(helm, tmp_path, LIKE_CPU | {"image": {"digest": digest}})["StatefulSet/rillcast"]
    assert member["spec"]["template"]["spec"]["containers"][0]["image"] == f"registry.example/rillcast@{digest}"


def test_the_settings_are_laid_over_those_of_kustomize_and_load(
    helm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = yaml.safe_load(pages.titled(PAGE)["sales.yaml"])
    values["settings"]["worker"] = {"max_poll_records": 1_000_000, "commit_interval_s": 2}
    rendered = render(helm, tmp_path, values, release="sales")
    text = rendered["ConfigMap/sales"]["data"]["rillcast.toml"]
    document = tomllib.loads(text)
    assert document["worker"]["delivery"] == "exactly_once", "of the base"
    (tmp_path / "secrets").mkdir()
    (tmp_path / "rillcast.toml").write_text(text.replace(document["secrets_dir"], str(tmp_path / "secrets")))
    for entry in rendered["StatefulSet/sales"]["spec"]["template"]["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(entry["name"], entry.get("value", "sales-0"))
    loaded = settings.load(tmp_path / "rillcast.toml")
    assert (loaded.kafka.group_id, loaded.input.topic, loaded.model) == ("sales", "sales", "universal:1h")
    assert loaded.worker.max_poll_records == 1_000_000


def test_members_of_two_releases_are_not_selected_by_each_other(helm: str, tmp_path: Path) -> None:
    north = render(helm, tmp_path, LIKE_CPU, release="north")
    south = render(helm, tmp_path, LIKE_CPU, release="south")
    labels = north["StatefulSet/north"]["spec"]["template"]["metadata"]["labels"]
    for kind, *place in (
        ("Service", "selector"),
        ("StatefulSet", "selector", "matchLabels"),
        ("PodDisruptionBudget", "selector", "matchLabels"),
        ("NetworkPolicy", "podSelector", "matchLabels"),
        ("PodMonitor", "selector", "matchLabels"),
    ):
        ours, theirs = north[f"{kind}/north"]["spec"], south[f"{kind}/south"]["spec"]
        for part in place:
            ours, theirs = ours[part], theirs[part]
        assert ours.items() <= labels.items(), kind
        assert not theirs.items() <= labels.items(), kind
    assert north["ScaledObject/north"]["spec"]["scaleTargetRef"]["name"] == "north"
    spoken_with = members_of(north["NetworkPolicy/north"])
    assert [each["matchLabels"] for each in spoken_with] == [
        {name: text for name, text in labels.items() if name in each["matchLabels"]} for each in spoken_with
    ]
    assert all(each["matchLabels"]["app.kubernetes.io/instance"] == "north" for each in spoken_with)
    assert len(spoken_with) == 2, "in and out"
    member = north["StatefulSet/north"]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "RILLCAST_HTTP__PEERS", "value": "north:9464"} in member["env"]
    assert north["Service/north"]["spec"]["publishNotReadyAddresses"]


def test_an_autoscaler_owns_the_number(helm: str, tmp_path: Path) -> None:
    hpa = render(helm, tmp_path, {"autoscaling": {"kind": "hpa", "minReplicas": 3}})
    assert "replicas" not in hpa["StatefulSet/rillcast"]["spec"]
    assert hpa["HorizontalPodAutoscaler/rillcast"]["spec"]["minReplicas"] == 3


def test_keda_asks_the_topic_of_the_settings_with_the_keys_of_a_secret(helm: str, tmp_path: Path) -> None:
    key = {"parameter": "password", "name": "rillcast", "key": "kafka__sasl_password"}
    keda = {"secretTargetRef": [key], "metadata": {"sasl": "scram_sha512", "tls": "enable"}}
    values = {"autoscaling": {"kind": "keda", "keda": keda}, "settings": {"input": {"topic": "sales"}}}
    rendered = render(helm, tmp_path, values)
    (trigger,) = rendered["ScaledObject/rillcast"]["spec"]["triggers"]
    assert trigger["metadata"].items() >= {"topic": "sales", "sasl": "scram_sha512", "lagThreshold": "300000"}.items()
    assert trigger["authenticationRef"] == {"name": "rillcast"}
    assert rendered["TriggerAuthentication/rillcast"]["spec"]["secretTargetRef"] == [key]


def test_prometheus_gets_the_token_from_the_secret(helm: str, tmp_path: Path) -> None:
    monitoring = {"serviceMonitor": {"enabled": True}, "tokenSecret": {"name": "rillcast"}}
    (endpoint,) = render(helm, tmp_path, {"monitoring": monitoring})["ServiceMonitor/rillcast"]["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "rillcast", "key": "http__token"}


def test_alerts_link_to_the_runbooks_of_a_site(helm: str, tmp_path: Path) -> None:
    rules = {"enabled": True, "docsUrl": "https://docs.example.com/x/"}
    rendered = render(helm, tmp_path, {"monitoring": {"rules": rules}})["PrometheusRule/rillcast"]["spec"]["groups"]
    links = [r["annotations"]["runbook_url"] for group in rendered for r in group["rules"] if "annotations" in r]
    assert links
    assert all(re.fullmatch(r"https://docs\.example\.com/x/runbooks/Rillcast\w+\.html", link) for link in links)


def test_dashboards_are_config_maps_for_the_sidecar(helm: str, tmp_path: Path) -> None:
    rendered = render(helm, tmp_path, {"monitoring": {"dashboards": {"enabled": True}}})
    found = [m for name, m in rendered.items() if "-dashboard-" in name]
    assert sorted(name for m in found for name in m["data"]) == sorted(p.name for p in CHART.glob("dashboards/*.json"))
    for manifest in found:
        ((name, content),) = manifest["data"].items()
        assert yaml.safe_load(content) == yaml.safe_load((CHART / "dashboards" / name).read_text())
        assert manifest["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_what_a_cluster_asks_of_its_pods_reaches_them(helm: str, tmp_path: Path) -> None:
    volume = {"name": "certificates", "secret": {"secretName": "ours"}}
    mount = {"name": "certificates", "mountPath": "/certificates"}
    spread = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    toleration = {"key": "forecasts", "operator": "Exists"}
    values = {
        "extraVolumes": [volume], "extraVolumeMounts": [mount], "topologySpreadConstraints": [spread],
        "tolerations": [toleration], "nodeSelector": {"pool": "forecasts"}, "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}], "podAnnotations": {"a": "b"}, "podLabels": {"team": "sales"},
        "secrets": {"name": "mine", "tls": "my-tls"}, "serviceAccount": {"annotations": {"role": "reader"}},
    }  # fmt: skip
    rendered = render(helm, tmp_path, values)
    template = rendered["StatefulSet/rillcast"]["spec"]["template"]
    spec = template["spec"]
    assert volume in spec["volumes"]
    assert mount in spec["containers"][0]["volumeMounts"]
    assert [each["topologyKey"] for each in spec["topologySpreadConstraints"]] == ["zone"]
    assert (spec["tolerations"], spec["nodeSelector"]) == ([toleration], {"pool": "forecasts"})
    assert (spec["priorityClassName"], spec["imagePullSecrets"]) == ("high", [{"name": "registry"}])
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"]["team"] == "sales"
    assert {"mine", "my-tls"} <= {v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    assert rendered["ServiceAccount/rillcast"]["metadata"]["annotations"] == {"role": "reader"}


def test_a_first_model_is_pushed_by_a_job_that_is_no_member(helm: str, tmp_path: Path) -> None:
    registry = {"existingClaim": "models", "first": "universal:1h"}
    values = {"modelRegistry": registry, "model": {"reference": "/registry@live"}}
    rendered = render(helm, tmp_path, values)
    job = rendered["Job/rillcast-first-model"]["spec"]["template"]
    assert job["spec"]["containers"][0]["args"][:4] == ["model", "push", "/registry", "universal:1h"]
    hooks = rendered["Job/rillcast-first-model"]["metadata"]["annotations"]["helm.sh/hook"]
    assert hooks == "pre-install,pre-upgrade", "`helm install --wait` would wait for members that have no model"
    assert "serviceAccountName" not in job["spec"], "it is not there yet"
    check(rendered["Job/rillcast-first-model"], VERSIONS[-1])
    selector = rendered["StatefulSet/rillcast"]["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= job["metadata"]["labels"].items()
    members = rendered["StatefulSet/rillcast"]["spec"]["template"]["spec"]
    assert "initContainers" not in members
    assert {"name": "RILLCAST_MODEL", "value": "/registry@live"} in members["containers"][0]["env"]


def test_the_defaults_are_those_of_the_base() -> None:
    """Hold the places that values.yaml repeats; needs no helm."""
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["resources"] == container("cpu")["resources"]
    assert [v["secret"]["secretName"] for v in pod("cpu")["volumes"] if "secret" in v] == list(
        values["secrets"].values()
    )
    assert values["terminationGracePeriodSeconds"] == pod("cpu")["terminationGracePeriodSeconds"]
    keda = one("cpu", "ScaledObject")["spec"]
    scaling = values["autoscaling"]
    assert (scaling["minReplicas"], scaling["maxReplicas"]) == (keda["minReplicaCount"], keda["maxReplicaCount"])
    assert str(scaling["keda"]["lagThreshold"]) == keda["triggers"][0]["metadata"]["lagThreshold"]
