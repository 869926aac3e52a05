"""`rillcast warm`: load history into the state store, before a deployment goes live.

Owns: which state may be replaced, the position at which the service begins, and the order: the group is stopped, no
state exists (or `--force`), history is stepped, the group's positions are committed, then the state as of them. State
without a position could not be paired with the input again; a position without state only means a longer replay.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Final

from rillcast.cli import flags
from rillcast.cli.signals import raise_if_interrupted
from rillcast.errors import SettingsError, StateError, TransportError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.reading.values import entity_of
from rillcast.settings import FieldSettings, Settings
from rillcast.settings.input import TOPIC_FORMATS
from rillcast.transports.base import Assignment, Source

if TYPE_CHECKING:
    from rillcast.bundle.covariates import Covariate
    from rillcast.durability.warming import Warming
    from rillcast.reading.times import Unit
    from rillcast.transports.base import Polled

EXAMPLES: Final = """\
examples:
  rillcast warm --history history.csv --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast warm --from-topic --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast warm --history hosts.parquet --as-in-topic --input.fields.unique-id host --input.fields.y cpu,mem
  rillcast warm --from-topic --events 5000 --json

--history reads a file with unique_id, ds and y (.csv, .jsonl or .parquet) in any order, and steps it in that of time.
With --as-in-topic it has the members of the topic's records in their place. A table has covariates as columns.
The service then begins at the group's position, or without one at kafka.auto_offset_reset. Streams are assigned to
partitions by murmur2 of their id, as by the producers of Java, kafka-python and Rillcast.
--from-topic reads the input topic: the last --events of each partition, or all that are retained. The service then
begins at the group's position, or without one after these events.
"""
_CHUNK: Final = 5_000
_JOIN_TIMEOUT_S: Final = 120.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    history = parser.add_mutually_exclusive_group(required=True)
    history.add_argument("--history", type=flags.path_text, metavar="FILE", help="file of the history")
    history.add_argument("--from-topic", action="store_true", help="read the events that the input topic retains")
    parser.add_argument(
        "--time-unit",
        choices=["s", "ms", "us", "ns"],
        help="unit of times of the file that are numbers (default: ms)",
    )
    parser.add_argument(
        "--as-in-topic",
        action="store_true",
        help="the file has the members of the topic's records, or columns of their names, as input.fields, input.only "
        "and input.format say; by default it has unique_id, ds and y",
    )
    parser.add_argument(
        "--events", type=int, metavar="N", help="only the last N events of each partition, with --from-topic"
    )
    parser.add_argument("--force", action="store_true", help="replace existing state")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Warm the state store.

    Raises:
        SettingsError: The settings have no topic or no store.
        StateError: State exists already.
        TransportError: The group has members, or a broker does not answer.
    """
    settings = flags.load_settings(args)
    logs.configure(settings.log.level, settings.log.format)
    settings = flags.with_local_model(settings)
    if args.events is not None and (args.events < 1 or not args.from_topic):
        raise SettingsError(f"--events {args.events}: expected at least 1, and --from-topic")
    if args.as_in_topic and (args.history is None or args.time_unit is not None):
        raise SettingsError("--as-in-topic: only with --history, and input.fields.ds_unit in place of --time-unit")
    _require_topic(settings)
    from rillcast.bundle.bundle import Bundle
    from rillcast.cli.commands.state import opened
    from rillcast.cli.commands.state_rebuild import require_stopped
    from rillcast.transports.connect import open_group

    metadata = Bundle.load(settings.one_model).metadata
    partitions = _partitions(settings)
    with ExitStack() as stack:
        group = stack.enter_context(closing(open_group(settings)))
        require_stopped(settings.kafka.group_id, group.members())
        store, commit = opened(settings, metadata, stack, writing=True)
        from rillcast.stores.copying import load

        present = [number for number in partitions if load(store, number).mark is not None]
        if present and not args.force:
            raise StateError(
                f"model {metadata.model_id} already has state of partitions {present}; nothing was changed. "
                f"Start the service to continue from it, or use --force to replace it"
            )
        of_file = None
        if args.history:
            of_file = _of_file(settings, args.history, None if args.as_in_topic else args.time_unit or "ms")
        warming = _warming(settings, len(partitions), of_file)
        if of_file is not None:
            _take_file(of_file, warming, metadata.covariates)
        source = _Member(settings, partitions)
        try:
            source.join()
            positions = source.positions(at_end=args.from_topic)
            if args.from_topic:
                source.take(warming, positions, args.events)
            for number in present:
                store.erase(number)
            if present:
                commit()
                store.commit()
            source.commit(positions)
        finally:
            source.close()
        warming.store(store, positions, commit)
    _print(warming, positions, as_json=args.json)
    return 0


