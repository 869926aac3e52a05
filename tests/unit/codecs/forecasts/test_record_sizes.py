"""What levels, steps and digits cost: the table of `docs/records.md`, which this prints (`-s`)."""

from __future__ import annotations

from itertools import chain
from typing import Final

import numpy as np

from rillcast.codecs.forecasts.columns import CODECS, ForecastColumns
from rillcast.codecs.forecasts.encoders import make_encoder, make_row_encoder
from rillcast.codecs.forecasts.selection import Selection
from tests.support.paths import ROOT
from tests.support.toy import ToyGraph

PARTS: Final = {
    "all": ((), ()),
    "`levels = \"0.1,0.5,0.9\"`": ((0.1, 0.5, 0.9), ()),
    "the same and `horizons = \"1-24\"`": ((0.1, 0.5, 0.9), tuple(range(1, 25))),
    "the same and `horizons = \"1,6,24\"`": ((0.1, 0.5, 0.9), (1, 6, 24)),
}  # fmt: skip


def lines() -> list[str]:
    quantiles = tuple(round(0.1 * number, 1) for number in range(1, 10))
    metadata = (
        ToyGraph()
        .metadata()
        .model_copy(
            update={"name": "universal-1h", "model_id": "592015f50fe58eff", "horizon": 48, "quantiles": quantiles}
        )
    )
    n, random = 500, np.random.default_rng(0)
    shape = n, metadata.horizon, len(metadata.quantiles)
    columns = ForecastColumns(
        [f"web-{row}/cpu" for row in range(n)],
        np.full(n, 1_714_564_800_000),
        np.zeros(n, np.int8),
        np.sort(100 + 10 * random.normal(size=shape), axis=2).astype(np.float32),
        random.random(n).astype(np.float32),
        random.integers(0, 12, n),
        random.integers(0, 10_000_000, n),
    )
    found = []
    for name, (levels, steps) in PARTS.items():
        part = Selection.of(metadata, levels, steps)
        cells = []
        for codec in CODECS:
            values = make_encoder(codec, metadata, schema_id=lambda: 1, selection=part).encode(columns)[1]
            cells.append(round(np.mean([len(value) for value in values])))
        shorter = make_encoder("json", metadata, "auto", selection=part).encode(columns)[1]
        cells.insert(1, round(np.mean([len(value) for value in shorter])))
        encoders = (
            make_row_encoder(part), make_row_encoder(part, connect=True),
            make_row_encoder(part, schema_ids=lambda _key, _value: (1, 2)),
        )  # fmt: skip
        cells += [round(sum(map(len, chain(*encoder.encode(columns)))) / n) for encoder in encoders]
        numbers = len(part.steps) * len(part.levels)
        found.append(f"| {name} | {numbers} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return found


def test_the_page_on_records_has_the_sizes() -> None:
    page = (ROOT / "docs" / "records.md").read_text()
    for line in lines():
        print(line)
        assert line in page, "docs/records.md has other sizes; take the printed lines"
