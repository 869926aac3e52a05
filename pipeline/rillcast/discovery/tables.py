"""The models that settings serve, as a check compares them with topics and records.

Owns: which models there are, and whether each can be served with the settings. Does not know: topics, records.
"""

from __future__ import annotations

from dataclasses import dataclass

from rillcast.bundle.bundle import Bundle, BundleMetadata
from rillcast.bundle.compatibility import require_same_covariates
from rillcast.discovery.findings import Finding
from rillcast.errors import SettingsError
from rillcast.serving.factory import require_supported
from rillcast.settings import ModelTable, Settings


@dataclass(frozen=True, slots=True)
class ServedTable:
    """A table of models, or the only model.

    Attributes:
        number: Place of the table in the settings, from 0; events have it as their route.
        table: What the settings say of it; the only model has the empty name.
        settings: The settings as they are for a service with this model alone.
        metadata: Metadata of its model.
    """

    number: int
    table: ModelTable
    settings: Settings
    metadata: BundleMetadata

    @property
    def subject(self) -> str:
        """Its name in a sentence."""
        return f"models.{self.table.name}" if self.table.name else "the model"

    @property
    def context_ms(self) -> int:
        """How far back the model looks, in milliseconds."""
        return self.metadata.context * self.metadata.frequency.nominal_ms


def served_tables(settings: Settings) -> tuple[list[ServedTable], list[Finding]]:
    """Return the models that can be served with the settings, and why others cannot.

    Raises:
        BundleError: A model breaks the bundle contract.
    """
    tables, found = list[ServedTable](), list[Finding]()
    for number, table in enumerate(settings.served):
        own = settings.of_table(table)
        bundle = Bundle.load(own.model)
        served = ServedTable(number, table, own, bundle.metadata)
        about = served.subject if table.name else "model"
        earlier = next((each for each in settings.served[:number] if each.match == "*" and each.only is None), None)
        if earlier is not None:
            text = f"models.{earlier.name}, which stands before it, takes every event; put a table for the rest last"
            found.append(Finding("error", about, text))
        try:
            require_supported(own, bundle)
        except SettingsError as error:
            found.append(Finding("error", about, str(error)))
        else:
            tables.append(served)
    try:
        require_same_covariates({each.table.name: each.metadata for each in tables})
    except SettingsError as error:
        return [], [*found, Finding("error", "models", str(error))]
    return tables, found
