"""`rillcast state`: inspect stored state, copy it, or erase it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rillcast import outputs
from rillcast.cli import flags, stored_tables
from rillcast.errors import SettingsError
from rillcast.figures import to_json
from rillcast.observability import logs
from rillcast.settings import Settings

if TYPE_CHECKING:
    from rillcast.transports.base import Assignment

EXAMPLES: Final = """\
examples:
  rillcast state inspect --kafka.bootstrap-servers localhost:9092 --json
  rillcast state inspect --state.store local --state.path rillcast-state
  rillcast state export backup --model model.onnx
  rillcast state import backup --model model.onnx --replace
  rillcast state rebuild --partition 3 --model model.onnx
  rillcast state export backup --config rillcast.toml --table hours

Of a service with tables of models ([[models]]) the commands copy and erase the state of all tables, or of the one that
--table names. The store is that of the settings, as for `run`. Stop the service before an import or a rebuild, not for
an export.
Exit codes: 0 done, 2 settings, or not confirmed, 5 the store is unreachable or in use, 6 stored state is damaged, or
exists already.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    inspect = actions.add_parser(
        "inspect", help="list stored state per partition and model, and check that it is complete"
    )
    export = actions.add_parser("export", help="copy the models' state from the store to a directory")
    importing = actions.add_parser("import", help="copy the models' state from such a directory to the store")
    for each in (export, importing):
        each.add_argument("directory", type=flags.path, help="directory in the format of the local store")
        each.add_argument("--replace", action="store_true", help="replace existing state of the target")
    rebuild = actions.add_parser(
        "rebuild", help="erase the models' state, so that the next start replays all retained events"
    )
    rebuild.add_argument("--partition", type=int, action="append", help="only this partition; repeatable")
    rebuild.add_argument("--yes", action="store_true", help="erase without asking")
    for each in (export, importing, rebuild):
        stored_tables.add_flag(each)
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
    return _copy(settings, args)


def _inspect(settings: Settings, *, as_json: bool) -> int:
    from rillcast.cli.stored_tables import is_local, topic_partitions
    from rillcast.stores.connect import kind_of, reader_of
    from rillcast.stores.survey import survey_directory, survey_topic

    if is_local(settings):
        where = f"directory {settings.state.path}"
        found = survey_directory(settings.state.path)
    else:
        where = f"topic {settings.state_topic}"
        partitions = topic_partitions(settings)
        with closing(reader_of(settings)()) as reader:
            found = survey_topic(settings.state_topic, reader, partitions)
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
        print(to_json({"store": kind_of(settings), "where": where, "models": models, "partitions": rows}))
        return 0
    streams, stored = sum(each.streams for each in found), sum(each.stored_bytes for each in found)
    print(f"{where}: {streams:,} streams, {stored:,} bytes")
    _print_table(rows)
    return 0


def _copy(settings: Settings, args: argparse.Namespace) -> int:
    from rillcast.cli.commands.state_copy import export_state, import_state
    from rillcast.cli.stored_tables import choose_tables, is_local, models_of, row_of

    directory, action = args.directory, args.action
    if action == "export":
        outputs.check_folder("DIRECTORY", directory)
    tables = choose_tables(settings, args.table)
    if is_local(settings) and directory.resolve() == settings.state.path.resolve():
        raise SettingsError(f"{directory} is the store itself (state.path); use another directory")
    copy = import_state if action == "import" else export_state
    copied = copy(directory, tables, replace=args.replace)
    rows = [row_of(table, each._asdict()) for table, copies in zip(tables, copied, strict=True) for each in copies]
    if args.json:
        print(to_json({**models_of(tables), "directory": str(directory), "partitions": rows}))
        return 0
    for table, copies in zip(tables, copied, strict=True):
        print(f"{action}ed {sum(each.streams for each in copies):,} streams of {table}")
    _print_table(rows)
    return 0


def _rebuild(settings: Settings, args: argparse.Namespace) -> int:
    from rillcast.cli.commands.state_rebuild import chosen, confirm, erase, losses, require_stopped
    from rillcast.cli.stored_tables import choose_tables, is_local, models_of, open_stores, row_of, topic_partitions
    from rillcast.stores.connect import directory_of
    from rillcast.stores.local import stored_partitions
    from rillcast.transports.connect import open_group

    tables = choose_tables(settings, args.table)
    assignments: Sequence[Assignment] = ()
    if is_local(settings):
        found = {
            number
            for each in tables
            for number in stored_partitions(directory_of(settings, each.name), each.metadata.model_id)
        }
        partitions: Sequence[int] = sorted(found)
    else:
        partitions = topic_partitions(settings)
    partitions = chosen(args.partition, partitions)
    with ExitStack() as stack:
        if settings.input.path is None:
            group = stack.enter_context(closing(open_group(settings)))
            require_stopped(settings.kafka.group_id, group.members())
            assignments = group.assignments(partitions)
        stores, commit = open_stores(tables, stack, writing=True)
        plans = [losses(store, partitions, assignments) for store in stores]
        if not args.json:
            for table, plan in zip(tables, plans, strict=True):
                print(f"{table}:")
                for loss in plan:
                    print(f"  partition {loss.partition}: {loss.consequence()}")
        confirm(args, [loss for plan in plans for loss in plan])
        erased = [erase(store, plan, commit) for store, plan in zip(stores, plans, strict=True)]
    if args.json:
        rows = [row_of(table, loss._asdict()) for table, plan in zip(tables, plans, strict=True) for loss in plan]
        by_table = {table.name: numbers for table, numbers in zip(tables, erased, strict=True)}
        document = {"erased": by_table if tables[0].name else erased[0], "partitions": rows}
        print(to_json({**models_of(tables), **document}))
    else:
        count = sum(map(len, erased))
        print(f"erased {count} partitions; start the service with worker.recovery = restore to replay the events")
    return 0


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
