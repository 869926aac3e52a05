"""The encoder of each forecast codec and shape, by name."""

from __future__ import annotations

from collections.abc import Callable

from rillcast.bundle.metadata import BundleMetadata
from rillcast.codecs.forecasts.avro import AvroEncoder
from rillcast.codecs.forecasts.avro_rows import AvroRowEncoder
from rillcast.codecs.forecasts.columns import Codec, ForecastEncoder
from rillcast.codecs.forecasts.float32 import Float32Encoder
from rillcast.codecs.forecasts.json import JsonEncoder
from rillcast.codecs.forecasts.msgpack import MsgpackEncoder
from rillcast.codecs.forecasts.rounding import Decimals
from rillcast.codecs.forecasts.rows import JsonRowEncoder, RowKey
from rillcast.codecs.forecasts.selection import SelectedEncoder, Selection


def make_encoder(
    codec: Codec,
    metadata: BundleMetadata,
    decimals: Decimals = "full",
    schema_id: Callable[[], int] | None = None,
    selection: Selection | None = None,
) -> ForecastEncoder:
    """Return the encoder of whole forecasts.

    Args:
        codec: Name of the codec.
        metadata: Metadata of the model whose forecasts it writes.
        decimals: Decimal places of each number in codecs that write text.
        schema_id: Asks a registry for the id of the schema; only Avro needs it.
        selection: The published part of forecasts; None = all of them.

    Raises:
        ValueError: The codec is Avro, and `schema_id` is None.
    """
    if selection is not None:
        shown, steps = selection.metadata, selection.named_steps
        return SelectedEncoder(selection, _whole(codec, shown, decimals, schema_id, steps))
    return _whole(codec, metadata, decimals, schema_id, None)


def make_row_encoder(
    selection: Selection,
    decimals: Decimals = "full",
    schema_ids: Callable[[str, str], tuple[int, int]] | None = None,
    *,
    key: RowKey = "origin",
    connect: bool = False,
) -> ForecastEncoder:
    """Return the encoder of flat rows.

    Args:
        selection: The published part of forecasts.
        decimals: Decimal places of each number in JSON.
        schema_ids: Asks a registry for the ids of two schemas, of keys and of values; None = rows are JSON.
        key: Members of the key.
        connect: Whether JSON has Kafka Connect's envelope.
    """
    if schema_ids is not None:
        return SelectedEncoder(selection, AvroRowEncoder(selection, schema_ids, key=key))
    return SelectedEncoder(selection, JsonRowEncoder(selection, key=key, connect=connect, decimals=decimals))


def _whole(
    codec: Codec,
    metadata: BundleMetadata,
    decimals: Decimals,
    schema_id: Callable[[], int] | None,
    steps: list[int] | None,
) -> ForecastEncoder:
    if codec == "json":
        return JsonEncoder(metadata, decimals, steps)
    if codec == "avro":
        if schema_id is None:
            raise ValueError("Avro records name their schema, so schema_id is required")
        return AvroEncoder(metadata, schema_id, steps)
    return MsgpackEncoder(metadata, steps) if codec == "msgpack" else Float32Encoder(metadata, steps)
