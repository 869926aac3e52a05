"""`rillcast init --check` of a file; `tests/integration/kafka/test_init.py` has it of topics."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rillcast import settings
from rillcast.bundle.bundle import Bundle
from rillcast.cli import flags
from rillcast.discovery.check import check as check_settings

START = datetime(2024, 1, 1, tzinfo=UTC)
load_once = functools.cache(Bundle.load)


@pytest.fixture(autouse=True)
def _rooms_and_shops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rooms by the hour, two shops by the day, and a test stream, in the directory in which commands run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rillcast.discovery.tables.Bundle.load", load_once)
    rows = ["unique_id,ds,y,kind"]
    for hour in range(24 * 7):
        at = (START + timedelta(hours=hour)).isoformat()
        rows += [f"room/{room},{at},{hour % 24},t" for room in (1, 2)]
        if hour % 24 == 0:
            rows += [*(f"shop/{shop},{at},{hour},sales" for shop in (1, 2)), f"test/1,{at},0,test"]
    Path("in.csv").write_text("\n".join(rows) + "\n")


def check(*tables: tuple[str, str, str], more: str = "") -> dict[str, list[str]]:
    """Check tables of name, model and conditions; return the findings by what they are about."""
    written = "".join(f'[[models]]\nname = "{name}"\nmodel = "{model}"\n{rule}\n' for name, model, rule in tables)
    given = f'[input]\npath = "in.csv"\n{more}\n[output]\npath = "out.jsonl"\n[http]\nenabled = false\n'
    Path("rillcast.toml").write_text(written + given)
    found: dict[str, list[str]] = {}
    for each in check_settings(flags.with_local_model(settings.load()), seconds=1, records=1_000):
        found.setdefault(each.about, []).append(f"{each.level}: {each.text}")
    return found


def wrong(found: dict[str, list[str]]) -> list[str]:
    """Return what has errors."""
    return [about for about, texts in found.items() if any(each.startswith("error") for each in texts)]


ROOMS, SHOPS = ("hours", "universal:1h", 'match = "room/*"'), ("days", "universal:1d", 'only = "kind=sales"')


def test_each_table_is_compared_with_what_it_takes() -> None:
    found = check(ROOMS, SHOPS, ("rest", "universal:1d", ""))
    assert found == {
        "records": ["good: all of 357 are observations"],
        "models.hours": ["good: periods of 1h; it takes 336 events of 2 streams, most with an event every 1h"],
        "models.days": ["good: periods of 1d; it takes 14 events of 2 streams, most with an event every 1d"],
        "models.rest": ["good: periods of 1d; it takes 7 events of 1 streams, most with an event every 1d"],
    }


@pytest.mark.parametrize("dead", [False, True])
def test_streams_that_no_table_takes_are_named(dead: bool) -> None:
    found = check(ROOMS, SHOPS, more='unmatched = "dead_letter"' if dead else "")
    assert not wrong(found)
    then = "become dead letters (unmatched)" if dead else "are left out and counted"
    assert found["models"] == [
        (
            f"warning: no table takes 1 streams, such as 'test/1': their events, 7 of 357, {then}; a last table "
            f"without match takes the rest"
        )
    ]
    assert found["records"] == ["good: all of 357 are observations"]
    found = check(("attic", "universal:1h", 'match = "attic/*"'), (*SHOPS[:2], 'match = "cellar/*"'))
    assert found["models"][0].startswith("error: no table takes 5 streams, such as 'room/1'")


def test_a_table_that_takes_nothing_or_what_its_model_cannot_use_is_named() -> None:
    found = check(("hours", "universal:1d", 'match = "room/*"'), ("attic", "universal:1h", 'match = "attic/*"'), SHOPS)
    assert wrong(found) == ["models.hours"]
    assert "96% of the events repeat a period of 1d" in found["models.hours"][1]
    assert found["models.attic"][0].startswith("warning: it takes no event of the sample: none meets match = 'attic/*'")
    found = check(("all", "universal:1h", ""), SHOPS)
    assert wrong(found) == ["models.days"]
    assert found["models.days"][0] == (
        "error: models.all, which stands before it, takes every event; put a table for the rest last"
    )
    found = check(("hours", "universal:1d", 'match = "room/*"\naggregate = "mean"'), SHOPS)
    assert not wrong(found), "the rooms are averaged by the day"
    assert found["models.hours"][1:] == []


def test_a_model_that_lacks_what_is_published_is_named() -> None:
    found = check(ROOMS, ("days", "universal:1d", ""), more='[publish]\nhorizons = "1,48"')
    assert wrong(found) == ["models.days"]
