"""`rillcast warm`: load history into the state store, before a deployment goes live.

Owns: which state may be replaced, the position at which the service begins, and the order: the group is stopped, no
state exists (or `--force`), history is stepped, the group's positions are committed, then the state as of them. State
without a position could not be paired with the input again; a position without state only means a longer replay.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Final

from rillcast.cli import flags, stored_tables
from rillcast.cli.signals import raise_if_interrupted
from rillcast.errors import SettingsError, StateError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.reading.values import entity_of
from rillcast.settings import FieldSettings, Settings
from rillcast.settings.input import TOPIC_FORMATS
from rillcast.transports.base import Assignment, Source

if TYPE_CHECKING:
    from rillcast.bundle.covariates import Covariate
    from rillcast.cli.stored_tables import StoredTable
    from rillcast.durability.warming import Warming
    from rillcast.engine.device import Device
    from rillcast.engine.step_engine import StepEngine
    from rillcast.reading.times import Unit
    from rillcast.stores.base import StateStore
    from rillcast.transports.base import Polled

EXAMPLES: Final = """\
examples:
  rillcast warm --history history.csv --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast warm --from-topic --model model.onnx --kafka.bootstrap-servers localhost:9092
  rillcast warm --history hosts.parquet --as-in-topic --input.fields.unique-id host --input.fields.y cpu,mem
  rillcast warm --from-topic --events 5000 --json
  rillcast warm --history days.csv --config rillcast.toml --table days

--history reads a file with unique_id, ds and y (.csv, .jsonl or .parquet) in any order, and steps it in that of time.
With --as-in-topic it has the members of the topic's records in their place. A table has covariates as columns.
The service then begins at the group's position, or without one at kafka.auto_offset_reset. Streams are assigned to
partitions by murmur2 of their id, as by the producers of Java, kafka-python and Rillcast.
--from-topic reads the input topic: the last --events of each partition, or all that are retained. The service then
begins at the group's position, or without one after these events.
Of a service with tables of models ([[models]]) all of them are warmed, each by the events that it takes; or the one
that --table names, such as a table that was added. A condition on a header is met by no record of a file.
"""
_CHUNK: Final = 5_000


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
    stored_tables.add_flag(parser)
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
    from rillcast.bundle.compatibility import require_same_covariates
    from rillcast.cli.commands.state_rebuild import require_stopped
    from rillcast.cli.commands.warm_member import OnlyMember
    from rillcast.stores.copying import load
    from rillcast.transports.connect import open_group

    tables = stored_tables.choose_tables(settings, args.table)
    require_same_covariates({table.name: table.metadata for table in tables})
    partitions = _partitions(settings)
    with ExitStack() as stack:
        group = stack.enter_context(closing(open_group(settings)))
        require_stopped(settings.kafka.group_id, group.members())
        opened, commit = stored_tables.open_stores(tables, stack, writing=True)
        stores = {table.number: store for table, store in zip(tables, opened, strict=True)}
        present = [
            [number for number in partitions if load(store, number).mark is not None] for store in stores.values()
        ]
        for table, found in zip(tables, present, strict=True):
            if found and not args.force:
                others = ", --table to warm another" if table.name else ""
                raise StateError(
                    f"{table} already has state of partitions {found}; nothing was changed. "
                    f"Start the service to continue from it, or use --force to replace it{others}"
                )
        of_file = None
        if args.history:
            of_file = _of_file(settings, args.history, None if args.as_in_topic else args.time_unit or "ms")
        warming = _warming(settings, tables, len(partitions), of_file)
        if of_file is not None:
            _take_file(of_file, warming, tables[0].metadata.covariates)
        source = OnlyMember(settings, partitions)
        try:
            source.join()
            positions = source.positions(at_end=args.from_topic)
            if args.from_topic:
                source.take(warming, positions, args.events)
            _erase(stores.values(), present, commit)
            source.commit(positions)
        finally:
            source.close()
        warming.store(stores, positions, commit)
    _print(warming, tables, positions, as_json=args.json)
    return 0


def _erase(stores: Collection[StateStore], present: Sequence[Sequence[int]], commit: Callable[[], None]) -> None:
    """Erase the partitions of which each store has state, in one commit."""
    for store, partitions in zip(stores, present, strict=True):
        for number in partitions:
            store.erase(number)
    if any(present):
        commit()
        for store in stores:
            store.commit()


def _require_topic(settings: Settings) -> None:
    if settings.input.path is not None:
        raise SettingsError(
            f"input.path is {settings.input.path!r}, expected a topic: every run reads a file from its beginning. "
            f"Put the history at the beginning of the file, or use a topic"
        )
    stored_tables.is_local(settings)  # refuses where no state is kept


def _partitions(settings: Settings) -> range:
    from rillcast.transports.connect import partitions_of

    return range(partitions_of(settings.kafka, settings.input.topic))


def _warming(settings: Settings, tables: Sequence[StoredTable], partitions: int, of_file: Settings | None) -> Warming:
    """Return the warming from a file into a number of partitions, or from the topic itself (`of_file` is None)."""
    from rillcast.codecs.connect import open_decoder
    from rillcast.durability.warming import Warming
    from rillcast.engine import device
    from rillcast.transports.kafka.kafka_python.partitioner import partition_of

    on = device.choose(settings.device, settings.threads, cuda_graphs=settings.cuda_graphs, tf32=settings.tf32)
    engines = {table.number: _engine(table, on) for table in tables}
    decoder = open_decoder(of_file or settings, tables[0].metadata)
    if of_file is None:
        return Warming(engines, decoder, None)
    of_stream = partial(partition_of, partitions=partitions)
    if settings.input.has_members:  # the producer keys a record by what its streams have in common
        return Warming(engines, decoder, lambda unique_id: of_stream(entity_of(unique_id)))
    return Warming(engines, decoder, of_stream)


def _engine(table: StoredTable, on: Device) -> StepEngine:
    """Return the engine of a table's model, without streams."""
    from rillcast.engine.residents import Limits
    from rillcast.engine.step_engine import StepEngine
    from rillcast.serving.factory import allowed_lateness
    from rillcast.stores.connect import aggregation_of, codec_of, watched_overdue

    settings, metadata = table.settings, table.metadata
    return StepEngine(
        table.bundle,
        on,
        batching=on.batching(settings.worker.batch_rows),
        # A file may hold one stream after the other: by event time all but the last would be idle.
        limits=Limits(
            0,
            settings.state.max_streams_per_partition,
            page_slots=codec_of(settings, metadata).page_slots,
        ),
        lateness=allowed_lateness(settings, metadata.frequency),
        aggregation=aggregation_of(settings.input, metadata),
        calibrate=settings.calibration == "on",
        bounds=settings.publish.bounds == "auto",
        alarms=settings.alarms.per_stream,
        overdue_periods=watched_overdue(settings),
    )


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


