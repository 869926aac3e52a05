"""`rillcast state`: inspect stored state, copy it, or erase it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rillcast import outputs
from rillcast.cli import flags
from rillcast.errors import SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.settings import Settings

if TYPE_CHECKING:
    from rillcast.bundle.bundle import BundleMetadata
    from rillcast.stores.base import StateStore
    from rillcast.transports.base import Assignment

EXAMPLES: Final = """\
examples:
  rillcast state inspect --kafka.bootstrap-servers localhost:9092 --json
  rillcast state inspect --state.store local --state.path rillcast-state
  rillcast state export backup --model model.onnx
  rillcast state import backup --model model.onnx --replace
  rillcast state rebuild --partition 3 --model model.onnx

The store is that of the settings, as for `run`. Stop the service before an import or a rebuild, not for
an export.
Exit codes: 0 done, 2 settings, or not confirmed, 5 the store is unreachable or in use, 6 stored state is damaged, or
exists already.
"""
# One transaction holds a whole partition; brokers allow up to 15 minutes by default.
_TRANSACTION_TIMEOUT_S: Final = 300.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser(
        "inspect", help="list stored state per partition and model, and check that it is complete"
    )
    export = actions.add_parser("export", help="copy the model's state from the store to a directory")
    importing = actions.add_parser("import", help="copy the model's state from such a directory to the store")
    for each in (export, importing):
        each.add_argument("directory", type=flags.path, help="directory in the format of the local store")
        each.add_argument("--replace", action="store_true", help="replace existing state of the target")
    rebuild = actions.add_parser(
        "rebuild", help="erase the model's state, so that the next start replays all retained events"
    )
    rebuild.add_argument("--partition", type=int, action="append", help="only this partition; repeatable")
    rebuild.add_argument("--yes", action="store_true", help="erase without asking")
    for each in (inspect, export, importing, rebuild):
        each.add_argument("--json", action="store_true", help="print one JSON object")
        flags.add_settings(each)


def run(args: argparse.Namespace) -> int:
    """Do the action, and print its result."""
    settings = flags.load_settings(args)
    logs.configure(settings.log.level, settings.log.format)
    if args.action == "inspect":
        return _inspect(settings, as_json=args.json)
    settings = flags.with_local_model(settings)
    if args.action == "rebuild":
        return _rebuild(settings, args)
    return _copy(settings, args.directory, args.action, replace=args.replace, as_json=args.json)


def _inspect(settings: Settings, *, as_json: bool) -> int:
    from rillcast.stores.connect import kind_of, reader_of
    from rillcast.stores.survey import survey_directory, survey_topic

    kind = kind_of(settings)
    if kind == "kafka":
        where = f"topic {settings.state_topic}"
        partitions = _topic_partitions(settings)
        with closing(reader_of(settings)()) as reader:
            found = survey_topic(settings.state_topic, reader, partitions)
    else:
        where = f"directory {_directory(settings)}"
        found = survey_directory(_directory(settings))
    rows = [
        {
            "partition": each.partition,
            "model": each.model_id,
            "offset": each.mark.offset if each.mark is not None else None,
            "watermark_ms": each.mark.watermark_ms if each.mark is not None else None,
            "pages": each.pages,
            "streams": each.streams,
            "bytes": each.stored_bytes,
        }
        for each in found
    ]
    if as_json:
        models = sorted({each.model_id for each in found})
        print(to_json({"store": kind, "where": where, "models": models, "partitions": rows}))
        return 0
    streams, stored = sum(each.streams for each in found), sum(each.stored_bytes for each in found)
    print(f"{where}: {streams:,} streams, {stored:,} bytes")
    _print_table(rows)
    return 0


def _copy(settings: Settings, directory: Path, action: str, *, replace: bool, as_json: bool) -> int:
    from rillcast.bundle.bundle import Bundle
    from rillcast.stores.connect import codec_of, kind_of
    from rillcast.stores.copying import copy_state, load
    from rillcast.stores.local import LocalStore, stored_partitions
    from rillcast.stores.local_snapshot import read_snapshot

    if action == "export":
        outputs.check_folder("DIRECTORY", directory)
    metadata = Bundle.load(settings.one_model).metadata
    kept = kind_of(settings) == "kafka" or _directory(settings)
    if isinstance(kept, Path) and directory.resolve() == kept.resolve():
        raise SettingsError(f"{directory} is the store itself (state.path); use another directory")
    if action == "import" and not stored_partitions(directory, metadata.model_id):
        raise SettingsError(f"{directory} has no state of model {metadata.model_id} ({settings.one_model})")
    codec = codec_of(settings, metadata)
    with ExitStack() as stack:
        backup = stack.enter_context(closing(LocalStore(directory, codec)))
        if action == "import":
            store, commit = opened(settings, metadata, stack, writing=True)
            partitions = stored_partitions(directory, metadata.model_id)
            copies = list(copy_state(partial(load, backup), store, partitions, commit, replace=replace))
        elif isinstance(kept, Path):  # without its lock, since a service may be using it
            partitions = stored_partitions(kept, metadata.model_id)
            copies = list(
                copy_state(partial(read_snapshot, kept, codec), backup, partitions, _nothing, replace=replace)
            )
        else:
            store, _ = opened(settings, metadata, stack, writing=False)
            found = _topic_partitions(settings)
            copies = list(copy_state(partial(load, store), backup, found, _nothing, replace=replace))
    rows = [each._asdict() for each in copies]
    if as_json:
        print(to_json({"model": metadata.model_id, "directory": str(directory), "partitions": rows}))
        return 0
    print(f"{action}ed {sum(each.streams for each in copies):,} streams of model {metadata.model_id}")
    _print_table(rows)
    return 0


def _rebuild(settings: Settings, args: argparse.Namespace) -> int:
    from rillcast.bundle.bundle import Bundle
    from rillcast.cli.commands.state_rebuild import chosen, confirm, erase, losses, require_stopped
    from rillcast.stores.connect import kind_of
    from rillcast.stores.local import stored_partitions
    from rillcast.transports.connect import open_group

    metadata = Bundle.load(settings.one_model).metadata
    assignments: Sequence[Assignment] = ()
    if kind_of(settings) == "kafka":
        partitions = _topic_partitions(settings)
    else:
        partitions = stored_partitions(_directory(settings), metadata.model_id)
    partitions = chosen(args.partition, partitions)
    with ExitStack() as stack:
        if settings.input.path is None:
            group = stack.enter_context(closing(open_group(settings)))
            require_stopped(settings.kafka.group_id, group.members())
            assignments = group.assignments(partitions)
        store, commit = opened(settings, metadata, stack, writing=True)
        plan = losses(store, partitions, assignments)
        if not args.json:
            print(f"model {metadata.model_id}:")
            for loss in plan:
                print(f"  partition {loss.partition}: {loss.consequence()}")
        confirm(args, plan)
        erased = erase(store, plan, commit)
    if args.json:
        print(to_json({"model": metadata.model_id, "erased": erased, "partitions": [x._asdict() for x in plan]}))
    else:
        print(f"erased {len(erased)} partitions; start the service with worker.recovery = restore to replay the events")
    return 0


def opened(
    settings: Settings, metadata: BundleMetadata, stack: ExitStack, *, writing: bool
) -> tuple[StateStore, Callable[[], None]]:
    """Open the store of the settings; return it with a function that commits all writes to it at once."""
    from rillcast.stores.connect import codec_of, kind_of, prepare_store, reader_of
    from rillcast.stores.kafka import KafkaStore
    from rillcast.stores.local import LocalStore
    from rillcast.transports.base import Channel
    from rillcast.transports.connect import open_transactional_sink

    codec = codec_of(settings, metadata)
    if kind_of(settings) == "local":
        return stack.enter_context(closing(LocalStore(settings.state.path, codec))), _nothing
    topic, reader = settings.state_topic, reader_of(settings)
    if not writing:
        return stack.enter_context(closing(KafkaStore(topic, codec, None, reader))), _nothing
    prepare_store(settings, metadata)
    kafka = settings.kafka.model_copy(
        update={
            "transactional_id": f"{settings.kafka.group_id}-state-command",
            "transaction_timeout_s": max(_TRANSACTION_TIMEOUT_S, settings.kafka.transaction_timeout_s),
        }
    )
    sink = stack.enter_context(closing(open_transactional_sink(kafka, {Channel.STATE: topic}, settings.input.topic)))
    store = stack.enter_context(closing(KafkaStore(topic, codec, sink, reader)))
    return store, lambda: sink.commit({}, None)


def _directory(settings: Settings) -> Path:
    """Return the directory of a local store."""
    from rillcast.stores.connect import kind_of

    if kind_of(settings) == "none":
        raise SettingsError(
            "state.store keeps no state with these settings; choose a store, such as --state.store local"
        )
    return settings.state.path


def _topic_partitions(settings: Settings) -> Sequence[int]:
    from rillcast.transports.connect import partitions_of

    return range(partitions_of(settings.kafka, settings.state_topic))


def _nothing() -> None:
    """Do nothing; a directory has no transport to commit."""


def _print_table(rows: Sequence[Mapping[str, object]]) -> None:
    if not rows:
        return
    titles = list(rows[0])
    cells = [[_cell(title, row[title]) for title in titles] for row in rows]
    widths = [max(len(title), *(len(row[column]) for row in cells)) for column, title in enumerate(titles)]
    for row in [[title.removesuffix("_ms") for title in titles], *cells]:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def _cell(title: str, value: object) -> str:
    if value is None:
        return "-"
    if title == "watermark_ms" and isinstance(value, int):
        try:
            return datetime.fromtimestamp(value / 1_000, UTC).isoformat(timespec="seconds")
        except (OverflowError, ValueError):  # beyond the calendar
            return f"{value} ms"
    return f"{value:,}" if isinstance(value, int) else str(value)
