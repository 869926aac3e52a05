"""Which encoder writes a codec's records."""

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
        codec: its name.
        metadata: of the model whose forecasts it writes.
        decimals: places after the point that are kept of each number, for the codecs that write text; None = all.
        schema_id: asks a registry for the id of the schema; Avro alone needs it.
    """
    if codec == "json":
        return JsonEncoder(metadata, decimals)
    if codec == "avro":
        if schema_id is None:
            raise ValueError("Avro records name their schema: schema_id has to be given")
        return AvroEncoder(metadata, schema_id)
    return MsgpackEncoder(metadata) if codec == "msgpack" else Float32Encoder(metadata)
