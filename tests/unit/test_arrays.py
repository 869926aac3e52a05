"""The rows of equal values: every row comes once, and the rows of a value in their order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rillcast.arrays import rows_of_each


@given(st.lists(st.integers(0, 5), max_size=300))
def test_every_row_comes_once_with_its_value_and_in_order(values: list[int]) -> None:
    column = np.array(values, np.int64)
    found: dict[int, list[int]] = {}
    for value, rows in rows_of_each(column):
        found.setdefault(value, []).extend(np.arange(column.size)[rows].tolist())
    assert found == {value: np.flatnonzero(column == value).tolist() for value in values}


def test_few_runs_are_slices_and_of_many_each_value_comes_once() -> None:
    assert list(rows_of_each(np.array([3, 3, 1, 3]))) == [(3, slice(0, 2)), (1, slice(2, 3)), (3, slice(3, 4))]
    assert [value for value, _ in rows_of_each(np.arange(1_000) % 3)] == [0, 1, 2]
