"""Settings compared with the topics or the file that they name: what would go wrong, before anything is started.

Owns: what is compared, in which order. Does not know: the comparisons (`tables`, `topic_checks`, `record_checks`), how
findings are shown. Nothing is written or created.
"""

from __future__ import annotations

from contextlib import closing

from rillcast.discovery.findings import Finding
from rillcast.discovery.record_checks import check_records
from rillcast.discovery.tables import served_tables
from rillcast.discovery.topic_checks import check_topics
from rillcast.settings import Settings
from rillcast.transports.connect import open_topic_admin


def check(settings: Settings, *, seconds: float, records: int) -> list[Finding]:
    """Compare settings with their topics, or with their file.

    Args:
        settings: The settings; their models are files.
        seconds: Longest time to read a topic.
        records: Most records to read.

    Raises:
        TransportError: No broker answers.
        BundleError: A model breaks the bundle contract.
    """
    tables, found = served_tables(settings)
    if not tables:
        return found
    if settings.input.path is None or settings.output.path is None:
        with closing(open_topic_admin(settings.kafka)) as admin:
            found += check_topics(settings, tables, admin)
    if any(each.level == "error" and each.about == settings.input.topic for each in found):
        return found  # its records cannot be read
    return [*found, *check_records(settings, tables, seconds, records)]
