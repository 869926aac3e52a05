"""The manifests: valid by the published schemas of several Kubernetes versions, and right in what no schema says."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from rillcast import cli, settings
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.registry import reference
from rillcast.observability.health import LIVENESS_TIMEOUT_S
from tests.support import pages
from tests.support.kustomize import Manifest, render
from tests.support.paths import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
CRDS = ROOT / "tests" / "support" / "crds"
OVERLAYS = ("cpu", "gpu", "dev")
# The oldest that is still common, to the newest that the validator knows.
VERSIONS = ("1.30", "1.33", "1.37")


@cache
def rendered(overlay: str) -> tuple[Manifest, ...]:
    return tuple(render(FOLDER / "overlays" / overlay))


def one(overlay: str, kind: str, name: str = "rillcast") -> Manifest:
    (found,) = (m for m in rendered(overlay) if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def pod(overlay: str) -> Manifest:
    spec: Manifest = one(overlay, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> Manifest:
    found: Manifest = pod(overlay)["containers"][0]
    return found


def environment(overlay: str) -> dict[str, Any]:
    return {entry["name"]: entry.get("value") for entry in container(overlay)["env"]}


@cache
def crd_schemas() -> dict[tuple[str, str], Any]:
    """Return the vendored schemas of custom resources by API version and kind, unknown members forbidden."""
    schemas = {}
    for path in CRDS.glob("*.json"):
        spec = json.loads(path.read_text())["spec"]
        for version in spec["versions"]:
            key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
            schemas[key] = strict(version["schema"]["openAPIV3Schema"])
    return schemas


def strict(schema: Any) -> Any:
    """Forbid members that the schema does not name, as the API server drops them without a word."""
    schema = copy.copy(schema)
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if "properties" in schema:
        schema["properties"] = {name: strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
    if isinstance(schema.get("additionalProperties"), dict):
        schema["additionalProperties"] = strict(schema["additionalProperties"])
    if "items" in schema:
        schema["items"] = strict(schema["items"])
    return schema


def check(manifest: Manifest, version: str) -> None:
    key = manifest["apiVersion"], manifest["kind"]
    if key not in crd_schemas():
        kubernetes_validate.validate(manifest, version, strict=True)
        return
    schema = copy.deepcopy(crd_schemas()[key])
    schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
    jsonschema.Draft4Validator(schema).validate(manifest)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_valid_by_the_published_schemas(overlay: str, version: str) -> None:
    for manifest in rendered(overlay):
        check(manifest, version)


@pytest.mark.parametrize("kind", ["StatefulSet", "PodMonitor", "ScaledObject", "PrometheusRule"])
def test_the_validation_finds_a_misspelt_member(kind: str) -> None:
    broken = copy.deepcopy(one("cpu", kind))
    broken["spec"]["relicas"] = 3
    with pytest.raises(jsonschema.ValidationError, match="relicas"):
        check(broken, VERSIONS[-1])


@pytest.mark.parametrize("component", ["hpa"])
def test_the_alternative_component_is_valid_and_fits_the_base(component: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "cpu" / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("components/keda", f"components/{component}"))
    manifests = render(overlay.parent)
    for manifest in manifests:
        check(manifest, VERSIONS[-1])
    kinds = {manifest["kind"] for manifest in manifests}
    assert "HorizontalPodAutoscaler" in kinds
    assert "ScaledObject" not in kinds
    (stateful_set,) = (m for m in manifests if m["kind"] == "StatefulSet")
    assert "replicas" not in stateful_set["spec"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_our_rendering_is_that_of_kustomize(overlay: str) -> None:
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize"]  # the same code, built in
    elif kustomize := shutil.which("kustomize"):
        command = [kustomize, "build"]
    else:
        pytest.skip("neither kubectl nor kustomize is installed; tests.support.kustomize alone renders the manifests")
    command.append(str(FOLDER / "overlays" / overlay))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    theirs = {(m["kind"], m["metadata"]["name"]): m for m in yaml.safe_load_all(done.stdout)}
    assert {(m["kind"], m["metadata"]["name"]): m for m in rendered(overlay)} == theirs


def test_an_overlay_names_an_image_by_its_digest_as_the_page_says(tmp_path: Path) -> None:
    images = yaml.safe_load(pages.titled(ROOT / "docs" / "how-to" / "kubernetes.md")["digest/kustomization.yaml"])
    folder = Path(shutil.copytree(FOLDER, tmp_path / "kubernetes")) / "overlays" / "digest"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump({"resources": ["../../base"]} | images))
    (member,) = (m for m in render(folder) if m["kind"] == "StatefulSet")
    (image,) = images["images"]
    expected = f"{image['newName']}@{image['digest']}"
    assert member["spec"]["template"]["spec"]["containers"][0]["image"] == expected


def test_two_services_of_a_namespace_do_not_select_each_other(tmp_path: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed; tests.support.kustomize knows neither namePrefix nor configurations")
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    shown = pages.titled(ROOT / "docs" / "how-to" / "kubernetes.md")
    members, selectors = {}, {}
    for name in ("north", "south"):
        overlay = tmp_path / "kubernetes" / "overlays" / name
        overlay.mkdir()
        for file in ("kustomization.yaml", "names.yaml"):
            (overlay / file).write_text(shown[f"north/{file}"].replace("north", name))
        command = ["kubectl", "kustomize", str(overlay)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        of_kind = {m["kind"]: m for m in yaml.safe_load_all(done.stdout)}
        for manifest in of_kind.values():
            check(manifest, VERSIONS[-1])
        assert of_kind["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == f"{name}-rillcast"
        members[name] = of_kind["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
        selectors[name] = [
            of_kind["Service"]["spec"]["selector"],
            of_kind["StatefulSet"]["spec"]["selector"]["matchLabels"],
            of_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
            of_kind["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
            of_kind["PodMonitor"]["spec"]["selector"]["matchLabels"],
        ]
    assert all(selector.items() <= members["north"].items() for selector in selectors["north"])
    assert not any(selector.items() <= members["north"].items() for selector in selectors["south"])


def test_the_way_to_an_autoscaler_takes_the_number_out_of_what_kubectl_remembers() -> None:
    """`make test-cluster` runs it on a real API server; here only its filter is held to the form of kubectl's YAML."""
    (command,) = (c for c in pages.commands(ROOT / "docs" / "how-to" / "kubernetes.md") if "set-last-applied" in c)
    (line,) = (line for line in command.splitlines() if "grep" in line)
    (pattern,) = re.findall("'(.*)'", line)
    member = {"apiVersion": "apps/v1", "kind": "StatefulSet", "spec": {"replicas": 4, "serviceName": "rillcast"}}
    kept = [text for text in yaml.safe_dump(member).splitlines() if not re.search(pattern, text)]
    assert yaml.safe_load("\n".join(kept))["spec"] == {"serviceName": "rillcast"}


