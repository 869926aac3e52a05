"""Chooses the codecs that the settings name.

Owns: the choice. A format's optional packages are imported only when the settings choose the format.
Does not know: how a format is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from rillcast.bundle.bundle import BundleMetadata
from rillcast.bundle.covariates import Covariate, Kind, check
from rillcast.bundle.frequency import Frequency
from rillcast.codecs.forecasts.columns import ForecastEncoder
from rillcast.codecs.forecasts.encoders import make_encoder, make_row_encoder
from rillcast.codecs.forecasts.selection import Selection
from rillcast.codecs.observations import stream_table
from rillcast.codecs.observations.cloudevents import open_event
from rillcast.codecs.observations.covariates import CovariateColumns, CovariateRules, Vocabulary
from rillcast.codecs.observations.decoder import DecodeLimits, ObservationDecoder
from rillcast.codecs.observations.expansion import Expansion
from rillcast.codecs.observations.fields import Fields, PolledRecords
from rillcast.codecs.observations.first_look import FirstLook, Members
from rillcast.codecs.observations.format import Format
from rillcast.codecs.observations.json import JsonFormat
from rillcast.codecs.observations.matching import Matching, Rule
from rillcast.errors import SettingsError
from rillcast.settings import InputSettings, RegistrySettings, Settings
from rillcast.settings.input import METRIC_FORMATS

_UNSEEN: Final = ("",)  # a category needs at least one text; a vocabulary replaces it


def open_decoder(settings: Settings, metadata: BundleMetadata | None) -> ObservationDecoder:
    """Return the decoder of the source's records, with the covariates of the model.

    Args:
        settings: Settings of the service.
        metadata: Metadata of the model, or of one of several; None = no covariates, and events are not divided among
            tables of models.

    Raises:
        SettingsError: The mapping or the message is invalid, or the registry's client refuses its settings.
        DataError: The table of streams cannot be used.
    """
    covariates = metadata.covariates if metadata is not None else ()
    columns = _columns(settings.input, covariates, metadata.horizon) if metadata is not None and covariates else None
    frequency = None if metadata is None or settings.models else metadata.frequency
    return _decoder(settings, covariates, columns, frequency, divides=metadata is not None)


def open_learning_decoder(
    settings: Settings, wanted: Sequence[tuple[str, Kind]], horizon: int
) -> tuple[ObservationDecoder, dict[str, Vocabulary]]:
    """Return a decoder for covariates that no bundle declares yet, and the vocabulary of each category by name.

    In the columns a category is its index in its vocabulary, which grows as records are decoded.

    Raises:
        ValueError: No bundle may declare these covariates together.
        SettingsError: As in `open_decoder`.
        DataError: As in `open_decoder`.
    """
    vocabularies = {name: Vocabulary() for name, kind in wanted if kind == "category"}
    covariates = tuple(Covariate(name, kind, categories=_UNSEEN if kind == "category" else ()) for name, kind in wanted)
    check(covariates)
    columns = _columns(settings.input, covariates, horizon, vocabularies) if covariates else None
    return _decoder(settings, covariates, columns), vocabularies


def _decoder(
    settings: Settings,
    covariates: Sequence[Covariate],
    columns: CovariateColumns | None,
    frequency: Frequency | None = None,
    *,
    divides: bool = False,
) -> ObservationDecoder:
    given = settings.input
    limits = DecodeLimits(
        given.max_record_bytes, given.max_id_bytes, given.max_abs_y, round(given.max_future_s * 1_000)
    )
    try:
        matching = _matching(settings) if divides else None
        fields, expansion = _mapping(given, covariates, matching)
    except ValueError as error:
        raise SettingsError(f"input.fields, input.only, models: {error}") from error
    form = _format(given, settings.registry)
    source = given.topic if given.path is None else "standard input" if given.path == "-" else given.path
    looks = not given.is_table and given.format != "protobuf" and expansion is None and not settings.counts
    members = _members(given, form) if looks else None
    return ObservationDecoder(
        limits,
        form,
        fields,
        cloudevents=given.envelope == "cloudevents",
        columns=columns,
        first_look=FirstLook(source, frequency, fields, members, refuse=given.path not in (None, "-")),
        expansion=expansion,
        matching=matching,
    )


def _matching(settings: Settings) -> Matching | None:
    """Return which table of models takes an event; None where there is one model.

    Raises:
        ValueError: A condition cannot be read.
    """
    if not settings.models:
        return None
    in_array, in_table = settings.input.format in METRIC_FORMATS, settings.input.is_table
    rules = [Rule.of(table.match, table.only, in_array=in_array, in_table=in_table) for table in settings.models]
    return Matching(rules, unmatched_are_dead=settings.input.unmatched == "dead_letter")


def _mapping(
    given: InputSettings, covariates: Sequence[Covariate], matching: Matching | None
) -> tuple[Fields, Expansion | None]:
    """Return where a record has its members; None where each record is one observation.

    Raises:
        ValueError: The mapping is invalid.
    """
    names = given.fields
    by_members = matching is not None and matching.by_members
    if given.is_table:  # its reader has renamed the columns to the plain names, and made a record of each observation
        plain = Expansion("unique_id", "ds", "y", covariates=covariates, matching=matching) if by_members else None
        return Fields(covariates=covariates), plain
    if not given.is_expanded and not by_members:
        paths = (names.unique_id, names.ds, names.y, given.time_unit, names.x, names.future)
        return Fields(*paths, covariates, given.stream_of_file), None
    if not names.unique_id and given.path in (None, "-"):
        raise ValueError("input.fields.unique_id is empty, which only a file may have")
    return Fields(), Expansion(
        *given.members,
        unit=given.time_unit,
        only=given.only,
        x=names.x,
        future=names.future,
        covariates=covariates,
        in_array=given.format in METRIC_FORMATS,
        stream=given.stream_of_file,
        matching=matching,
    )


def open_members(settings: Settings) -> Members:
    """Return a function that returns all members of a record, or raises what the format raises.

    Raises:
        SettingsError: The registry's client refuses its settings.
    """
    return _members(settings.input, _format(settings.input, settings.registry))


def _members(given: InputSettings, form: Format) -> Members:
    """Return a function that returns all members of a record that can be decoded."""
    decode, decode_json = form.decoder(dict), JsonFormat().decoder(dict)

    def members(records: PolledRecords, row: int) -> Any:
        if given.envelope != "cloudevents":
            return decode(records.values[row] or b"")
        value, is_json, _ = open_event(records, row)
        return decode_json(value) if is_json else decode(value)

    return members


def open_encoder(settings: Settings, metadata: BundleMetadata) -> ForecastEncoder:
    """Return the encoder of forecasts; Avro asks the registry with the first record.

    Raises:
        SettingsError: The registry's client refuses its settings, or the model has no such level or step.
    """
    output = settings.output
    selection = published_part(settings, metadata)
    if output.shape == "rows":
        ask_both = partial(_ids, _asking(settings)) if output.codec == "avro" else None
        connect = output.envelope == "connect"
        return make_row_encoder(selection, output.decimals, ask_both, key=output.row_key, connect=connect)
    part = selection if settings.publish.levels or settings.publish.horizons else None
    if output.codec != "avro":
        return make_encoder(output.codec, metadata, output.decimals, selection=part)
    from rillcast.codecs.forecasts.avro import schema

    schema_id = partial(_asking(settings), "value", schema(selection.named_steps))
    return make_encoder("avro", metadata, schema_id=schema_id, selection=part)


def published_part(settings: Settings, metadata: BundleMetadata) -> Selection:
    """Return the part of a model's forecasts that is published.

    Raises:
        SettingsError: The model has no such level or step.
    """
    try:
        return Selection.of(metadata, settings.publish.chosen_levels, settings.publish.chosen_steps)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def _ids(ask: Callable[[str, str], int], key: str, value: str) -> tuple[int, int]:
    """Return the ids of the schemas of keys and values."""
    return ask("key", key), ask("value", value)


def _asking(settings: Settings) -> Callable[[str, str], int]:
    """Return a function that asks the registry for the id of the schema of the forecasts' keys or values."""
    from rillcast.codecs.schema_registry import Registry

    registry, register = Registry(settings.registry), settings.registry.auto_register
    return lambda part, text: registry.id_of(f"{settings.output.topic}-{part}", text, register=register)


