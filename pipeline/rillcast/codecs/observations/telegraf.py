"""Metrics as Telegraf writes them in JSON (`data_format = "json"`), to a list of metrics.

    {"name": "cpu", "tags": {"host": "web-17"}, "fields": {"usage_user": 3.1}, "timestamp": 1714564800}

A record is one metric, an array of them, or Telegraf's batch `{"metrics": [...]}`.

Source: Telegraf documentation, "JSON Serializer".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from rillcast.codecs.observations.json import JsonFormat
from rillcast.codecs.observations.rejections import Reason, RefusedError


class TelegrafFormat(JsonFormat):
    """Implements `rillcast.codecs.observations.format.Format`; a document is a list of metrics."""

    def decoder(self, shape: type[Any]) -> Callable[[bytes], Any]:  # noqa: ARG002  metrics have one shape
        """Return a function that returns a list of metrics."""
        decode_json = msgspec.json.Decoder().decode

        def decode(value: bytes) -> Any:
            document = decode_json(value)
            metrics = document.get("metrics", [document]) if isinstance(document, dict) else document
            if not isinstance(metrics, list):
                found = type(metrics).__name__
                raise RefusedError(Reason.WRONG_TYPE, f"found {found}, expected a metric or a batch of metrics")
            return metrics

        return decode
