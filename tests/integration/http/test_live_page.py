"""The live page in a real browser, against a running service: what people see, by mouse, keyboard and ear.

Screenshots stay under `build/screenshots/`.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from rillcast.observability.live_view import REVISIONS
from tests.support.chromium import BrowserError, Page, program, running_browser
from tests.support.ci import cannot_run
from tests.support.kafka_broker import free_ports
from tests.support.live_views import put
from tests.support.members import member
from tests.support.paths import ROOT
from tests.support.service_process import ServiceProcess, service

SCREENSHOTS = ROOT / "build" / "screenshots"
START_MS = 1_714_521_600_000
HOUR_MS = 3_600_000
STREAMS = ["boiler-1", "boiler-2", "web/cpu ☂"]
HISTORY = 120
ALARMING = 170  # events before a stream has alarms, and some more
PNG = b"\x89PNG\r\n\x1a\n"
CARD = "document.querySelector('#grid .card')"


@dataclass
class Live:
    """A service that is fed through its standard input, and a page that shows it."""

    process: ServiceProcess
    page: Page
    hours: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.process.port}/"

    def feed(self, unique_id: str, events: int, above: float = 0.0) -> None:
        """Send the next events of a stream: a daily wave of its own, with what is added to it."""
        first = self.hours.get(unique_id, 0)
        self.hours[unique_id] = first + events
        for hour in range(first, first + events):
            y = above + 20 + len(unique_id) + 5 * math.sin(2 * math.pi * hour / 24) + 0.5 * math.cos(hour * hour)
            record = {"unique_id": unique_id, "ds": START_MS + hour * HOUR_MS, "y": y}
            self.process.write(json.dumps(record).encode() + b"\n")

    def events(self) -> int:
        return int(json.loads(self.process.get("/api/summary")[1])["events"])

    def show(self, fragment: str = "") -> None:
        """Reload the page and wait until it shows every stream."""
        self.page.open("about:blank")
        self.page.resize(1280, 900, scheme="light")
        self.page.open(self.url + fragment)
        self.page.wait_for(f"document.querySelectorAll('#grid .card').length >= {len(STREAMS)}")
        self.page.wait_for(f"{CARD}.querySelector('svg path.actual').getAttribute('d')")


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    try:
        program()
    except BrowserError as error:
        cannot_run(str(error))
    folder = tmp_path_factory.mktemp("live-page")
    settings = {
        "model": "universal:1h",
        "input.path": "-",
        "output.path": folder / "forecasts.jsonl",
        "dead_letters.path": folder / "dead-letters.jsonl",
    }
    with service(settings, folder, stdin=subprocess.PIPE) as process:
        process.wait_until(lambda: process.get("/readyz")[0] == 200, "ready")
        with running_browser() as page:
            one = Live(process, page)
            for unique_id in STREAMS:
                one.feed(unique_id, HISTORY)
            process.wait_until(lambda: one.events() == HISTORY * len(STREAMS), "the history is stepped")
            yield one


@pytest.fixture
def page(live: Live) -> Iterator[Page]:
    """The page, just opened; whatever a test does with it, it complains of nothing and asks nobody else."""
    live.page.complaints.clear()
    live.page.requested.clear()
    live.show()
    yield live.page
    live.page.evaluate("0")  # what the browser had to say meanwhile has come with the answer
    assert live.page.complaints == []
    assert {url for url in live.page.requested if not url.startswith((live.url, "about:blank"))} == set()
    assert live.url in live.page.requested


def test_every_stream_has_a_chart_with_its_past_its_forecast_and_its_bands(page: Page) -> None:
    names = page.evaluate("[...document.querySelectorAll('#grid .card .name')].map((name) => name.textContent)")
    assert names == STREAMS
    for number in range(len(STREAMS)):
        chart = f"document.querySelectorAll('#grid .card')[{number}].querySelector('svg')"
        for part in ("actual", "median", "trail"):
            width = page.evaluate(f"{chart}.querySelector('path.{part}').getBBox().width")
            assert width > 20, f"{part} of chart {number} is drawn"
        boxes = page.evaluate(
            f"[...{chart}.querySelectorAll('path.band')].map((band) => [band.getBBox().width, band.getBBox().height, "
            "getComputedStyle(band).fill, getComputedStyle(band).visibility])"
        )
        drawn = [box for box in boxes if box[0] > 10 and box[1] > 2 and box[2] != "none" and box[3] == "visible"]
        assert len(drawn) >= 2, f"nested bands of chart {number}: {boxes}"
    assert page.evaluate("document.getElementById('coverage').textContent").endswith("%")
    assert "universal-1h" in page.evaluate("document.getElementById('model').textContent")


def test_the_page_follows_the_service_without_being_loaded_again(live: Live, page: Page) -> None:
    name = STREAMS[0]
    is_named = f"(one) => one.querySelector('.name').title === {json.dumps(name)}"
    card = f"[...document.querySelectorAll('#grid .card')].find({is_named})"
    before = page.evaluate(
        f"({{value: {card}.querySelector('.value').textContent, "
        f"line: {card}.querySelector('path.median').getAttribute('d'), "
        "events: document.getElementById('events').textContent})"
    )
    page.evaluate("window.notLoadedAgain = true")
    live.feed(name, 5)
    page.wait_for(f"{card}.querySelector('.value').textContent !== {json.dumps(before['value'])}")
    page.wait_for(f"{card}.querySelector('path.median').getAttribute('d') !== {json.dumps(before['line'])}")
    page.wait_for(f"document.getElementById('events').textContent !== {json.dumps(before['events'])}")
    assert page.evaluate("window.notLoadedAgain")


def test_a_chart_of_calendar_months_has_ticks_where_they_begin(page: Page) -> None:
    ticks = page.evaluate(
        """(async () => {
          const { FanChart, element } = await import("/static/chart.js");
          const month = (number) => Date.UTC(2021, number);
          const ds = Array.from({ length: 24 }, (_, i) => month(i)), y = ds.map((_, i) => i);
          const svg = document.body.appendChild(element("svg", {}));
          Object.assign(svg.style, { position: "fixed", width: "900px", height: "300px" });
          const chart = new FanChart(svg, { axes: true });
          const stream = {
            ds, y, covered: y, anomaly: y,
            one_step: { ds: ds.map((_, i) => month(i + 1)), lower: y, median: y, upper: y },
            forecast: { ds: [month(24), month(25)], quantiles: { 0.5: [24, 25] } },
          };
          chart.draw(stream, { step_ms: 2629746000, quantiles: [0.5] });
          while (!svg.querySelector(".grid text, g text")) await new Promise((drawn) => setTimeout(drawn, 20));
          const trail = svg.querySelector("path.trail").getAttribute("d").split(/[ML]/);
          const labels = [...svg.querySelectorAll("text[text-anchor=middle]")];
          const found = labels.map((text) => [text.textContent, Number(text.getAttribute("x"))]);
          svg.remove();
          return { found, first: parseFloat(trail[1]), second: parseFloat(trail[2]) };
        })()"""
    )
    labels = [label for label, _ in ticks["found"]]
    assert labels == [
        "Jan 2021",
        "Apr 2021",
        "Jul 2021",
        "Oct 2021",
        "Jan 2022",
        "Apr 2022",
        "Jul 2022",
        "Oct 2022",
        "Jan 2023",
    ]
    # The forecast of January stands where February begins: 31 of the 90 days to the tick of April.
    x = dict(ticks["found"])
    assert ticks["first"] == pytest.approx(x["Jan 2021"] + (x["Apr 2021"] - x["Jan 2021"]) * 31 / 90, abs=0.2)
    assert ticks["second"] == pytest.approx(x["Jan 2021"] + (x["Apr 2021"] - x["Jan 2021"]) * 59 / 90, abs=0.2)


def test_it_is_used_by_keyboard_alone(page: Page) -> None:
    focus = "document.activeElement.id"
    shown = "document.getElementById('detail-name').textContent"
    page.press("/")
    assert page.evaluate(focus) == "query"
    page.type("boiler")
    page.wait_for("[...document.querySelectorAll('#grid > li')].filter((item) => !item.hidden).length === 2")
    page.press("Enter")
    page.wait_for("document.getElementById('detail').open")
    first, second = sorted(["boiler-1", "boiler-2"], key=lambda name: name != page.evaluate(shown))  # trouble is first
    assert page.evaluate(shown) == first
    assert page.evaluate("document.getElementById('detail').contains(document.activeElement)")
    page.wait_for("document.getElementById('detail-figures').childElementCount >= 4")
    page.press("ArrowRight")
    page.wait_for(f"{shown} === '{second}'")
    page.press("ArrowLeft")
    page.wait_for(f"{shown} === '{first}'")
    if first != "boiler-1":
        page.press("ArrowRight")
        page.wait_for(f"{shown} === 'boiler-1'")
    page.wait_for("!document.getElementById('detail').hasAttribute('aria-busy')")  # the chart is this stream's
    page.wait_for("document.querySelector('#detail-plot path.actual').getAttribute('d')")
    revised = "[...document.querySelectorAll('#detail-plot path.revision')].map((path) => path.getBBox().width)"
    assert len(page.evaluate(revised)) == REVISIONS
    assert min(page.evaluate(revised)) > 100, "each of them is drawn"
    page.press("ArrowRight", shift=True)
    page.wait_for("document.querySelector('.read-out') && !document.querySelector('.read-out').hidden")
    read_out = page.evaluate("document.querySelector('.read-out').textContent")
    assert "UTC" in read_out
    page.press("ArrowRight", shift=True)
    page.wait_for(f"document.querySelector('.read-out').textContent !== {json.dumps(read_out)}")
    for _ in range(60):  # into what is ahead
        page.press("ArrowRight", shift=True)
    page.wait_for("document.querySelector('.read-out').textContent.includes('steps ahead')")
    page.wait_for("document.querySelector('.read-out').textContent.includes('median 1 event before')")
    page.press("Escape")
    page.wait_for("!document.getElementById('detail').open")
    page.wait_for("location.hash === ''")  # the page hears of the end a moment later
    assert page.evaluate(focus) == "query", "the focus is back where it was"


def test_what_forecasts_are_made_of_is_said_of_all_and_of_one(page: Page) -> None:
    page.wait_for("!document.getElementById('fleet').hidden")
    assert "mean of" in page.evaluate("document.querySelector('#fleet h3').textContent")
    assert page.evaluate("document.querySelectorAll('#fleet rect').length") > 3
    page.evaluate("document.querySelector('#grid .card').click()")
    page.wait_for("document.querySelectorAll('#detail-mixture li').length === 3")
    said = page.evaluate("[...document.querySelectorAll('#detail-mixture li')].map((one) => one.textContent)")
    assert said[0].startswith("1 ahead")
    assert all(" % " in one for one in said)


def test_a_search_finds_parts_of_ids_and_says_where_there_is_nothing(page: Page) -> None:
    page.press("/")
    page.type("ER-2")
    page.wait_for("document.querySelectorAll('#grid .card').length === 1")
    assert page.evaluate(f"{CARD}.querySelector('.name').title") == "boiler-2"
    page.type("x")
    page.wait_for("!document.getElementById('empty').hidden")
    assert "No stream has “ER-2x” in its id" in page.evaluate("document.getElementById('empty').textContent")


def test_the_tab_key_reaches_every_stream(page: Page) -> None:
    reached = set()
    for _ in range(len(STREAMS) + 3):
        page.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert {f"{name}: open" for name in STREAMS} <= reached


def test_everything_that_can_be_used_has_a_name_for_those_who_do_not_see_it(page: Page) -> None:
    page.press("/")
    page.type(STREAMS[2])
    page.press("Enter")
    page.wait_for("document.getElementById('detail').open")
    read = page.accessible()
    assert ("dialog", STREAMS[2]) in read
    page.press("Escape")
    page.wait_for("!document.getElementById('detail').open")
    read += page.accessible()
    used = [(role, name) for role, name in read if role in ("button", "searchbox", "textbox", "combobox", "link")]
    assert len(used) > len(STREAMS)
    assert [role for role, name in used if not name.strip()] == []
    assert {"main", "banner", "contentinfo", "status", "search"} <= {role for role, _ in read}
    assert ("heading", "Rillcast") in read
    assert page.evaluate("document.documentElement.lang") == "en"


def test_an_address_opens_a_stream_and_one_unknown_appears_with_its_first_event(live: Live, page: Page) -> None:
    live.show("#late%2Fcomer")
    page.wait_for("document.getElementById('detail').open")
    page.wait_for("document.getElementById('detail-missing').textContent.includes('late/comer')")
    # The browser logs the 404 that this answer is; it is the only thing there is to complain of.
    assert all("404" in complaint and "late%2Fcomer" in complaint for complaint in page.complaints)
    live.feed("late/comer", 30)
    page.wait_for("document.querySelector('#detail-plot path.actual')?.getAttribute('d')")
    page.wait_for("!document.getElementById('detail-plot').hidden")
    page.complaints.clear()


def test_an_alarm_is_a_span_over_the_chart_and_leads_to_its_stream(live: Live, page: Page) -> None:
    name = STREAMS[1]
    live.feed(name, ALARMING - HISTORY)
    live.feed(name, 3, above=400.0)
    page.wait_for("!document.getElementById('alarms').hidden")
    named = f"one.querySelector('.name').title === {json.dumps(name)}"
    card = f"[...document.querySelectorAll('#grid .card')].find((one) => {named})"
    page.wait_for(f"{card}.querySelector('.alarm')?.getBBox().width >= 3")
    assert "1 open alarm" in page.evaluate("document.getElementById('alarm-count').textContent")
    listed = page.evaluate("document.querySelector('#alarm-list button').textContent")
    assert name in listed
    assert "expected" in listed
    assert page.evaluate(f"{card}.querySelector('.chip').textContent") in listed
    page.wait_for(f"{CARD}.querySelector('.name').title === {json.dumps(name)}")  # trouble comes first
    assert page.evaluate("document.querySelector('#filters [data-show=alarm]').textContent") == "Alarm 1"
    page.evaluate("document.querySelector('#filters [data-show=alarm]').click()")
    page.wait_for("document.querySelectorAll('#grid .card').length === 1")
    page.evaluate("document.querySelector('#filters [data-show=all]').click()")
    page.wait_for(f"document.querySelectorAll('#grid .card').length >= {len(STREAMS)}")
    page.evaluate("document.querySelector('#alarm-list button').click()")
    page.wait_for("document.querySelector('#detail-alarms li') !== null")
    page.wait_for("document.querySelector('#detail-plot .alarm')?.getBBox().height > 100")
    told = page.evaluate("document.querySelector('#detail-alarms li').textContent")
    assert "open since" in told
    end = "document.querySelector('#detail-plot .alarm').getBoundingClientRect().right"
    move = f"new PointerEvent('pointermove', {{ clientX: {end} - 2 }})"
    page.evaluate(f"document.getElementById('detail-plot').dispatchEvent({move})")
    page.wait_for("document.querySelector('.read-out').textContent.includes('alarm')")


def test_a_service_that_goes_quiet_is_said_to_be(live: Live, page: Page) -> None:
    live.feed(STREAMS[0], 1)
    page.wait_for("document.getElementById('link').textContent.trim() === 'Live'")
    live.show()
    page.wait_for("document.getElementById('link').dataset.state === 'idle'")
    live.show()  # a page that is opened now does not say that events come
    page.wait_for("document.getElementById('link').dataset.state !== 'connecting'")
    assert page.evaluate("document.getElementById('link').dataset.state") == "idle"
    assert page.evaluate("document.getElementById('link').textContent.trim()") == "No new events"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)], ids=["wide", "narrow"])
def test_it_fits_every_screen_and_both_schemes(page: Page, width: int, height: int, scheme: str) -> None:
    page.resize(width, height, scheme=scheme)
    page.wait_for(f"innerWidth === {width} && {CARD}.querySelector('path.actual').getBBox().width > 20")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing stands out to the right"
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor").removeprefix("rgb(").split(",")[0]
    assert (int(colour) > 127) == (scheme == "light")
    for name, fragment in (("grid", ""), ("stream", "#boiler-1")):
        if fragment:
            page.evaluate("document.querySelector('#grid .card').click()")
            page.wait_for("document.querySelector('#detail-plot path.actual')?.getAttribute('d')")
        image = page.screenshot(SCREENSHOTS / f"live-page-{name}-{width}-{scheme}.png")
        assert image.startswith(PNG)
        assert len(image) > 10_000, "more than an empty page"


def test_a_card_of_several_models_names_its_table_and_is_drawn_by_its_model(live: Live, tmp_path: Path) -> None:
    """The page of `live` only lends its browser."""
    settings = {
        "models": '[{"name": "hours", "model": "universal:1h", "match": "room"},'
        ' {"name": "days", "model": "universal:1d"}]',
        "input.path": "-",
        "output.path": tmp_path / "forecasts.jsonl",
        "dead_letters.path": tmp_path / "dead-letters.jsonl",
    }
    with service(settings, tmp_path, stdin=subprocess.PIPE) as process:
        process.wait_until(lambda: process.get("/readyz")[0] == 200, "ready")
        for period in range(40):
            for unique_id, step_ms in (("room", HOUR_MS), ("shop", 24 * HOUR_MS)):
                record = {"unique_id": unique_id, "ds": START_MS + period * step_ms, "y": 20 + period % 7}
                process.write(json.dumps(record).encode() + b"\n")
        live.page.complaints.clear()
        live.page.open(f"http://127.0.0.1:{process.port}/")
        live.page.wait_for("document.querySelectorAll('#grid .card svg path.median[d]').length === 2")
        said = live.page.evaluate("[...document.querySelectorAll('#grid .card')].map((card) => card.textContent)")
        lines = live.page.evaluate(
            "[...document.querySelectorAll('#grid .card svg path.actual')]"
            ".map((path) => path.getAttribute('d').match(/M/g).length)"
        )
        assert [("hours" in text, "days" in text) for text in said] == [(True, False), (False, True)]
        assert lines == [1, 1], "by the hours' step, the line of days would break after each"
        tables = live.page.evaluate("[...document.querySelectorAll('#tables li')].map((one) => one.textContent)")
        assert [text.partition("universal")[0] for text in tables] == ["hours", "days"]
        assert all("covered, of " in text for text in tables), "each table has its own coverage"
        live.page.screenshot(SCREENSHOTS / "live-page-tables-1280.png")
        assert "hours: universal-1h" in live.page.evaluate("document.getElementById('model').textContent")
        assert live.page.complaints == []


def test_all_members_stand_on_one_page_and_one_that_is_away_is_said_to_be(live: Live) -> None:
    """The page of `live` only lends its browser."""
    ports = free_ports(3)
    peers = ",".join(f"127.0.0.1:{port}" for port in ports)
    live.page.open("about:blank")  # the page before may complain of its own server, which a test stopped
    live.page.complaints.clear()
    with member(ports[0], peers) as first, member(ports[1], peers) as second:
        for number, each in enumerate((first, second)):
            names = [f"plant-{number}/line-{line}/a-very-long-name-of-a-measuring-point/{line}" for line in range(3)]
            for hour in range(30):
                put(each.live_view, names, [hour] * 3, [math.sin(hour / 4 + number)] * 3, covered=[1.0] * 3)
        second.health.restored = False
        live.page.open(f"http://127.0.0.1:{ports[0]}/")
        live.page.wait_for("document.querySelectorAll('#grid .card svg path.median[d]').length === 6")
        live.page.wait_for("document.querySelectorAll('#member-list li').length === 3")
        said = live.page.evaluate("[...document.querySelectorAll('#member-list li')].map((one) => one.textContent)")
        states = live.page.evaluate("[...document.querySelectorAll('#member-list li')].map((one) => one.dataset.state)")
        assert states == ["away", "waiting", "ready"], said
        assert said[0].startswith(f"127.0.0.1:{ports[2]}away for ")
        assert "restores 0 partitions" in said[1]
        assert f"lag {ports[0]:,}" in said[2]
        assert f"{ports[0]:,} dead letters" in said[2]
        title = live.page.evaluate("document.getElementById('members-name').textContent")
        assert title == "3 members, 1 away, 1 not ready"
        scale = live.page.evaluate(f"[...{CARD}.querySelectorAll('text.scale')].map((text) => text.textContent)")
        assert [text.startswith("-") for text in scale] == [False, True]
        live.page.evaluate("[...document.querySelectorAll('#grid .card')].at(-1).click()")
        live.page.wait_for("document.querySelector('#detail-plot path.actual')?.getAttribute('d')")
        live.page.press("Escape")
        for width, height in ((1280, 900), (390, 844)):
            live.page.resize(width, height, scheme="light")
            live.page.wait_for(f"innerWidth === {width}")
            assert live.page.evaluate("document.documentElement.scrollWidth") <= width
            live.page.screenshot(SCREENSHOTS / f"live-page-members-{width}-light.png")
        assert live.page.complaints == []
