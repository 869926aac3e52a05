"""The image as the Dockerfile makes it: what is in it, and a service that runs from it as a restricted pod would.

What is built, its digest, its SBOM and the logs stay in build/test-image.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rillcast.bundle.registry.model_registry import ModelRegistry
from tests.image.engine import Engine
from tests.image.images import OUT, Image, built
from tests.image.lookups import ADDRESS, BROKER, Lookups
from tests.support.kafka_cluster import KafkaCluster, unique
from tests.support.service_process import ServiceProcess
from tests.support.toy import ToyGraph, unroll
from tests.support.workers import observation

EVENTS, IDLE_S = 200, 30.0  # ONNX Runtime's reports would look its server up four times a minute
# Runs in the container: what its kernel allows, and which distributions are there.
LOOK = """
import importlib.metadata, json, os
def writable(path):
    try:
        open(path + "/probe", "w").close()
    except OSError as error:
        return error.strerror
    return True
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "written": {path: writable(path) for path in ("/", "/opt/rillcast", "/models", "/state", "/tmp")},
    "distributions": {d.name: d.version for d in importlib.metadata.distributions()},
}))
"""


@pytest.fixture(scope="module")
def image(engine: Engine) -> Image:
    return built(engine, "cpu", push=True)


def look(image: Image, folder: Path) -> Any:
    """Return what the container says of itself."""
    for name in ("models", "state"):
        (folder / name).mkdir()
    config = image.config | {"Entrypoint": ["python", "-c"]}
    mounts = {"/state": folder / "state"}
    shutil.chown(folder / "state", 65532, 65532)
    command = image.engine.command(
        image.root, config, folder / unique("look"), arguments=[LOOK], environment={}, mounts=mounts
    )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_container_runs_as_nobody_and_writes_where_the_dockerfile_says(image: Image, tmp_path: Path) -> None:
    found = look(image, tmp_path)
    assert found["user"] == [65532, 65532]
    written = {path for path, done in found["written"].items() if done is True}
    assert written == {"/state", "/tmp"}, found["written"]  # noqa: S108  the container's
    installed = {name.lower() for name in found["distributions"]}
    assert not installed & {"torch", "onnxruntime-gpu", "pip", "setuptools", "wheel", "uv", "cyclonedx-bom"}


def test_the_bill_of_materials_has_every_distribution_in_the_image(image: Image, tmp_path: Path) -> None:
    document = json.loads((image.root / "opt/rillcast/sbom.cdx.json").read_text())
    (OUT / "sbom.cdx.json").write_text(json.dumps(document, indent=1))
    assert document["bomFormat"] == "CycloneDX"
    listed = {each["name"]: each["version"] for each in document["components"]}
    listed[document["metadata"]["component"]["name"]] = document["metadata"]["component"]["version"]
    assert listed == look(image, tmp_path)["distributions"]


def test_labels_and_digest_name_what_was_built(image: Image) -> None:
    labels = image.config["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}version"] == "0.1.0"
    assert re.fullmatch(r"[0-9a-f]{40}", labels[f"{prefix}revision"])
    assert labels[f"{prefix}base.name"] == "localhost/python"
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", image.digest)
    index = json.loads((OUT / "oci" / "index.json").read_text())
    assert [each["digest"] for each in index["manifests"]] == [image.digest]


def test_a_service_forecasts_from_a_registry_on_a_read_only_root_and_looks_up_its_broker_alone(
    image: Image, kafka: KafkaCluster, tmp_path: Path
) -> None:
    registry = ModelRegistry.at(str(tmp_path / "models"))
    manifest, _ = registry.push(ToyGraph().build(), dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    registry.promote(manifest.model_id, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    (tmp_path / "resolv.conf").write_text(f"nameserver {ADDRESS}\noptions attempts:1 timeout:1\n")
    topic, output = kafka.create_topic("observations"), kafka.create_topic("forecasts")
    settings = {
        "MODEL": "/models@live",
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": "0",
        "KAFKA__BOOTSTRAP_SERVERS": f"{BROKER}:{kafka.bootstrap_servers.rpartition(':')[2]}",
        "KAFKA__GROUP_ID": unique("group"),
        "INPUT__TOPIC": topic,
        "OUTPUT__TOPIC": output,
        "DEAD_LETTERS__TOPIC": kafka.create_topic("dead-letters"),
        "STATE__TOPIC": unique("state"),
        "WORKER__COMMIT_INTERVAL_S": "0.2",
    }
    name = unique("service")
    command = image.engine.command(
        image.root, image.config, tmp_path / name, arguments=image.config["Cmd"],
        environment={f"RILLCAST_{key}": value for key, value in settings.items()},
        mounts={"/models": tmp_path / "models", "/etc/resolv.conf": tmp_path / "resolv.conf"},
    )  # fmt: skip
    with Lookups() as lookups:
        process = ServiceProcess({}, tmp_path, command=command, environment=os.environ)
        try:
            process.wait_until(lambda: process.get("/readyz")[0] == 200, "ready")
            time.sleep(IDLE_S)
            kafka.produce(topic, [observation("s", n + 1, ds=n) for n in range(EVENTS)], [b"s"] * EVENTS)
            process.wait_until(lambda: process.metric("rillcast_forecasts_total") == EVENTS, "the forecasts")
            (OUT / "metrics.txt").write_text(process.get("/metrics")[1])
            assert process.stop() == 0, process.log[-4000:]
        finally:
            image.engine.delete(name)
            (OUT / "service.log").write_text(process.log)
            (OUT / "lookups.txt").write_text("".join(f"{each}\n" for each in sorted(lookups.names)))
    assert lookups.names == {BROKER}
    published = [json.loads(record.value or b"")["quantiles"]["0.5"][0] for record in kafka.read_all(output)]
    assert published == unroll(range(1, EVENTS + 1))
    assert "in /tmp/rillcast/models/" in process.log, "the cache of models"
    assert all(json.loads(line) for line in process.log.splitlines()), "the image's log is JSON"
