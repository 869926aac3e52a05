"""The short form: some inputs for every target, and hypothesis where it finds more than mutants."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rillcast.codecs.observations import decoder
from tests.fuzz import stored
from tests.fuzz.mutation import mutant
from tests.fuzz.run import functions
from tests.fuzz.targets import targets

TARGETS = list(targets())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["unique_id", "ds", "y", "x"]), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_of_honest_inputs_break_no_promise(name: str) -> None:
    target = targets()[name]
    for number in range(target.short):
        data = mutant(target.seeds, seed=1, number=number)
        try:
            target.run(data)
        except Exception as error:
            raise AssertionError(f"{name} broke on input {number}: {data!r}") from error


@pytest.mark.parametrize("name", [name for name in TARGETS if targets()[name].short == 1_000])
@settings(max_examples=50)
@given(data=st.binary(max_size=300))
def test_any_bytes_break_no_promise(name: str, data: bytes) -> None:
    targets()[name].run(data)


@settings(max_examples=300)
@given(document=JSON)
def test_any_json_breaks_no_promise(document: object) -> None:
    data = json.dumps(document).encode()
    for name in ("json", "mapped", "cloudevents", "json_schema", "dead_letters"):
        targets()[name].run(data)


@pytest.mark.parametrize("name", sorted(stored.targets()))
def test_a_flipped_bit_anywhere_in_stored_state_is_refused(name: str) -> None:
    target = targets()[name]
    for bit in range(8 * len(target.seeds[0])):
        data = bytearray(target.seeds[0])
        data[bit // 8] ^= 1 << bit % 8
        target.run(bytes(data))


def test_what_is_guided_by_coverage_are_all_functions_and_methods_of_a_module_and_no_others() -> None:
    names = {function.__qualname__ for function in functions(decoder)}
    assert {"ObservationDecoder.decode", "ObservationDecoder._checked", "_epoch_ms"} <= names
    assert all(function.__module__ == decoder.__name__ for function in functions(decoder))
    assert "open_event" not in names, "it is another module's"


def test_a_mutant_is_made_of_its_seed_and_number_alone() -> None:
    seeds = [b"one", b"two"]
    first = [mutant(seeds, 7, number) for number in range(50)]
    assert first == [mutant(seeds, 7, number) for number in range(50)]
    assert first != [mutant(seeds, 8, number) for number in range(50)]
    assert first[:2] == seeds
    assert len(set(first)) > 40
