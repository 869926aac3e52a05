"""The peers as programs: what each needs, and the command that runs it.

Owns: the environments, which are made once. Packages of Python go into `--venvs`; the JVM's artefacts and classes into
the cache of the tests, under a name that changes with their sources. After that no network is needed.
Does not know: events, topics, results.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from rillcast.errors import RillcastError
from tests.support.fetched import fetched
from tests.support.kafka_broker import copy_jars

log = logging.getLogger(__name__)

_HERE: Final = Path(__file__).parent
_JVM: Final = _HERE / "jvm"
_DEADLINE_S: Final = 900.0
_COMMON: Final = ("numpy", "onnxruntime", "orjson")
_OPENED: Final = ("java.base/java.util=ALL-UNNAMED", "java.base/java.lang=ALL-UNNAMED")  # Flink copies such objects


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that is compared with the service.

    Attributes:
        program: Its script, or its class on the JVM.
        share: Its share of the events; a peer is slower, and a run of some seconds is enough.
        packages: Packages of a script.
        options: Further arguments of a class.
        streams: The most streams that it gets.
        delivery: What it promises, in the service's words.
        same_forecasts: Whether it computes the service's forecasts.
    """

    program: str
    share: float
    packages: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    streams: int = 10**9
    delivery: Literal["at_least_once", "exactly_once"] = "at_least_once"
    same_forecasts: bool = True

    @property
    def on_jvm(self) -> bool:
        """Whether it runs on the JVM."""
        return not self.program.endswith(".py")


PEERS: Final = {
    "kafka_streams": Peer("StreamsPeer", 0.3, options=("single",)),
    "kafka_streams_exactly_once": Peer("StreamsPeer", 0.3, options=("single",), delivery="exactly_once"),
    "kafka_streams_batched": Peer("StreamsPeer", 1.0, options=("batched",)),
    "kafka_streams_batched_exactly_once": Peer("StreamsPeer", 1.0, options=("batched",), delivery="exactly_once"),
    "flink": Peer("FlinkPeer", 0.3),
    "flink_exactly_once": Peer("FlinkPeer", 0.3, delivery="exactly_once"),
    "quix": Peer("quix.py", 0.1, ("quixstreams>=3.28,<4",)),
    "bytewax": Peer("bytewax_flow.py", 0.1, ("bytewax==0.21.1", "confluent-kafka")),
    "faust": Peer("faust_app.py", 0.05, ("faust-streaming>=0.15.3,<0.16",)),
    # Few, so that each has seen several seasons: before that, river has nothing to learn from.
    "river": Peer("river_loop.py", 0.1, ("river>=0.26,<0.27", "confluent-kafka"), streams=20, same_forecasts=False),
    "plain": Peer("plain.py", 0.2, ("confluent-kafka",)),
    # Few, so that their windows are full.
    "window": Peer("window.py", 0.01, ("confluent-kafka",), streams=8, same_forecasts=False),
}


def command(peer: Peer, name: str, venvs: Path) -> list[str]:
    """Return the command of a peer up to its arguments; its environment is made if absent.

    Raises:
        RillcastError: A package, an artefact or a class could not be had; the output of the tool is in the message.
    """
    if not peer.on_jvm:
        return [str(_environment(venvs / name, peer, name)), str(_HERE / peer.program)]
    jars = fetched(f"peers-{_digest(_JVM / 'pom.xml')}", lambda scratch: copy_jars(_JVM / "pom.xml", scratch, "*"))
    sources = sorted(_JVM.glob("*.java"))
    classes = fetched(f"peers-{_digest(_JVM / 'pom.xml', *sources)}-classes", lambda scratch: _compiled(scratch, jars))
    opened = [f"--add-opens={module}" for module in _OPENED]
    return ["java", "-Xmx2g", *opened, "-cp", f"{classes}:{jars}/*", peer.program]


def call(given: list[str], what: str) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        RillcastError: It failed or took too long; its output is in the message.
    """
    try:
        done = subprocess.run(given, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RillcastError(f"{what} was not done within {_DEADLINE_S:g} s") from error
    if done.returncode:
        raise RillcastError(f"{what} failed with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


def _environment(home: Path, peer: Peer, name: str) -> Path:
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists():
        log.info("installing %s into %s", name, home)
        call([sys.executable, "-m", "venv", "--clear", str(home)], f"the environment of {name}")
        call([str(python), "-m", "pip", "install", "--quiet", *peer.packages, *_COMMON], f"installing {name}")
        ready.touch()
    return python


def _digest(*files: Path) -> str:
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def _compiled(scratch: Path, jars: Path) -> Path:
    classes = scratch / "classes"
    sources = map(str, sorted(_JVM.glob("*.java")))
    call(["javac", "-d", str(classes), "-cp", f"{jars}/*", *sources], "compiling the peers of the JVM")
    return classes
