"""Fixtures of the whole suite, and the rule for tests that need a Kafka broker.

A test that uses the `kafka` fixture is marked `kafka`. The broker is the one that `RILLCAST_TEST_BOOTSTRAP` names,
or one that is started once per session. Without either, these tests are skipped and the last lines of the run say so;
with `CI=true` they fail, because a CI that silently tests nothing is worse than none.

The suite runs in several processes at once (`make test`, pytest-xdist). Each has its own broker, ports and folders; one
of them fetches the programs that tests need (`tests.support.fetched`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

import rillcast  # noqa: F401  it switches off what ONNX Runtime would report, before a test loads ONNX Runtime
from tests.support.ci import in_ci
from tests.support.kafka_broker import missing_tools, running_broker
from tests.support.kafka_cluster import KafkaCluster
from tests.support.mlflow_server import some_mlflow

# The time that an example takes depends on the machine more than on the code.
hypothesis.settings.register_profile("rillcast", deadline=None, print_blob=True)
hypothesis.settings.load_profile("rillcast")

_BOOTSTRAP = "RILLCAST_TEST_BOOTSTRAP"
_NO_BROKER = "no Kafka broker"


def _no_broker() -> str | None:
    """Return why no broker can run here, or None."""
    missing = missing_tools()
    if os.environ.get(_BOOTSTRAP) or not missing:
        return None
    return f"{' and '.join(missing)} not installed and {_BOOTSTRAP} not set"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker("kafka")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("kafka") is None or (reason := _no_broker()) is None:
        return
    if in_ci():
        pytest.fail(f"{_NO_BROKER} in CI: {reason}", pytrace=False)
    pytest.skip(f"{_NO_BROKER}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    # Counted from the reports, because the tests may have been skipped in another process.
    if count := sum(_NO_BROKER in str(report.longrepr) for report in terminalreporter.stats.get("skipped", ())):
        terminalreporter.section("KAFKA NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"{count} tests against a real Kafka broker were SKIPPED: {_no_broker()}", red=True)


@pytest.fixture(scope="session")
def kafka() -> Iterator[KafkaCluster]:
    """A running Kafka broker."""
    if address := os.environ.get(_BOOTSTRAP):
        cluster = KafkaCluster(address)
        yield cluster
        cluster.close()
        return
    with running_broker() as broker:
        cluster = KafkaCluster(broker.bootstrap_servers, broker)
        yield cluster
        cluster.close()


@pytest.fixture(scope="session")
def mlflow() -> Iterator[str]:
    """Address of an MLflow server, without a scheme: a real one with `make test-mlflow`, else one in this process."""
    with some_mlflow() as address:
        yield address


@pytest.fixture(scope="module")
def brief_parity() -> Iterator[None]:
    """Exports of this module compare file and forecaster on few events."""
    from tests.support import forecasters  # loads torch, which most tests do without

    with forecasters.brief_parity():
        yield
