// The live page: fetches what the board has, once per period, and shows it.
//
// Owns: the state of the page (streams, the one that is open, the filter) and the calls to the server it came from.
// It loads nothing from anywhere else, sends nothing, and rests while nobody looks at it.

import { FanChart, element, format, formatShortly, formatTime } from "/static/chart.js";
import { alarmWords, byId, getJson, make, modelOf, percent, served, showChip, showLink, showMixture, shownIds } from "/static/common.js";
import { detail, fetchDetail, openDetail, showDetail, wireDetail } from "/static/detail.js";
import { showMembers } from "/static/members.js";
import { showSummary } from "/static/strip.js";

const PERIOD_MS = 500;
const PAGE = 24; // cards, as the server gives them

const cards = new Map(); // stream id -> { item, name, value, foot, chart }
const wanted = { find: "", show: "", from: 0 }; // of the grid
const FILTERS = { all: "All", alarm: "Alarm", silence: "Silent", uncovered: "Uncovered" };
let asked = 0; // requests for the grid, so that an answer to an earlier one is not shown

// ---- Fetching

async function refresh() {
  const number = ++asked;
  const query = new URLSearchParams(wanted);
  const [all, one] = await Promise.all([getJson(`/api/streams?${query}`), detail.stream === null ? null : fetchDetail(detail.stream)]);
  if (number < asked) return;
  served.model = all.document.summary.model;
  served.tables = all.document.summary.models ?? {};
  showSummary(all.document.summary);
  showMembers(all.document.members);
  showAlarms(all.document.open_alarms, all.document.summary.open_alarms);
  showTools(all.document);
  showMixture(byId("fleet"), all.document.mixture, (mixture) => mixture.streams === 1
    ? "What its forecasts are made of" : `What forecasts are made of, mean of ${mixture.streams.toLocaleString("en-US")} streams`);
  showGrid(all.document.streams);
  showUncharted(all.document);
  if (one !== null && one.id === detail.stream) showDetail(one);
}

async function run() {
  for (;;) {
    const started = performance.now();
    if (!document.hidden) {
      try {
        await refresh();
      } catch (error) {
        console.warn(error);
        showLink("lost", "Connection lost");
      }
    }
    await new Promise((wake) => setTimeout(wake, Math.max(50, PERIOD_MS - (performance.now() - started))));
  }
}

// ---- Open alarms

function showAlarms(alarms, counts) {
  const total = counts.critical + counts.warning;
  byId("alarms").hidden = total === 0;
  byId("alarm-count").textContent = `${total.toLocaleString("en-US")} open ${total === 1 ? "alarm" : "alarms"}`
    + (counts.critical ? `, ${counts.critical.toLocaleString("en-US")} critical` : "");
  const list = byId("alarm-list");
  const key = (alarm) => `${alarm.unique_id}\n${alarm.first}`;
  const kept = new Map([...list.children].map((item) => [item.dataset.key, item]));
  const critical = (alarm) => (alarm.severity === "critical" ? 0 : 1);
  const items = alarms.toSorted((a, b) => critical(a) - critical(b)).map((alarm) => {
    const item = kept.get(key(alarm)) ?? addAlarm(key(alarm), alarm.unique_id);
    const [name, what, since] = item.firstChild.children;
    item.firstChild.dataset.severity = alarm.severity;
    name.textContent = name.title = alarm.unique_id;
    what.textContent = alarmWords(alarm);
    since.textContent = `since ${formatTime(alarm.first)}`;
    return item;
  });
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) list.replaceChildren(...items);
}

function addAlarm(key, id) {
  const item = document.createElement("li");
  item.dataset.key = key;
  const button = make(item, "button");
  button.type = "button";
  make(button, "b");
  make(button, "span");
  make(button, "span", "quiet");
  button.addEventListener("click", () => openDetail(id, button));
  return item;
}

// ---- The grid

/** Filters with their counts, and the place of this page among all. */
function showTools({ counts, total, from, streams }) {
  byId("tools").hidden = counts.all === 0 && wanted.find === "";
  const filters = byId("filters");
  for (const [name, label] of Object.entries(FILTERS)) {
    const button = filters.querySelector(`[data-show="${name}"]`) ?? addFilter(filters, name);
    button.textContent = `${label} ${counts[name].toLocaleString("en-US")}`;
    button.setAttribute("aria-pressed", String((wanted.show || "all") === name));
    button.hidden = name !== "all" && counts[name] === 0 && wanted.show !== name;
  }
  byId("place").textContent = total > streams.length ? `${from + 1} to ${from + streams.length} of ${total}` : "";
  byId("page-before").hidden = byId("page-after").hidden = total <= streams.length;
  byId("page-before").disabled = from === 0;
  byId("page-after").disabled = from + streams.length >= total;
}

