"""A real Kafka Connect for tests: the official runtime with Debezium's JDBC sink, as `connect-standalone.sh` starts it.

Owns: fetching the jars once per machine, and the script. Does not know: connectors' properties, databases.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from tests.support.fetched import fetched
from tests.support.kafka_broker import copy_jars

HERE: Final = Path(__file__).parent / "connect"
_JVM: Final = "-Xmx400m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto -Dlog4j2.level=WARN"


def fetch_jars() -> Path:
    """Return the folder with Connect's jars, fetching them through Maven if this machine does not have them yet.

    Raises:
        BrokerError: Maven failed; the message has its output.
    """
    pom = HERE / "pom.xml"
    name = f"connect-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    return fetched(name, lambda scratch: copy_jars(pom, scratch, "connect-runtime-*.jar"))


def write_script(path: Path) -> None:
    """Write a `connect-standalone.sh`; its arguments are the worker's and the connector's file."""
    main = "org.apache.kafka.connect.cli.ConnectStandalone"
    path.write_text(f'#!/bin/sh\nexec java {_JVM} -cp "{fetch_jars()}/*" {main} "$@"\n')
    path.chmod(0o755)