def _print(warming: Warming, tables: Sequence[StoredTable], positions: Mapping[int, int], *, as_json: bool) -> None:
    taken, rows = warming.taken, []
    for table in tables:
        for partition, position in positions.items():
            streams, cold = warming.streams(partition, table.number)
            row = {"partition": partition, "position": position, "streams": streams, "warming_up": cold}
            rows.append((table, row))
    if as_json:
        figures = {
            "events": taken.events,
            "stepped": taken.stepped,
            "unmatched": taken.unmatched,
            "outcomes": dict(taken.outcomes),
            "refused": dict(taken.refused),
            "partitions": [stored_tables.row_of(table, row) for table, row in rows],
        }
        print(to_json(figures))
        return
    streams, cold = sum(row["streams"] for _, row in rows), sum(row["warming_up"] for _, row in rows)
    print(f"stepped {taken.stepped:,} events of {streams:,} streams; {cold:,} of them are still warming up")
    advanced = ("ok", "warming_up", "missing", "gap")
    others = {kind: count for kind, count in taken.outcomes.items() if kind not in advanced}
    if others:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in others.items())
        print(f"{sum(others.values()):,} of {taken.events:,} events changed nothing: {kinds}")
    if taken.unmatched:
        print(f"{taken.unmatched:,} events were left out: no table of models takes them")
    if taken.refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in taken.refused.items())
        print(f"{taken.refused.total():,} records were rejected ({reasons}), the first: {taken.example}")
    for table, row in rows:
        where = f"models.{table.name}, " if table.name else ""
        print(f"  {where}partition {row['partition']}: {row['streams']:,} streams as of {row['position']:,}")
