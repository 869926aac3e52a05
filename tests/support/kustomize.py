"""Renders what `kubectl apply --kustomize` would send, for tests on machines without kustomize.

Owns: the part of kustomize that `deploy/kubernetes` uses: resources, components, labels, namespace, images, ConfigMaps
made of files, JSON patches, and names with a hash of the content. Anything else in a kustomization is an error. Where
kubectl or kustomize is installed, a test compares the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml

Manifest: TypeAlias = dict[str, Any]
_CLUSTER_WIDE: Final = {"Namespace"}
# Fields that get a label, as kustomize does it for our kinds: some are created, others filled only where they exist.
_LABELS: Final = ("metadata", "labels")
_MADE: Final[dict[str, list[tuple[str, ...]]]] = {
    "Service": [("spec", "selector")],
    "StatefulSet": [("spec", "selector", "matchLabels"), ("spec", "template", "metadata", "labels")],
}
_IF_THERE: Final[dict[str, list[tuple[str, ...]]]] = {
    "PodDisruptionBudget": [("spec", "selector", "matchLabels")],
    "NetworkPolicy": [("spec", "podSelector", "matchLabels")],
}


def build(folder: Path) -> list[Manifest]:
    """Return the manifests of a kustomization."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    known = {"apiVersion", "kind", "resources", "components", "labels", "namespace", "images", "configMapGenerator"}
    unknown = set(kustomization) - known - {"patches"}
    assert not unknown, f"{folder}: {sorted(unknown)} is not known here; extend tests.support.kustomize"
    manifests: list[Manifest] = []
    for name in kustomization.get("resources", ()):
        path = folder / name
        manifests += build(path) if path.is_dir() else [m for m in yaml.safe_load_all(path.read_text()) if m]
    for generator in kustomization.get("configMapGenerator", ()):
        assert set(generator) == {"name", "files"}, generator
        content = {Path(name).name: (folder / name).read_text() for name in generator["files"]}
        manifests.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": content}
        )
    for name in kustomization.get("components", ()):
        manifests = _transform(folder / name, manifests)
    return _finish(folder, kustomization, manifests)


def _transform(folder: Path, manifests: list[Manifest]) -> list[Manifest]:
    """Apply a component: it adds resources and changes those that are there."""
    component = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(component) - {"apiVersion", "kind", "resources", "patches"}
    assert not unknown, f"{folder}: {sorted(unknown)} is not known here; extend tests.support.kustomize"
    for name in component.get("resources", ()):
        manifests = manifests + [m for m in yaml.safe_load_all((folder / name).read_text()) if m]
    return _finish(folder, component, manifests)


def _finish(folder: Path, kustomization: Manifest, manifests: list[Manifest]) -> list[Manifest]:
    for patch in kustomization.get("patches", ()):
        assert set(patch) == {"target", "patch"}, f"{folder}: {patch}"
        matching = [m for m in manifests if _matches(m, patch["target"])]
        assert matching, f"{folder}: nothing matches {patch['target']}"
        for manifest in matching:
            for operation in yaml.safe_load(patch["patch"]):
                _apply(manifest, operation)
    for manifest in manifests:
        for labels in kustomization.get("labels", ()):
            _label(manifest, labels)
        if "namespace" in kustomization and manifest["kind"] not in _CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = kustomization["namespace"]
        for image in kustomization.get("images", ()):
            for container in _containers(manifest):
                if container["image"].split(":")[0] == image["name"]:
                    which = f"@{image['digest']}" if "digest" in image else f":{image['newTag']}"
                    container["image"] = image["newName"] + which
    return manifests


def hashed(manifests: list[Manifest]) -> list[Manifest]:
    """Append the hash of their content to the names of ConfigMaps, and update the references to them."""
    names: dict[str, str] = {}
    for manifest in manifests:
        if manifest["kind"] == "ConfigMap":
            name = manifest["metadata"]["name"]
            names[name] = manifest["metadata"]["name"] = f"{name}-{_hash(manifest)}"
    for manifest in manifests:
        for volume in _pod(manifest).get("volumes", ()):
            if "configMap" in volume:
                source = volume["configMap"]
                source["name"] = names.get(source["name"], source["name"])
    return manifests


def render(folder: Path) -> list[Manifest]:
    """Return what would be applied."""
    return hashed(build(folder))


def _hash(config_map: Manifest) -> str:
    """Return kustomize's hash of a ConfigMap: SHA-256 of its JSON, spelled so that it makes no words."""
    document = {"data": config_map["data"], "kind": "ConfigMap", "name": ""}  # so it is: the name does not count
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&":  # as Go's JSON encoder has it
        text = text.replace(character, f"\\u{ord(character):04x}")
    return hashlib.sha256(text.encode()).hexdigest()[:10].translate(str.maketrans("013ae", "ghkmt"))


def _matches(manifest: Manifest, target: Manifest) -> bool:
    assert set(target) <= {"kind", "name"}, target
    name = manifest["metadata"]["name"]
    return bool(manifest["kind"] == target["kind"] and target.get("name", name) == name)


def _apply(document: Any, operation: Manifest) -> None:
    """Apply one operation of a JSON patch (RFC 6902); a path that does not exist is an error."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parents:
        document = document[int(part) if isinstance(document, list) else part]
    key: Any = last
    if isinstance(document, list) and last != "-":
        key = int(last)
    match operation["op"]:
        case "add" if last == "-":
            document.append(operation["value"])
        case "add":
            document[key] = operation["value"]
        case "replace":
            document[key]  # it has to be there
            document[key] = operation["value"]
        case "remove":
            del document[key]
        case other:
            raise AssertionError(f"{other} is not known here")


def _label(manifest: Manifest, labels: Manifest) -> None:
    assert set(labels) == {"pairs", "includeSelectors", "includeTemplates"}, labels
    assert labels["includeSelectors"], labels
    assert labels["includeTemplates"], labels
    made: list[tuple[str, ...]] = [_LABELS, *_MADE.get(manifest["kind"], [])]
    for place in made:
        inner: Any = manifest
        for part in place:
            inner = inner.setdefault(part, {})
        inner.update(labels["pairs"])
    for place in _IF_THERE.get(manifest["kind"], ()):
        inner = manifest
        for part in place:
            inner = inner.get(part, {})
        if inner:
            inner.update(labels["pairs"])
    if labels.get("includeSelectors") and manifest["kind"] == "NetworkPolicy":
        for rule in manifest["spec"].get("ingress", []) + manifest["spec"].get("egress", []):
            for peer in rule.get("from", []) + rule.get("to", []):
                peer.get("podSelector", {}).get("matchLabels", {}).update(labels["pairs"])
    for constraint in _pod(manifest).get("topologySpreadConstraints", ()):
        constraint["labelSelector"]["matchLabels"].update(labels["pairs"])


def _pod(manifest: Manifest) -> Manifest:
    spec = manifest.get("spec", {})
    if manifest["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    pod: Manifest = spec.get("template", {}).get("spec", {})
    return pod


def _containers(manifest: Manifest) -> Iterator[Manifest]:
    for kind in ("containers", "initContainers"):
        yield from _pod(manifest).get(kind, ())