function addFilter(filters, name) {
  const button = make(filters, "button");
  button.type = "button";
  button.dataset.show = name;
  button.addEventListener("click", () => ask({ show: name === "all" ? "" : name, from: 0 }));
  return button;
}

/** Ask for other streams at once. */
function ask(change) {
  Object.assign(wanted, change);
  return refresh().catch(() => showLink("lost", "Connection lost"));
}

/** Streams that the search finds and that have no chart yet. */
function showUncharted({ uncharted, total, counts }) {
  byId("uncharted").hidden = uncharted.length === 0;
  byId("uncharted-list").replaceChildren(...uncharted.map((id) => {
    const item = document.createElement("li");
    const button = make(item, "button");
    button.type = "button";
    button.textContent = id;
    button.addEventListener("click", () => openDetail(id, byId("query")));
    return item;
  }));
  byId("empty").hidden = total > 0 || uncharted.length > 0;
  byId("empty").textContent = wanted.find ? `No stream has “${wanted.find}” in its id. Enter follows a stream of this id from its next event on.`
    : counts.all ? "No stream is in this trouble now." : "Waiting for the first events…";
}

function showGrid(streams) {
  const present = new Set(streams.map((stream) => stream.unique_id));
  for (const [id, card] of cards) {
    if (present.has(id)) continue;
    card.item.remove();
    cards.delete(id);
  }
  const grid = byId("grid");
  for (const [i, stream] of streams.entries()) {
    const card = cards.get(stream.unique_id) ?? addCard(stream.unique_id);
    card.value.textContent = format(stream.y.at(-1));
    showChip(card.chip, stream);
    card.coverage.textContent = stream.coverage === null ? "" : `${percent(stream.coverage, 0)} covered`;
    card.time.textContent = stream.silence ? `silent since ${formatShortly(stream.silence.since)}` : formatTime(stream.ds.at(-1));
    if (grid.children[i] !== card.item) grid.insertBefore(card.item, grid.children[i] ?? null);
    card.table.textContent = stream.model ?? "";
    card.chart.draw(stream, modelOf(stream));
  }
}

function addCard(id) {
  const item = document.createElement("li");
  const button = make(item, "button", "card");
  button.type = "button";
  button.setAttribute("aria-label", `${id}: open`);
  const head = make(button, "div", "head");
  const name = make(head, "span", "name");
  name.title = id;
  // The end of a long id is what tells it from its neighbours: only its middle is cut.
  const cut = id.length > 18 ? id.length - Math.min(20, Math.ceil(0.42 * id.length)) : id.length;
  make(name, "span").textContent = id.slice(0, cut);
  make(name, "span").textContent = id.slice(cut);
  const chip = make(head, "span", "chip");
  const value = make(head, "span", "value");
  const svg = button.appendChild(element("svg", { "aria-hidden": "true" }));
  const foot = make(button, "div", "foot");
  const card = {
    item, button, chip, value, time: make(foot, "span"), table: make(foot, "span"),
    coverage: make(foot, "span"), chart: new FanChart(svg, { axes: false }),
  };
  button.addEventListener("click", () => openDetail(id, button));
  cards.set(id, card);
  byId("grid").append(item);
  byId("known").replaceChildren(...shownIds().map((known) => Object.assign(document.createElement("option"), { value: known })));
  return card;
}

function wireSearch() {
  byId("query").addEventListener("input", () => ask({ find: byId("query").value.trim(), from: 0 }));
  byId("page-before").addEventListener("click", () => ask({ from: Math.max(0, wanted.from - PAGE) }));
  byId("page-after").addEventListener("click", () => ask({ from: wanted.from + PAGE }));
  byId("search").addEventListener("submit", async (event) => {
    event.preventDefault();
    const id = byId("query").value.trim();
    if (!id) return;
    await ask({ find: id, from: 0 });
    const [first] = [...shownIds(), ...[...byId("uncharted-list").children].map((item) => item.textContent)];
    // An id that nobody knows is asked for by its full name: the server follows it from its next event on.
    openDetail(cards.has(id) || first === undefined ? id : first, byId("query"));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    byId(detail.dialog.open ? "detail-query" : "query").focus();
  });
}

wireSearch();
wireDetail();
if (location.hash.length > 1) openDetail(decodeURIComponent(location.hash.slice(1)));
run();
