"""The tables of models whose stored state a command looks after, and their stores.

Owns: the flag `--table`, and the stores of several tables, which share one transport and are committed at once. Does
not know: what is read or written.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rillcast.errors import SettingsError
from rillcast.settings import Settings

if TYPE_CHECKING:
    from rillcast.bundle.bundle import Bundle, BundleMetadata
    from rillcast.stores.base import StateStore

# One transaction holds a whole partition; brokers allow up to 15 minutes by default.
_TRANSACTION_TIMEOUT_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table of models, or the only model.

    Attributes:
        number: Place of the table in the settings, from 0; events have it as their route.
        name: Name of the table; empty for the only model.
        settings: The settings as they are for a service with this model alone.
        bundle: Its model.
    """

    number: int
    name: str
    settings: Settings
    bundle: Bundle

    @property
    def metadata(self) -> BundleMetadata:
        """The metadata of its model."""
        return self.bundle.metadata

    def __str__(self) -> str:
        model = f"model {self.metadata.model_id}"
        return f"models.{self.name} ({model})" if self.name else model


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--table`."""
    parser.add_argument("--table", metavar="NAME", help="only this table of [[models]] (default: all of them)")


def choose_tables(settings: Settings, name: str | None) -> list[StoredTable]:
    """Return the table of the flag, or all of them; a service with one model has one without a name.

    Args:
        settings: All settings, with each model as a file.
        name: Value of `--table`.

    Raises:
        SettingsError: There is no such table.
        BundleError: A model breaks the bundle contract.
    """
    from rillcast.bundle.bundle import Bundle

    names = [table.name for table in settings.models]
    if name is not None and name not in names:
        known = ", ".join(names) if names else "none"
        raise SettingsError(f"--table {name}: there is no such table of [[models]]; the settings have {known}")
    found = []
    for number, table in enumerate(settings.served):
        if name is None or table.name == name:
            own = settings.of_table(table)
            found.append(StoredTable(number, table.name, own, Bundle.load(own.model)))
    return found


def models_of(tables: Sequence[StoredTable]) -> dict[str, Any]:
    """Return the models for a JSON document: `model` where there is one, else `tables`, models by their table."""
    if not tables[0].name:
        return {"model": tables[0].metadata.model_id}
    return {"tables": {table.name: table.metadata.model_id for table in tables}}


def row_of(table: StoredTable, row: Mapping[str, object]) -> dict[str, object]:
    """Return a row of a JSON document or a printed table, which begins with the name of its table if there is one."""
    return {"table": table.name, **row} if table.name else dict(row)


def open_stores(
    tables: Sequence[StoredTable], stack: ExitStack, *, writing: bool
) -> tuple[list[StateStore], Callable[[], None]]:
    """Open the stores of some tables of one service; return them with a function that commits all writes at once.

    Raises:
        SettingsError: A page does not fit the settings or the topic.
        TransportError: A store cannot be opened.
    """
    from rillcast.stores.connect import codec_of, directory_of, prepare_store, reader_of
    from rillcast.stores.kafka import KafkaStore
    from rillcast.stores.local import LocalStore
    from rillcast.transports.base import Channel
    from rillcast.transports.connect import open_transactional_sink

    settings = tables[0].settings  # where state is kept is common to all
    if is_local(settings):
        local: list[StateStore] = [
            stack.enter_context(closing(LocalStore(directory_of(settings, each.name), codec_of(*_model(each)))))
            for each in tables
        ]
        return local, nothing
    topic, sink, commit = settings.state_topic, None, nothing
    if writing:
        for each in tables:
            prepare_store(*_model(each))
        kafka = settings.kafka.model_copy(
            update={
                "transactional_id": f"{settings.kafka.group_id}-state-command",
                "transaction_timeout_s": max(_TRANSACTION_TIMEOUT_S, settings.kafka.transaction_timeout_s),
            }
        )
        opened = open_transactional_sink(kafka, {Channel.STATE: topic}, settings.input.topic)
        sink, commit = stack.enter_context(closing(opened)), lambda: opened.commit({}, None)
    stores: list[StateStore] = [
        stack.enter_context(
            closing(KafkaStore(topic, codec_of(*_model(each)), sink, reader_of(settings), route=each.name))
        )
        for each in tables
    ]
    return stores, commit


def _model(table: StoredTable) -> tuple[Settings, BundleMetadata]:
    return table.settings, table.metadata


def nothing() -> None:
    """Do nothing; a directory has no transport to commit."""


def is_local(settings: Settings) -> bool:
    """Return whether state is kept in a directory, and not in a topic.

    Raises:
        SettingsError: No state is kept.
    """
    from rillcast.stores.connect import kind_of

    if (kind := kind_of(settings)) == "none":
        raise SettingsError(
            "state.store keeps no state with these settings; choose a store, such as --state.store local"
        )
    return kind == "local"


def topic_partitions(settings: Settings) -> Sequence[int]:
    """Return the partitions of the state topic.

    Raises:
        TransportError: No broker answers, or the topic does not exist.
    """
    from rillcast.transports.connect import partitions_of

    return range(partitions_of(settings.kafka, settings.state_topic))