def _require_topic(settings: Settings) -> None:
    from rillcast.stores.connect import kind_of

    if settings.input.path is not None:
        raise SettingsError(
            f"input.path is {settings.input.path!r}, expected a topic: every run reads a file from its beginning. "
            f"Put the history at the beginning of the file, or use a topic"
        )
    if kind_of(settings) == "none":
        raise SettingsError(
            "state.store keeps no state with these settings; choose a store, such as --state.store local"
        )


def _partitions(settings: Settings) -> range:
    from rillcast.transports.connect import partitions_of

    return range(partitions_of(settings.kafka, settings.input.topic))


def _warming(settings: Settings, partitions: int, of_file: Settings | None) -> Warming:
    """Return the warming from a file into a number of partitions, or from the topic itself (`of_file` is None)."""
    from rillcast.bundle.bundle import Bundle
    from rillcast.codecs.connect import open_decoder
    from rillcast.durability.warming import Warming
    from rillcast.engine import device
    from rillcast.engine.residents import Limits
    from rillcast.engine.step_engine import StepEngine
    from rillcast.serving.factory import allowed_lateness
    from rillcast.stores.connect import aggregation_of, codec_of

    bundle, on = (
        Bundle.load(settings.one_model),
        device.choose(settings.device, settings.threads, cuda_graphs=settings.cuda_graphs, tf32=settings.tf32),
    )
    engine = StepEngine(
        bundle,
        on,
        batching=on.batching(settings.worker.batch_rows),
        # A file may hold one stream after the other: by event time all but the last would be idle.
        limits=Limits(
            0,
            settings.state.max_streams_per_partition,
            page_slots=codec_of(settings, bundle.metadata).page_slots,
        ),
        lateness=allowed_lateness(settings, bundle.metadata.frequency),
        aggregation=aggregation_of(settings.input, bundle.metadata),
        calibrate=settings.calibration == "on",
    )
    if of_file is None:
        return Warming(engine, open_decoder(settings, bundle.metadata), None)
    from rillcast.transports.kafka.kafka_python.partitioner import partition_of

    decoder = open_decoder(of_file, bundle.metadata)
    of_stream = partial(partition_of, partitions=partitions)
    if settings.input.has_members:  # the producer keys a record by what its streams have in common
        return Warming(engine, decoder, lambda unique_id: of_stream(entity_of(unique_id)))
    return Warming(engine, decoder, of_stream)


def _of_file(settings: Settings, path: str, unit: Unit | None) -> Settings:
    """Return the settings for a history file, whose clock is unknown.

    Its members have the default names, and times the unit; or they are those of the topic's records (unit = None).
    """
    changed: dict[str, object] = {"path": path, "max_future_s": 0.0, "rate": 0.0}
    if unit is not None:
        fields = FieldSettings(ds_unit=unit)
        changed |= {"format": "auto", "envelope": "none", "only": None, "fields": fields}
    of_file = settings.input.model_copy(update=changed)
    if unit is None and (of_file.format in TOPIC_FORMATS or _is_table(path)):
        of_file = of_file.model_copy(update={"format": "auto", "envelope": "none"})
    return settings.model_copy(update={"input": of_file})


def _is_table(path: str) -> bool:
    return path.lower().removesuffix(".gz").endswith((".csv", ".parquet"))


def _take_file(of_file: Settings, warming: Warming, covariates: Sequence[Covariate]) -> None:
    from rillcast.transports.connect import open_source

    source = open_source(of_file, covariates)
    try:
        source.open(_FromTheStart())
        warming.take_sorted(_polls(source, of_file.worker.poll_timeout_s))
    finally:
        source.close()


def _polls(source: Source, timeout_s: float) -> Iterator[Polled]:
    while not source.exhausted:
        yield source.poll(_CHUNK, timeout_s)
        raise_if_interrupted()


