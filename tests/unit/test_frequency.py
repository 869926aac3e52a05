from __future__ import annotations

import pytest

from pipeline.frequency import step_ms


@pytest.mark.parametrize(
    ("freq", "expected"),
    [
        ("1h", 3_600_000),
        ("h", 3_600_000),
        ("30min", 1_800_000),
        ("5s", 5_000),
        ("1D", 86_400_000),
        ("250ms", 250),
        ("2w", 1_209_600_000),
    ],
)
def test_length_of_one_slot(freq: str, expected: int) -> None:
    assert step_ms(freq) == expected


@pytest.mark.parametrize("freq", ["", "0h", "-1h", "1.5h", "1 month", "M", "hourly"])
def test_other_texts_are_refused(freq: str) -> None:
    with pytest.raises(ValueError, match="positive whole number"):
        step_ms(freq)
