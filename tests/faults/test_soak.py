"""The report of a soak: what is flat passes, what grows or stands still is said; samples outlive a soak that dies."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from tests.faults import soak, soak_picture
from tests.faults.flatness import Sample, Samples, figures, report

FLAT = [
    Sample(
        seconds=float(n), committed=100 * n, resident_mib=150.0, descriptors=30, threads=12, series=400,
        state_mib=1.0 + n % 2,
    )
    for n in range(80)
]  # fmt: skip


def test_what_stays_or_swings_is_flat_and_so_is_what_grew_in_the_first_quarter() -> None:
    begun = [replace(each, resident_mib=10.0 * n) for n, each in enumerate(FLAT[:15])]
    text, flat = report([*begun, *FLAT[15:]])
    assert flat
    assert "7,900 events in 79 s" in text
    assert "NOT" not in text


@pytest.mark.parametrize("name", ["resident_mib", "descriptors", "threads", "series", "state_mib"])
def test_what_grows_is_named(name: str) -> None:
    grown = [replace(each, **{name: getattr(each, name) + 10 * (n // 40)}) for n, each in enumerate(FLAT)]
    text, flat = report(grown)
    assert not flat
    (line,) = (line for line in text.splitlines() if "NOT FLAT" in line)
    assert line.startswith(name)
    assert [each.name for each in figures(grown) if not each.is_flat(0.02)] == [name]


def test_a_service_that_stands_still_is_not_flat() -> None:
    text, flat = report([*FLAT[:60], *(replace(each, committed=6_000) for each in FLAT[60:])])
    assert not flat
    assert "NOT GOING ON" in text


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="7 samples, expected at least 8"):
        figures(FLAT[:7])


class Dying:
    """A soak that takes three samples, and dies."""

    def __init__(self, *_: object) -> None: ...

    def run(self, _seconds: float, _interval_s: float, _sample_s: float, note: Callable[[Sample], None]) -> None:
        for sample in FLAT[:3]:
            note(sample)
        raise MemoryError("died")


def test_a_soak_that_dies_leaves_what_it_has_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "Soak", Dying)
    monkeypatch.setattr(soak, "restartable_cluster", contextlib.nullcontext)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(MemoryError, match="died"):
        soak.main(["--out", str(tmp_path / "samples.jsonl")])
    lines = (tmp_path / "samples.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line, type=Sample) for line in lines] == FLAT[:3]


def test_a_sample_is_in_the_file_as_soon_as_it_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with Samples(path) as samples:
        samples.note(FLAT[0])
        assert msgspec.json.decode(path.read_bytes(), type=Sample) == FLAT[0]
    assert samples.taken == FLAT[:1]


def test_the_picture_is_of_the_samples_in_a_file(tmp_path: Path) -> None:
    path, picture = tmp_path / "samples.jsonl", tmp_path / "soak.png"
    with Samples(path) as samples:
        for sample in FLAT:
            samples.note(sample)
    assert soak_picture.main([str(path), str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