class _FromTheStart:
    """Reads a file from its beginning."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        return {assignment.partition: assignment.beginning for assignment in assignments}

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """Do nothing; the partition of a file never moves."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Do nothing; the partition of a file never moves."""


class _Member:
    """The group's only member, with all of its partitions paused until history is read from them."""

    def __init__(self, settings: Settings, partitions: Sequence[int]) -> None:
        from rillcast.transports.connect import open_source

        self._settings = settings
        self._partitions = set(partitions)
        self._assigned: dict[int, Assignment] = {}
        self._source: Source = open_source(settings)

    def on_assigned(self, assignments: Sequence[Assignment]) -> Mapping[int, int | None]:
        self._assigned |= {assignment.partition: assignment for assignment in assignments}
        return dict.fromkeys((assignment.partition for assignment in assignments), None)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        raise TransportError(
            f"group {self._settings.kafka.group_id}: another member took partitions {sorted(partitions)} during the "
            f"warm-up; no state was stored. Stop the service and try again"
        )

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.on_revoked(partitions)

    def join(self) -> None:
        """Join, and wait for every partition."""
        import time

        self._source.open(self)
        deadline = time.monotonic() + _JOIN_TIMEOUT_S
        while self._assigned.keys() != self._partitions:
            self._source.poll(1, self._settings.worker.poll_timeout_s)
            raise_if_interrupted()
            if time.monotonic() > deadline:
                missing = sorted(self._partitions - self._assigned.keys())
                raise TransportError(
                    f"group {self._settings.kafka.group_id}: partitions {missing} were not assigned within "
                    f"{_JOIN_TIMEOUT_S:g} s; no state was stored. Stop other members and try again"
                )

    def positions(self, *, at_end: bool) -> dict[int, int]:
        """Return the positions of the service: the group's own, or else the end or `kafka.auto_offset_reset`."""
        latest = at_end or self._settings.kafka.auto_offset_reset == "latest"
        return {
            number: one.committed if one.committed is not None else (one.end if latest else one.beginning)
            for number, one in sorted(self._assigned.items())
        }

    def take(self, warming: Warming, positions: Mapping[int, int], events: int | None) -> None:
        """Step the events of the topic before the positions."""
        import numpy as np

        for number, position in positions.items():
            beginning = self._assigned[number].beginning
            self._source.resume_from(number, beginning if events is None else max(beginning, position - events))
        waiting = set(positions)
        while waiting:
            polled = self._source.poll(self._settings.worker.max_poll_records, self._settings.worker.poll_timeout_s)
            raise_if_interrupted()
            ends = np.array([positions.get(number, 0) for number in polled.partitions.tolist()], np.int64)
            warming.take(polled.take(np.flatnonzero(polled.offsets < ends)))
            at = self._source.positions()
            done = {number for number in waiting if at.get(number, 0) >= positions[number]}
            if done:
                self._source.pause(sorted(done))
                waiting -= done

    def commit(self, positions: Mapping[int, int]) -> None:
        self._source.commit(positions)

    def close(self) -> None:
        self._source.close()


def _print(warming: Warming, positions: Mapping[int, int], *, as_json: bool) -> None:
    taken, rows = warming.taken, []
    for partition, position in positions.items():
        streams, cold = warming.streams(partition)
        rows.append({"partition": partition, "position": position, "streams": streams, "warming_up": cold})
    if as_json:
        figures = {
            "events": taken.events,
            "stepped": taken.stepped,
            "outcomes": dict(taken.outcomes),
            "refused": dict(taken.refused),
            "partitions": rows,
        }
        print(to_json(figures))
        return
    streams, cold = sum(row["streams"] for row in rows), sum(row["warming_up"] for row in rows)
    print(f"stepped {taken.stepped:,} events of {streams:,} streams; {cold:,} of them are still warming up")
    advanced = ("ok", "warming_up", "missing", "gap")
    others = {kind: count for kind, count in taken.outcomes.items() if kind not in advanced}
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.items())
        print(f"{sum(others.values()):,} of {taken.events:,} events changed nothing: {kinds}")
    if taken.refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in taken.refused.items())
        print(f"{taken.refused.total():,} records were rejected ({reasons}), the first: {taken.example}")
    for row in rows:
        print(f"  partition {row['partition']}: {row['streams']:,} streams as of {row['position']:,}")
