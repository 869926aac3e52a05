"""Names of members that are usual for a stream, a time and an observation, in metrics, sensor data and business events.

Owns: the tables of names. A name is compared without case and signs (`Event_Time` is `eventtime`), a word is a part of
a name (`cpu_load` has `cpu` and `load`). Does not know: values, points.
"""

from __future__ import annotations

import re
from typing import Final

_WORD: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z0-9]+(?![a-z])")


def words(name: str) -> set[str]:
    """Return the words of a name: `cpuLoad_1m` has cpu, load and 1m."""
    return {word.lower() for word in _WORD.findall(name)}


def bare(name: str) -> str:
    """Return a name without case and signs."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


ID_NAMES: Final = _listed(
    """
    uniqueid streamid seriesid seriesname series stream itemid sensorid deviceid metricname timeseries
    timeseriesid tagname signal meterid assetid
    """
)
"""Names of an id, the most telling first."""
ID_WORDS: Final = frozenset(
    _listed(
        """
        id host hostname device sensor station machine meter store product sku item symbol ticker instance node
        server name metric page url path user customer account city region location airport zone line asset tag
        topic channel pump queue service app application container pod site plant vehicle route building room key
        subject source uuid endpoint category team shop warehouse cpu disk
        """
    )
)
NO_ID_WORDS: Final = frozenset(
    _listed(
        """
        level status state type unit units version currency country env environment severity message msg quality
        color colour description comment text event kind request trace span session transaction correlation order
        hash checksum
        """
    )
)
TIME_NAMES: Final = _listed(
    """
    ds eventtime eventtimestamp observedat measuredat timestamp time ts datetime occurredat date day
    recordedat sampledat created createdat epoch at t
    """
)
"""Names of a time, the most telling first."""
TIME_WORDS: Final = frozenset(
    _listed(
        """
        time timestamp ts date datetime epoch at when stamp ms
        """
    )
)
OTHER_TIME_WORDS: Final = frozenset(
    _listed(
        """
        updated ingest ingested ingestion processed processing received end expiry expires inserted loaded
        deadline start birth install installed modified
        """
    )
)
"""Words of times that are not that of the event."""
VALUE_NAMES: Final = _listed(
    """
    y value val measurement reading observation observed target v metricvalue doublevalue floatvalue
    numericvalue measure readingvalue sensorvalue
    """
)
"""Names of an observation, the most telling first."""
VALUE_WORDS: Final = frozenset(
    _listed(
        """
        count amount price total sum temperature temp load usage used cpu mem memory demand sales quantity qty
        bytes requests latency duration power energy speed rate humidity pressure voltage current flow volume
        revenue cost hits passengers orders clicks visits errors percent utilization idle user system
        """
    )
)
NO_VALUE_WORDS: Final = frozenset(
    _listed(
        """
        id uuid key code version seq sequence offset partition port pid zip index year month day hour minute
        weekday lat latitude lon lng longitude status number no nr row schema attempt retry retries priority line
        zipcode
        """
    )
)
SUMMED_WORDS: Final = frozenset(
    _listed(
        """
        count counts amount quantity qty sales orders clicks visits hits passengers revenue requests errors bytes
        total sum units sold trips events
        """
    )
)
"""Words of values of which the sum over a period is meant."""
