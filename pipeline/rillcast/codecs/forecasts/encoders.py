"""The encoder of each forecast codec, by name."""

from __future__ import annotations

from collections.abc import Callable

from rillcast.bundle.metadata import BundleMetadata
from rillcast.codecs.forecasts.avro import AvroEncoder
from rillcast.codecs.forecasts.columns import Codec, ForecastEncoder
from rillcast.codecs.forecasts.float32 import Float32Encoder
from rillcast.codecs.forecasts.json import JsonEncoder
from rillcast.codecs.forecasts.msgpack import MsgpackEncoder


def make_encoder(
    codec: Codec,
    metadata: BundleMetadata,
    decimals: int | None = None,
    schema_id: Callable[[], int] | None = None,
) -> ForecastEncoder:
    """Return the encoder of a codec.

    Args:
        codec: Name of the codec.
        metadata: Metadata of the model whose forecasts it writes.
        decimals: Decimal places of each number in codecs that write text; None = all.
        schema_id: Asks a registry for the id of the schema; only Avro needs it.

    Raises:
        ValueError: The codec is Avro, and `schema_id` is None.
    """
    if codec == "json":
        return JsonEncoder(metadata, decimals)
    if codec == "avro":
        if schema_id is None:
            raise ValueError("Avro records name their schema, so schema_id is required")
        return AvroEncoder(metadata, schema_id)
    return MsgpackEncoder(metadata) if codec == "msgpack" else Float32Encoder(metadata)
