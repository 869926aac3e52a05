"""The stored form of pages: encoded pages come back, and nothing else ever does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rillcast.arrays import FloatArray
from rillcast.bundle.bundle import StateSpec
from rillcast.bundle.covariates import Covariate
from rillcast.engine.late import page_columns
from rillcast.engine.overdue import page_columns as overdue_columns
from rillcast.engine.pages import Arrivals, Page, Silence
from rillcast.engine.slots import PAGE_SLOTS
from rillcast.errors import StateError
from rillcast.stores.base import Mark
from rillcast.stores.format import framing, pages, rows
from rillcast.stores.format.pages import PageCodec
from tests.support.stores import SPECS, assert_same_pages, make_page, tombstone
from tests.support.toy import toy_bundle

Form = Literal["exact", "float16"]
Compression = Literal["none", "zlib"]
FORMS: Final[tuple[Form, ...]] = ("exact", "float16")
COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "zlib")
LAGS = StateSpec(name="lags", dtype="float32", row_shape=(64,))
FULL = tuple(f"stream-{i:03d}" for i in range(PAGE_SLOTS))


def codec(form: Form = "exact", compression: Compression = "zlib", **changes: Any) -> PageCodec:
    return PageCodec(**({"model_id": "m1", "specs": SPECS, "form": form, "compression": compression} | changes))


def encoded(page: Page, using: PageCodec) -> bytes:
    data = using.encode(page)
    assert data is not None
    return data


def floats_of(values: FloatArray, form: Form = "float16") -> FloatArray:
    """Return float32 rows after a round trip through the stored form."""
    spec = replace_shape(LAGS, values.shape[1])
    packed = rows.pack(values, spec, form)
    assert len(packed) == rows.packed_bytes(spec, form, len(values))
    return rows.unpack(memoryview(packed), spec, form, len(values))


def replace_shape(spec: StateSpec, size: int) -> StateSpec:
    return spec.model_copy(update={"row_shape": (size,)})


# Round trips


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("unique_ids", [("a",), ("", "b", ""), ("ä/λ/漢", "x" * 512), FULL])
def test_an_exact_page_comes_back_bit_by_bit(unique_ids: tuple[str, ...], compression: Compression) -> None:
    page = make_page(partition=7, number=12, offset=2**40, unique_ids=unique_ids)
    using = codec(compression=compression)
    assert_same_pages([using.decode(encoded(page, using), 7, 12, "here")], [page])


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "int32", "int8", "bool"])
@pytest.mark.parametrize("form", FORMS)
def test_every_type_of_state_keeps_type_and_shape_and_only_float32_is_ever_rounded(dtype: str, form: Form) -> None:
    specs = (StateSpec(name="s", dtype=dtype, row_shape=(3, 5)),)
    page = make_page(unique_ids=FULL, specs=specs)
    using = codec(form, specs=specs)
    back = using.decode(encoded(page, using), 0, 0, "here").rows["s"]
    assert (back.dtype, back.shape) == (page.rows["s"].dtype, page.rows["s"].shape)
    if form == "exact" or dtype != "float32":
        assert back.tobytes() == page.rows["s"].tobytes()
    else:
        assert 0 < np.max(np.abs(back - page.rows["s"])) < 2**-11 * np.max(np.abs(page.rows["s"]))


@pytest.mark.parametrize("form", FORMS)
def test_what_a_free_slot_holds_is_not_stored(form: Form) -> None:
    left = make_page(unique_ids=("left", "here"))
    freed = replace(left, unique_ids=("", "here"))
    using = codec(form)
    data = encoded(freed, using)
    back = using.decode(data, 0, 0, "here")
    for values in (*back.rows.values(), back.last_ds):
        assert not values[0].any()
        assert values[1].any()
    assert data == encoded(replace(freed, rows={n: _zeroed(v) for n, v in left.rows.items()}), using)


def _zeroed(values: Any) -> Any:
    values = values.copy()
    values[0] = 0
    return values


def test_decoded_rows_may_be_written_to() -> None:
    using = codec("exact", "none")
    back = using.decode(encoded(make_page(), using), 0, 0, "here")
    for values in (*back.rows.values(), back.last_ds):
        values[0] = 0


def test_a_page_without_streams_is_a_tombstone() -> None:
    assert codec().encode(tombstone()) is None
    assert codec().encode(replace(make_page(), unique_ids=("", "", ""))) is None


def test_a_mark_comes_back() -> None:
    mark = Mark(3, 2**40, -5, 17, Arrivals(2**33, 4), (Silence(2**40, -3),))
    assert codec().decode_mark(codec().encode_mark(mark), 3, "here") == mark


def test_a_page_is_read_with_any_form_in_the_settings() -> None:
    page = make_page(unique_ids=FULL)
    data = encoded(page, codec("float16", "none"))
    expected = codec("float16", "none").decode(data, 0, 0, "here")
    assert_same_pages([codec("exact", "zlib").decode(data, 0, 0, "here")], [expected])


# Sizes


def test_a_page_has_as_many_streams_as_a_record_takes() -> None:
    using, whole = codec("exact", "none"), codec("exact", "none").max_page_bytes(512)
    using.keep_within(whole, 512)
    assert using.page_slots == PAGE_SLOTS
    using.keep_within(whole - 1, 512)
    assert using.page_slots == PAGE_SLOTS // 2
    using.keep_within(1, 512)
    assert using.page_slots == 1, "the check of the settings refuses a row that no record takes"


def test_a_page_of_more_streams_than_the_settings_allow_is_refused_with_their_names() -> None:
    data = encoded(make_page(unique_ids=FULL), codec("exact", "none"))
    smaller = codec("exact", "none")
    smaller.keep_within(smaller.max_page_bytes(512) - 1, 512)
    with pytest.raises(StateError, match=r"a page of 256 streams, but pages have 128 by kafka\.max_message_bytes"):
        smaller.decode(data, 0, 0, "here")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_no_page_is_larger_than_the_bound(form: Form, compression: Compression) -> None:
    using = codec(form, compression)
    longest = tuple(f"{i:0512d}" for i in range(PAGE_SLOTS))
    page = make_page(partition=2**31, number=2**31, offset=2**62, unique_ids=longest)
    size = len(encoded(page, using))
    assert size <= using.max_page_bytes(512)
    assert size > 0.9 * using.max_page_bytes(512) - 2_000


def test_float16_and_compression_each_save_bytes() -> None:
    specs = (LAGS,)
    level = np.round(20 + 5 * np.sin(np.arange(PAGE_SLOTS * 64) / 4), 1).astype(np.float32)
    page = replace(make_page(unique_ids=FULL, specs=specs), rows={"lags": level.reshape(PAGE_SLOTS, 64)})
    size = {(f, c): len(encoded(page, codec(f, c, specs=specs))) for f in FORMS for c in COMPRESSIONS}
    assert size["float16", "none"] < 0.6 * size["exact", "none"]
    assert size["exact", "zlib"] < 0.7 * size["exact", "none"]
    assert size["float16", "zlib"] < min(size["exact", "zlib"], size["float16", "none"])


def test_rows_that_would_not_shrink_stay_exact() -> None:
    spec = StateSpec(name="pending", dtype="float32", row_shape=(3,))
    assert rows.form_of(spec, "float16") == "exact"
    assert rows.form_of(LAGS, "float16") == "float16"
    assert rows.form_of(LAGS, "exact") == "exact"


def test_rows_that_do_not_compress_are_stored_as_they_are() -> None:
    noise = np.random.default_rng(0).integers(0, 256, PAGE_SLOTS * 64, dtype=np.int64).astype(np.int8)
    specs = (StateSpec(name="noise", dtype="int8", row_shape=(64,)),)
    page = replace(make_page(unique_ids=FULL, specs=specs), rows={"noise": noise.reshape(PAGE_SLOTS, 64)})
    assert len(encoded(page, codec(specs=specs))) == len(encoded(page, codec(compression="none", specs=specs)))


# The error of float16


@pytest.mark.filterwarnings("error::RuntimeWarning")
@settings(deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(4, 9)),
        elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
    )
)
def test_float16_keeps_its_bound_for_any_rows(values: FloatArray) -> None:
    back = floats_of(values)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    np.testing.assert_array_equal(back[np.isinf(values)], values[np.isinf(values)])
    exact = np.where(finite, values, 0).astype(np.float64)
    largest = np.max(np.abs(exact), axis=1, keepdims=True)
    bound = (2**-11 + 2**-24) * np.abs(exact) + 2**-39 * largest + 2**-149
    assert np.all(np.abs(np.where(finite, back, 0).astype(np.float64) - exact) <= bound)
    np.testing.assert_array_equal(back[values == 0], 0)


@pytest.mark.parametrize("level", [1e-30, 1.0, 1e4, 1e7, 1e15, 1e30, -1e7])
def test_float16_overflows_at_no_level(level: float) -> None:
    values = (level * np.linspace(0.001, 1, 64, dtype=np.float64)).astype(np.float32).reshape(1, 64)
    np.testing.assert_allclose(floats_of(values), values, rtol=2**-11)


def test_float16_keeps_the_changes_of_a_series_that_its_level_dwarfs() -> None:
    level, swing = 1_000_000.0, 10.0
    values = (level + swing * np.sin(np.arange(64) / 4)).astype(np.float32).reshape(1, 64)
    error = np.max(np.abs(floats_of(values).astype(np.float64) - values))
    assert error <= swing * 2**-11 + level * 2**-24  # without the center: level * 2**-11, fifty times the swing
    plain = np.max(np.abs((values / 16).astype(np.float16).astype(np.float64) * 16 - values))
    assert plain > swing


@pytest.mark.parametrize("others", [0.0, 2.5e38], ids=["scaled", "centered"])
def test_float16_makes_no_infinity_of_the_largest_values(others: float) -> None:
    largest = float(np.finfo(np.float32).max)
    values = np.array([[others, largest, largest]], dtype=np.float32)
    np.testing.assert_allclose(floats_of(values), values, rtol=2**-11)


def test_a_row_of_zeros_comes_back_as_zeros_next_to_any_other() -> None:
    values = np.stack([np.zeros(8), np.full(8, 1e30), np.full(8, np.nan)]).astype(np.float32)
    back = floats_of(values)
    assert not back[0].any()
    np.testing.assert_array_equal(back[1], values[1])
    assert np.isnan(back[2]).all()


# Refusals


PAGE = make_page(partition=2, number=5, unique_ids=("a", "", "c"))
WHOLE = {compression: encoded(PAGE, codec("exact", compression)) for compression in COMPRESSIONS}


@settings(deadline=None, max_examples=400)
@given(data=st.data(), compression=st.sampled_from(COMPRESSIONS), change=st.integers(1, 255))
def test_any_changed_byte_is_refused(data: st.DataObject, compression: Compression, change: int) -> None:
    whole = WHOLE[compression]
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= change
    with pytest.raises(StateError, match="this place"):
        codec().decode(bytes(damaged), 2, 5, "this place")


@given(data=st.data(), compression=st.sampled_from(COMPRESSIONS))
def test_any_truncation_or_extension_is_refused(data: st.DataObject, compression: Compression) -> None:
    whole = WHOLE[compression]
    end = data.draw(st.integers(0, len(whole) - 1))
    extra = data.draw(st.binary(min_size=1, max_size=20))
    for damaged in (whole[:end], whole + extra, whole + whole):
        with pytest.raises(StateError, match="this place"):
            codec().decode(damaged, 2, 5, "this place")


@given(st.binary(max_size=200))
def test_rubbish_is_refused(rubbish: bytes) -> None:
    for data in (rubbish, framing.MAGIC + rubbish, WHOLE["none"][:14] + rubbish):
        with pytest.raises(StateError, match="this place"):
            codec().decode(data, 2, 5, "this place")


@pytest.mark.parametrize(
    ("partition", "number", "using", "says"),
    [
        (3, 5, {}, "partition 2, expected 3"),
        (2, 6, {}, "page number 5, expected 6"),
        (2, 5, {"model_id": "m2"}, "model 'm1', expected 'm2'"),
        (2, 5, {"specs": SPECS[:1]}, "states .*'count'"),
        (2, 5, {"specs": SPECS[::-1]}, "states"),
        (2, 5, {"specs": (SPECS[0].model_copy(update={"name": "c"}), SPECS[1])}, "states .*'h'.*expected .*'c'"),
        (2, 5, {"specs": (SPECS[0], SPECS[1].model_copy(update={"dtype": "int32"}))}, "states .*int64.*int32"),
        (2, 5, {"specs": (replace_shape(SPECS[0], 8), SPECS[1])}, "states"),
    ],
)
def test_a_page_of_something_else_is_refused(partition: int, number: int, using: dict[str, Any], says: str) -> None:
    with pytest.raises(StateError, match=f"this place: stored state of {says}"):
        codec(**using).decode(WHOLE["zlib"], partition, number, "this place")


def test_a_newer_format_is_refused_and_says_so() -> None:
    newer = bytearray(WHOLE["zlib"])
    newer[8] = framing.FORMAT_VERSION + 1
    with pytest.raises(StateError, match=r"this place: state format 2, this version reads up to 1"):
        codec().decode(bytes(newer), 2, 5, "this place")


def test_a_mark_is_no_page_and_a_page_no_mark() -> None:
    with pytest.raises(StateError, match="not that of a PageHeader"):
        codec().decode(codec().encode_mark(Mark(2, 1, 1, 1)), 2, 5, "this place")
    with pytest.raises(StateError, match="not that of a MarkHeader"):
        codec().decode_mark(WHOLE["zlib"], 2, "this place")


@pytest.mark.parametrize(("partition", "model_id", "says"), [(1, "m1", "partition 0"), (0, "m2", "model 'm1'")])
def test_a_mark_of_something_else_is_refused(partition: int, model_id: str, says: str) -> None:
    data = codec().encode_mark(Mark(0, 1, 1, 1))
    with pytest.raises(StateError, match=says):
        codec(model_id=model_id).decode_mark(data, partition, "this place")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_form_whose_parts_disagree_is_refused_although_its_checksum_is_right(compression: Compression) -> None:
    header, body = framing.unseal(WHOLE[compression], pages.PageHeader, "this place")
    fields = {name: getattr(header, name) for name in header.__struct_fields__}
    cases: list[tuple[dict[str, Any], bytes]] = [
        ({"unique_ids": ("a",)}, bytes(body)),
        ({"last_ds": b""}, bytes(body)),
        ({"compression": "none"}, bytes(body) + b"x"),
        ({"compression": "zlib"}, b"x" + bytes(body)),
        ({}, b""),
    ]
    for changes, rest in cases:
        form = framing.seal(pages.PageHeader(**(fields | changes)), rest)
        with pytest.raises(StateError, match="this place: stored state is damaged"):
            codec().decode(form, 2, 5, "this place")


def test_a_compressed_body_never_unpacks_to_more_than_its_header_says() -> None:
    bomb = rows.compress(bytes(50_000_000))
    with pytest.raises(ValueError, match="exactly 100 bytes"):
        rows.decompress(memoryview(bomb), 100)


PAST = tuple(Covariate(name, "past") for name in ("a", "b", "c"))
EXTRA = page_columns(toy_bundle().metadata.model_copy(update={"states": SPECS, "covariates": PAST}), 2)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_the_extra_columns_of_a_page_come_back(compression: Compression) -> None:
    page = make_page(unique_ids=("a", "", "c"), specs=(*SPECS, *EXTRA))
    data = encoded(page, codec("exact", compression, extra=EXTRA))
    assert_same_pages([codec("exact", compression, extra=EXTRA).decode(data, 0, 0, "here")], [page])


def test_pages_with_and_without_extra_columns_are_read_by_either_setting() -> None:
    with_it, without = codec("exact", "zlib", extra=EXTRA), codec("exact", "zlib")
    long, short = make_page(specs=(*SPECS, *EXTRA)), make_page()
    assert_same_pages([without.decode(encoded(long, with_it), 0, 0, "here")], [long])
    assert_same_pages([with_it.decode(encoded(short, without), 0, 0, "here")], [short])


def test_a_page_of_other_settings_is_copied_without_the_columns_that_it_lacks() -> None:
    """`rillcast state export` writes pages with today's settings that were stored before these had columns more."""
    page, with_more = make_page(unique_ids=("a", "", "b")), codec(extra=overdue_columns(watched=True))
    found = with_more.decode(encoded(page, with_more), page.partition, page.number, "here")
    assert_same_pages([found], [page])


def test_inputs_are_stored_exactly_with_any_form_of_the_rows() -> None:
    halved = codec("float16", "zlib", extra=EXTRA)
    page = make_page(specs=(*SPECS, *EXTRA))
    decoded = halved.decode(encoded(page, halved), 0, 0, "here")
    for name in ("ds", "y", "x"):
        np.testing.assert_array_equal(decoded.rows[f"rewind.input.{name}"], page.rows[f"rewind.input.{name}"])
    assert not np.array_equal(decoded.rows["rewind.older.h"], page.rows["rewind.older.h"])