def _columns(
    given: InputSettings,
    covariates: Sequence[Covariate],
    horizon: int,
    vocabularies: Mapping[str, Vocabulary] | None = None,
) -> CovariateColumns:
    rules = CovariateRules(given.max_abs_x, given.covariates_missing, given.covariates_out_of_range)
    streams = stream_table.read(given.streams_path, covariates, given.form) if given.streams_path else None
    return CovariateColumns(covariates, horizon, rules, streams, vocabularies)


def _format(given: InputSettings, settings: RegistrySettings) -> Format:
    match given.format:
        case "msgpack":
            from rillcast.codecs.observations.msgpack import MessagePackFormat

            return MessagePackFormat()
        case "avro":
            from rillcast.codecs.observations.avro import AvroFormat
            from rillcast.codecs.schema_registry import Registry

            return AvroFormat(Registry(settings))
        case "protobuf":
            from rillcast.codecs.observations import protobuf as protobuf
            from rillcast.codecs.schema_registry import Registry

            registry = Registry(settings)
            if given.protobuf_descriptors is not None:
                message = protobuf.message_from_descriptors(given.protobuf_descriptors, given.protobuf_message)
            elif given.protobuf_message == protobuf.OBSERVATION:
                message = protobuf.observation_message()
            else:
                raise SettingsError(
                    f"input.protobuf_message is {given.protobuf_message!r}, which needs input.protobuf_descriptors"
                )
            return protobuf.ProtobufFormat(registry, message)
        case "json_schema":
            from rillcast.codecs.observations.json_schema import JsonSchemaFormat
            from rillcast.codecs.schema_registry import Registry

            return JsonSchemaFormat(Registry(settings), validate=settings.validate_json)
        case "telegraf":
            from rillcast.codecs.observations.telegraf import TelegrafFormat

            return TelegrafFormat()
        case "influx":
            from rillcast.codecs.observations.influx import InfluxFormat

            return InfluxFormat()
        case _:
            return JsonFormat()  # file sources turn CSV and Parquet rows into JSON records
