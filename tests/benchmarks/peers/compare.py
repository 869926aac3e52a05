"""The service against other stream processors: the same events, model and broker, in turns within one run.

    python -m tests.benchmarks.peers.compare --model MODEL --kafka.bootstrap-servers HOST:PORT [--json]

Owns: the comparison. A peer's forecasts are compared with the engine's before it is timed. It gets fewer events than
the service, because it is slower by orders of magnitude. Both are timed from their first event in hand to the delivery
of their last result; the clock of the JVM's peers starts after a fifth of their events, when their code is compiled.
Each program says what it keeps of its state, and where.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rillcast.benchmarks.backlog import fill_backlog, for_one_run, observations
from rillcast.benchmarks.load import name_of
from rillcast.benchmarks.machine import machine
from rillcast.benchmarks.output import show
from rillcast.benchmarks.process import Topics
from rillcast.benchmarks.serve import serve
from rillcast.benchmarks.timing import Measured, in_process
from rillcast.bundle.bundle import Bundle
from rillcast.bundle.shipped import locate
from rillcast.cli import flags
from rillcast.errors import RillcastError
from rillcast.settings import Settings
from tests.benchmarks.peers import equality
from tests.benchmarks.peers.programs import PEERS, Peer, call, command

log = logging.getLogger(__name__)

_SERVICES: Final = {"at_least_once": "rillcast", "exactly_once": "rillcast_exactly_once"}
_CHECKED_STREAMS: Final = 20
_CHECKED_EVENTS: Final = 2_000


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
        RillcastError: A peer could not be installed, failed, or computes other forecasts; its output is in the message.
    """
    settings = settings.model_copy(update={"model": str(locate(str(settings.model)))})
    bundle = Bundle.load(settings.one_model)
    names = args.peers.split(",")
    if unknown := set(names) - set(PEERS):
        raise RillcastError(f"unknown peers {sorted(unknown)}; known are {sorted(PEERS)}")
    commands = {name: command(PEERS[name], name, args.venvs) for name in names}
    for name in names:
        if PEERS[name].same_forecasts:
            _require_same(name, commands[name], settings, bundle, args.partitions)
    services = {_SERVICES[PEERS[name].delivery]: PEERS[name].delivery for name in names}
    backlogs = {
        name: fill_backlog(
            settings,
            args.partitions,
            bundle.metadata.frequency,
            round(args.events * (PEERS[name].share if name in PEERS else 1)),
            min(args.streams, PEERS[name].streams) if name in PEERS else args.streams,
        )
        for name in (*services, *names)
    }
    runs: dict[str, list[Measured]] = {name: [] for name in backlogs}
    for number in range(args.repeat):
        for name in list(runs) if number % 2 else reversed(list(runs)):
            topics, events = backlogs[name]
            own = for_one_run(topics.settings, settings.kafka.client, "json")
            measured = (
                run(commands[name], PEERS[name], own, events, args.partitions)
                if name in PEERS
                else in_process(serve, _with_delivery(own, services[name]), events)
            )
            log.info("%s: %s", name, measured.summary())
            runs[name].append(measured)
    return {
        "model": name_of(bundle),
        "streams": args.streams,
        "runs": {
            name: {
                "events": measured[0].events,
                "events_per_second": statistics.median(run.rate for run in measured),
                "cpu_us_per_event": statistics.median(run.cpu_seconds / run.events * 1e6 for run in measured),
                "peak_rss_mib": statistics.median(run.peak_rss_mib for run in measured),
                "rillcast_is_faster_by": _ratio(runs[_of(name)], measured),
            }
            for name, measured in runs.items()
        },
    }


def run(start: list[str], peer: Peer, settings: Settings, events: int, partitions: int) -> Measured:
    """Run a peer over a backlog.

    Raises:
        RillcastError: It failed, or ended without a result.
    """
    topics = settings.input.topic, settings.output.topic
    where = [settings.kafka.bootstrap_servers, *topics, f"peer-{uuid.uuid4().hex[:8]}"]
    task = [*where, str(events), str(partitions), str(settings.model)]
    with tempfile.TemporaryDirectory(prefix="rillcast-peer-") as scratch:
        if peer.on_jvm:
            start = [*start[:1], f"-Djava.io.tmpdir={scratch}", *start[1:]]
            task += [peer.delivery, *peer.options]
        output = call([*start, *task], peer.program)
    try:
        fields = json.loads(output.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise RillcastError(f"{peer.program} ended without a result; its output: {output[-1000:]!r}") from error
    return Measured(fields["events"], fields["seconds"], fields["cpu_seconds"], fields["peak_rss_mib"])


def _require_same(name: str, start: list[str], settings: Settings, bundle: Bundle, partitions: int) -> None:
    keys, values = observations(bundle.metadata.frequency, _CHECKED_STREAMS, 0, _CHECKED_EVENTS // _CHECKED_STREAMS)
    topics = Topics(settings, partitions)
    topics.fill(keys, values)
    run(start, PEERS[name], topics.settings, len(values), partitions)
    equality.require_same(name, equality.of_engine(bundle, values), equality.of_topic(topics.settings, len(values)))


def _with_delivery(settings: Settings, delivery: str) -> Settings:
    return settings.model_copy(update={"worker": settings.worker.model_copy(update={"delivery": delivery})})


def _of(name: str) -> str:
    """Return the run of the service that a run is compared with."""
    return _SERVICES[PEERS[name].delivery] if name in PEERS else name


def _ratio(own: Sequence[Measured], others: Sequence[Measured]) -> float:
    return statistics.median(one.rate / other.rate for one, other in zip(own, others, strict=True))


if __name__ == "__main__":
    sys.exit(main())
