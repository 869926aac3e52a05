"""The service against other stream processors: the same events, model and broker, in turns within one run.

    python -m tests.benchmarks.peers.compare --model MODEL --kafka.bootstrap-servers HOST:PORT [--json]

Owns: the peers' environments, which are made once, and the comparison. A peer gets fewer events than the service,
because it is slower by orders of magnitude. Both are timed from their first event in hand to the delivery of their last
result. Each peer's script says what it keeps of its state, and where.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rillcast.benchmarks.backlog import fill_backlog, for_one_run
from rillcast.benchmarks.machine import machine
from rillcast.benchmarks.output import show
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process
from rillcast.bundle.bundle import Bundle
from rillcast.cli import flags
from rillcast.errors import RillcastError
from rillcast.settings import Settings

log = logging.getLogger(__name__)

_HERE: Final = Path(__file__).parent
_DEADLINE_S: Final = 900.0
_COMMON: Final = ("numpy", "onnxruntime", "orjson")


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer: its script, its packages, its share of the events, and the most streams that it gets."""

    script: str
    packages: tuple[str, ...]
    share: float
    streams: int = 10**9


PEERS: Final = {
    "quix": Peer("quix.py", ("quixstreams>=3.28,<4",), 0.1),
    "bytewax": Peer("bytewax_flow.py", ("bytewax==0.21.1", "confluent-kafka"), 0.1),
    "faust": Peer("faust_app.py", ("faust-streaming>=0.15.3,<0.16",), 0.05),
    # Few, so that each has seen several seasons: before that, river has nothing to learn from.
    "river": Peer("river_loop.py", ("river>=0.26,<0.27", "confluent-kafka"), 0.1, streams=20),
    "plain": Peer("plain.py", ("confluent-kafka",), 0.2),
    "window": Peer("window.py", ("confluent-kafka",), 0.01, streams=8),  # few, so that their windows are full
}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=",".join(PEERS), help=f"peers to compare (default: {','.join(PEERS)})")
    parser.add_argument(
        "--venvs",
        type=Path,
        default=Path(".bench/venvs"),
        help="directory of their environments (default: .bench/venvs)",
    )
    parser.add_argument("--streams", type=int, default=1_000, help="streams (default: 1000)")
    parser.add_argument(
        "--events", type=int, default=200_000, help="events of the service; a peer gets a share (default: 200000)"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds (default: 3)")
    parser.add_argument("--partitions", type=int, default=4, help="partitions of the topics (default: 4)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_settings(parser)
    args = parser.parse_args()
    try:
        figures = compare(args, flags.load_settings(args))
    except RillcastError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if args.json:
        print(json.dumps(figures | {"machine": machine()}))
    else:
        show(figures)
    return 0


def compare(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Return rates and processor time of the service and of each peer, and the ratio of the rates.

    Raises:
        RillcastError: A peer could not be installed or failed; its output is in the message.
    """
    metadata = Bundle.load(settings.model).metadata
    names = args.peers.split(",")
    if unknown := set(names) - set(PEERS):
        raise RillcastError(f"unknown peers {sorted(unknown)}; known are {sorted(PEERS)}")
    pythons = {name: _environment(args.venvs, name) for name in names}
    backlogs = {
        name: fill_backlog(
            settings,
            args.partitions,
            metadata.frequency,
            round(args.events * (PEERS[name].share if name in PEERS else 1)),
            min(args.streams, PEERS[name].streams) if name in PEERS else args.streams,
        )
        for name in ("rillcast", *names)
    }
    runs: dict[str, list[Measured]] = {"rillcast": [], **{name: [] for name in names}}
    for number in range(args.repeat):
        for name in list(runs) if number % 2 else reversed(list(runs)):
            topics, events = backlogs[name]
            own = for_one_run(topics.settings, settings.kafka.client, "json")
            measured = (
                _run(pythons[name], PEERS[name].script, own, events, args.partitions)
                if name in PEERS
                else in_process(serve, own, events)
            )
            log.info("%s: %s", name, measured.summary())
            runs[name].append(measured)
    return {
        "model": f"{metadata.name}@{metadata.model_id}",
        "streams": args.streams,
        "runs": {
            name: {
                "events": measured[0].events,
                "events_per_second": statistics.median(run.rate for run in measured),
                "cpu_us_per_event": statistics.median(run.cpu_seconds / run.events * 1e6 for run in measured),
                "peak_rss_mib": statistics.median(run.peak_rss_mib for run in measured),
                "rillcast_is_faster_by": statistics.median(
                    own.rate / run.rate for own, run in zip(runs["rillcast"], measured, strict=True)
                ),
            }
            for name, measured in runs.items()
        },
    }


def _environment(folder: Path, name: str) -> Path:
    """Return the interpreter of a peer's environment, which is made if absent."""
    home = folder / name
    python, ready = home / "bin" / "python", home / ".ready"
    if not ready.exists():
        log.info("installing %s into %s", name, home)
        _call([sys.executable, "-m", "venv", "--clear", str(home)], f"the environment of {name}")
        packages = [*PEERS[name].packages, *_COMMON]
        _call([str(python), "-m", "pip", "install", "--quiet", *packages], f"installing {name}")
        ready.touch()
    return python


def _run(python: Path, script: str, settings: Settings, events: int, partitions: int) -> Measured:
    topics = settings.input.topic, settings.output.topic
    where = [settings.kafka.bootstrap_servers, *topics, f"peer-{uuid.uuid4().hex[:8]}"]
    numbers = str(events), str(partitions)
    output = _call([str(python), str(_HERE / script), *where, *numbers, str(settings.model)], script)
    try:
        fields = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RillcastError(f"{script} ended without a result; its output: {output[-1000:]!r}") from error
    return Measured(fields["events"], fields["seconds"], fields["cpu_seconds"], fields["peak_rss_mib"])


def _call(command: list[str], what: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise RillcastError(f"{what} was not done within {_DEADLINE_S:g} s") from error
    if done.returncode:
        raise RillcastError(f"{what} failed with {done.returncode}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