@pytest.mark.parametrize("component", ["hpa", "keda"])
def test_an_autoscaler_owns_the_number_of_members(component: str) -> None:
    """An overlay that states a number and an autoscaler would set it back with every apply."""
    base = yaml.safe_load((FOLDER / "base" / "statefulset.yaml").read_text())
    assert "replicas" not in base["spec"]
    assert "patches" not in yaml.safe_load((FOLDER / "components" / component / "kustomization.yaml").read_text())


# Membership.


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_member_is_named_after_its_pod(overlay: str) -> None:
    (entry,) = (e for e in container(overlay)["env"] if e["name"] == "RILLCAST_KAFKA__GROUP_INSTANCE_ID")
    assert entry["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kubernetes_adds_no_variables_that_look_like_settings(overlay: str) -> None:
    assert pod(overlay)["enableServiceLinks"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_and_every_key_of_the_config_map_is_a_setting(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (config_map,) = (m for m in rendered(overlay) if m["kind"] == "ConfigMap")
    document = tomllib.loads(config_map["data"]["rillcast.toml"])
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    text = config_map["data"]["rillcast.toml"].replace(document["secrets_dir"], str(secrets))
    (tmp_path / "rillcast.toml").write_text(text)
    for name, value in environment(overlay).items():
        monkeypatch.setenv(name, value or "rillcast-0")
    loaded = settings.load(tmp_path / "rillcast.toml")
    assert loaded.kafka.group_instance_id == "rillcast-0"
    mounts = {mount["name"]: mount["mountPath"] for mount in container(overlay)["volumeMounts"]}
    assert mounts["secrets"] == document["secrets_dir"]
    assert container(overlay)["args"] == ["run", "--config", f"{mounts['settings']}/rillcast.toml"]
    assert {v["name"] for v in pod(overlay)["volumes"]} == set(mounts)


def test_volumes_do_not_lie_inside_each_other() -> None:
    paths = [Path(mount["mountPath"]) for mount in container("cpu")["volumeMounts"]]
    assert not [(a, b) for a in paths for b in paths if a != b and a.is_relative_to(b)]


# Probes and ends.


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_for_what_they_are_for(overlay: str) -> None:
    spec = container(overlay)
    paths = {kind: spec[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    startup = spec["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 3600, "a restore may take its time"
    liveness = spec["livenessProbe"]
    assert liveness["timeoutSeconds"] < LIVENESS_TIMEOUT_S


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_commit_before_it_is_killed(overlay: str) -> None:
    defaults = settings.Settings().worker
    grace = pod(overlay)["terminationGracePeriodSeconds"]
    # A flush of the poll under way, the last commit, and closing.
    assert grace > 2 * defaults.flush_timeout_s + defaults.commit_interval_s


def test_one_member_at_a_time_leaves() -> None:
    assert one("cpu", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert one("cpu", "StatefulSet")["spec"]["updateStrategy"] == {"type": "RollingUpdate"}


# Security.


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_the_restricted_standard_on_a_read_only_root(overlay: str) -> None:
    spec = pod(overlay)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for each in [*spec["containers"], *spec.get("initContainers", ())]:
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert each["resources"]["limits"]["memory"]
    assert one(overlay, "Namespace", pod_namespace(overlay))["metadata"]["labels"] == {
        "pod-security.kubernetes.io/enforce": "restricted"
    }


def pod_namespace(overlay: str) -> str:
    return str(one(overlay, "StatefulSet")["metadata"]["namespace"])


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize(
    ("kind", "place"),
    [
        ("PodDisruptionBudget", ("selector", "matchLabels")),
        ("NetworkPolicy", ("podSelector", "matchLabels")),
        ("Service", ("selector",)),
        ("StatefulSet", ("selector", "matchLabels")),
    ],
)
def test_selectors_find_our_pods_and_no_others(overlay: str, kind: str, place: tuple[str, ...]) -> None:
    selector = one(overlay, kind)["spec"]
    for part in place:
        selector = selector[part]
    assert selector["app.kubernetes.io/name"] == "rillcast", "an empty selector takes every pod of the namespace"
    labels = one(overlay, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()


# Scaling and monitoring.


def test_keda_watches_the_topic_and_group_of_the_service() -> None:
    (trigger,) = one("cpu", "ScaledObject")["spec"]["triggers"]
    document = tomllib.loads((FOLDER / "base" / "rillcast.toml").read_text())
    assert trigger["metadata"]["topic"] == document["input"]["topic"]
    assert trigger["metadata"]["consumerGroup"] == document["kafka"]["group_id"]
    assert trigger["metadata"]["bootstrapServers"] == document["kafka"]["bootstrap_servers"]


def test_the_trigger_of_the_page_asks_brokers_with_tls_by_the_members_secrets(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "kubernetes")) / "overlays" / "keda-tls"
    folder.mkdir()
    for title, content in pages.titled(ROOT / "docs" / "how-to" / "kubernetes.md").items():
        if title.startswith("keda-tls/"):
            (folder / Path(title).name).write_text(content)
    manifests = {m["kind"]: m for m in render(folder)}
    for kind in ("ScaledObject", "TriggerAuthentication"):
        check(manifests[kind], VERSIONS[-1])
    (trigger,) = manifests["ScaledObject"]["spec"]["triggers"]
    assert trigger["authenticationRef"]["name"] == manifests["TriggerAuthentication"]["metadata"]["name"]
    assert trigger["metadata"].items() >= {"tls": "enable", "sasl": "scram_sha512", "topic": "observations"}.items()
    mounted = {v["secret"]["secretName"] for v in pod("cpu")["volumes"] if "secret" in v}
    assert {each["name"] for each in manifests["TriggerAuthentication"]["spec"]["secretTargetRef"]} == mounted


def test_scaling_takes_its_time_and_owns_the_number() -> None:
    spec = one("cpu", "ScaledObject")["spec"]
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] > behavior["scaleUp"]["stabilizationWindowSeconds"]
    assert all(policy["value"] == 1 for way in behavior.values() for policy in way["policies"])
    assert spec["minReplicaCount"] > 0
    assert int(spec["triggers"][0]["metadata"]["lagThreshold"]) >= 10_000, (
        "the default of 10 would rebalance all the time"
    )
    assert "replicas" not in one("cpu", "StatefulSet")["spec"]


def test_the_pod_monitor_finds_the_metrics_port_and_calls_the_job_as_the_alerts_do() -> None:
    spec = one("cpu", "PodMonitor")["spec"]
    assert spec["selector"]["matchLabels"].items() <= (
        one("cpu", "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    )
    assert spec["jobLabel"] == "app.kubernetes.io/name"
    (endpoint,) = spec["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container("cpu")["ports"]}


def test_a_gpu_is_asked_for_where_the_image_needs_one() -> None:
    assert container("gpu")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container("gpu")["image"].endswith("-cuda")
    assert "nvidia.com/gpu" not in container("cpu")["resources"]["limits"]


def test_the_line_for_a_runtime_class_works(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "gpu" / "kustomization.yaml"
    assert "# - {op: add, path: /spec/template/spec/runtimeClassName" in overlay.read_text()
    overlay.write_text(overlay.read_text().replace("# - {op: add, path: /spec", "- {op: add, path: /spec"))
    (member,) = (m for m in render(overlay.parent) if m["kind"] == "StatefulSet")
    assert member["spec"]["template"]["spec"]["runtimeClassName"] == "nvidia"
    check(member, VERSIONS[-1])


# Retraining.


@pytest.fixture
def with_retraining(tmp_path: Path) -> dict[str, Manifest]:
    """Return the manifests of the cpu overlay with the component, by kind."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    overlay = tmp_path / "kubernetes" / "overlays" / "cpu" / "kustomization.yaml"
    text = overlay.read_text().replace("components:\n", "components:\n  - ../../components/retraining\n")
    overlay.write_text(text.replace("images:\n", "images:\n  - {name: rillcast-training, newName: r/t, newTag: '1'}\n"))
    manifests = render(overlay.parent)
    for manifest in manifests:
        check(manifest, VERSIONS[-1])
    return {f"{m['kind']}/{m['metadata']['name']}": m for m in manifests}


def retraining_pod(manifests: dict[str, Manifest]) -> Manifest:
    pod: Manifest = manifests["CronJob/rillcast-retraining"]["spec"]["jobTemplate"]["spec"]["template"]
    return pod


def test_members_serve_what_is_live_in_the_registry_that_the_job_promotes_in(
    with_retraining: dict[str, Manifest], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    members = with_retraining["StatefulSet/rillcast"]["spec"]["template"]["spec"]
    (member,) = members["containers"]
    assert "initContainers" not in members
    monkeypatch.chdir(tmp_path)
    for entry in member["env"]:
        monkeypatch.setenv(entry["name"], entry.get("value", "rillcast-0"))
    loaded = settings.load()
    assert reference.parse(loaded.model) == ("/registry", "live")
    writable = {mount["mountPath"] for mount in member["volumeMounts"] if not mount.get("readOnly")}
    assert str(loaded.model_cache) in writable
    assert "/registry" not in writable, "members only read it"
    (promote,) = retraining_pod(with_retraining)["spec"]["containers"]
    assert cli.parser().parse_args(promote["args"]).registry == "/registry"
    claims = [
        volume["persistentVolumeClaim"]["claimName"]
        for spec in (members, retraining_pod(with_retraining)["spec"])
        for volume in spec["volumes"]
        if volume["name"] == "registry"
    ]
    assert [f"PersistentVolumeClaim/{name}" in with_retraining for name in claims] == [True, True]


def test_every_step_of_the_job_is_a_command_line_and_hands_on_to_the_next(
    with_retraining: dict[str, Manifest],
) -> None:
    spec = retraining_pod(with_retraining)["spec"]
    train, evaluate, promote = (
        cli.parser().parse_args(step["args"]) for step in [*spec["initContainers"], *spec["containers"]]
    )
    assert [args.command for args in (train, evaluate, promote)] == ["train", "evaluate", "model"]
    assert str(train.out) == evaluate.candidate == str(promote.model)
    assert train.table == evaluate.data
    assert train.hold_out == evaluate.hold_out > train.horizon
    assert reference.parse(evaluate.against) == (promote.registry, promote.promote)
    assert with_retraining["CronJob/rillcast-retraining"]["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_the_first_model_is_pushed_where_there_is_none(with_retraining: dict[str, Manifest]) -> None:
    pod = with_retraining["Job/rillcast-first-model"]["spec"]["template"]
    (push,) = pod["spec"]["containers"]
    args = cli.parser().parse_args(push["args"])
    assert (args.registry, args.promote, args.if_unset) == ("/registry", "live", True)
    first = Bundle.load(args.model).metadata
    train = cli.parser().parse_args(retraining_pod(with_retraining)["spec"]["initContainers"][0]["args"])
    assert (first.freq, first.horizon) == (train.freq, train.horizon), "the nightly candidate would be refused"
    assert push["image"] == "registry.example/rillcast:0.1.0-cpu"
    policy = with_retraining["NetworkPolicy/rillcast-retraining"]["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= pod["metadata"]["labels"].items()


def test_the_job_keeps_the_restricted_standard_and_is_no_member(with_retraining: dict[str, Manifest]) -> None:
    pod = retraining_pod(with_retraining)
    spec = pod["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["automountServiceAccountToken"] is False
    for each in [*spec["initContainers"], *spec["containers"]]:
        assert each["image"] == "r/t:1"
        context = each["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert each["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in each["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    members = with_retraining["StatefulSet/rillcast"]["spec"]["selector"]["matchLabels"]
    assert not members.items() <= pod["metadata"]["labels"].items(), "services and budgets would take it for a member"
    policy = with_retraining["NetworkPolicy/rillcast-retraining"]["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= pod["metadata"]["labels"].items()
    (config_map,) = (name.split("/")[1] for name in with_retraining if name.startswith("ConfigMap/"))
    assert {"name": "settings", "configMap": {"name": config_map}} in spec["volumes"], "the hashed name is followed"
