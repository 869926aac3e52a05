"""`rillcast rekey`: copy a topic to another one, keyed by stream."""

from __future__ import annotations

import argparse
import socket
import sys
from contextlib import ExitStack, closing
from typing import Final

from rillcast.cli import flags
from rillcast.cli.signals import keep_exit_code, on_request_to_stop
from rillcast.errors import RillcastError, SettingsError
from rillcast.observability import logs
from rillcast.settings import Settings

EXAMPLES: Final = """\
examples:
  rillcast rekey --from raw --to observations
  rillcast rekey --from raw --to observations --workers 4
  rillcast rekey --from raw --to observations --input.fields.unique-id tags.host --at-least-once

A stream has to stay in one partition. This command runs between a topic that is not keyed by stream and the service. It
finds the stream of each record by the settings of the service (`input.format`, `input.fields`, ...) and copies the
record, with the id of its stream as the key; value, headers and timestamp stay. A record without a stream becomes a
dead letter. Copies, dead letters and positions are one transaction, so a crash loses and doubles nothing; with
--at-least-once a crash repeats records. `worker.delivery` is the service's and has no effect here.

The consumer group is `<kafka.group_id>-rekey`. Both topics exist before; the partitions of the second may be more.
Ctrl-C or SIGTERM commits what was copied and ends with 0. Exit codes: 0 done, 2 settings, 5 source or sink (a restart
may help).
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--from", dest="source", required=True, metavar="TOPIC", help="topic to copy")
    parser.add_argument("--to", metavar="TOPIC", help="topic of the copies (default: the setting input.topic)")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the partitions (default: 1)")
    parser.add_argument("--at-least-once", action="store_true", help="use no transactions: a crash repeats records")
    flags.add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Copy until interrupted."""
    settings = flags.load_settings(args)
    if args.workers < 1:
        raise SettingsError(f"--workers {args.workers}: expected at least 1")
    logs.configure(settings.log.level, settings.log.format)
    settings = _settings(settings, args.source, args.to or settings.input.topic, at_least_once=args.at_least_once)
    if args.workers == 1:
        rekey(settings)
        return 0
    from rillcast.service.supervisor import Supervisor, members

    supervisor = Supervisor(rekey_as_member, members(settings, args.workers, socket.gethostname()))
    on_request_to_stop(supervisor.stop)
    return supervisor.run()


def _settings(settings: Settings, source: str, target: str, *, at_least_once: bool) -> Settings:
    """Return the settings of the copying: from `input.topic` to `output.topic`, in a group of its own.

    Raises:
        SettingsError: Input or output is a file, or two of the topics are the same.
    """
    if settings.input.path is not None:
        raise SettingsError(f"input.path is {settings.input.path!r}, a file; rekey copies the topic that --from names")
    if source == target or settings.dead_letters.topic in (source, target):
        raise SettingsError(
            f"--from {source}, --to {target} and dead_letters.topic {settings.dead_letters.topic} have to be three "
            f"different topics"
        )
    name = settings.kafka.transactional_id
    return settings.model_copy(
        update={
            "input": settings.input.model_copy(update={"topic": source}),
            "output": settings.output.model_copy(update={"topic": target, "path": None}),
            "state": settings.state.model_copy(update={"store": "none"}),
            "kafka": settings.kafka.model_copy(
                update={
                    "group_id": f"{settings.kafka.group_id}-rekey",
                    "transactional_id": None if name is None else f"{name}-rekey",
                }
            ),
            "worker": settings.worker.model_copy(
                update={"delivery": "at_least_once" if at_least_once else "exactly_once"}
            ),
            "anomalies": settings.anomalies.model_copy(update={"topic": None, "path": None}),
            "alarms": settings.alarms.model_copy(update={"topic": None, "path": None}),
        }
    )


def rekey_as_member(settings: Settings) -> None:
    """Copy in a process of the supervisor; a Rillcast error becomes its exit code, as on the command line."""
    try:
        logs.configure(settings.log.level, settings.log.format)
        rekey(settings)
    except RillcastError as error:
        logs.report(error)
        sys.exit(error.exit_code)
    finally:
        keep_exit_code()


def rekey(settings: Settings) -> None:
    """Copy `input.topic` to `output.topic` until SIGINT or SIGTERM.

    Raises:
        SettingsError: The client that was asked for is not installed, or the mapping of the fields is invalid.
        TransportError: No broker answers, a topic does not exist, or source or sink failed.
    """
    from rillcast.codecs.connect import open_decoder
    from rillcast.publishing.dead_letters import DeadLetters
    from rillcast.service.rekeyer import Rekeyer, RekeyParts
    from rillcast.transports.connect import open_sink, open_source

    decoder, source = open_decoder(settings, None), open_source(settings)
    with ExitStack() as opened:
        sink = opened.enter_context(closing(open_sink(settings)))
        dead_letters = DeadLetters(source.name, settings.dead_letters.max_bytes)
        parts = RekeyParts(source, sink, decoder, dead_letters)
        rekeyer = Rekeyer(parts, settings.worker, start_at=settings.kafka.auto_offset_reset)
        opened.pop_all()  # it closes the sink itself
    on_request_to_stop(rekeyer.stop)
    rekeyer.run()
