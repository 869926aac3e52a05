// The live page: fetches what the board has, once per period, and shows it.
//
// Owns: the state of the page (streams, the one that is open, the filter) and the calls to the server it came from.
// It loads nothing from anywhere else, sends nothing, and rests while nobody looks at it.

import { FanChart, element, format, formatShortly, formatTime, setAll } from "/static/chart.js";

const PERIOD_MS = 500;
const TIMEOUT_MS = 4_000;
const IDLE_AFTER_MS = 6_000;
const RATE_POINTS = 120;
const PAGE = 24; // cards, as the server gives them
const byId = (id) => document.getElementById(id);
const percent = (ratio, digits = 1) => (ratio === null ? "–" : `${(100 * ratio).toFixed(digits)} %`);

const cards = new Map(); // stream id -> { item, name, value, foot, chart }
const rates = [];
const detail = {
  dialog: byId("detail"), plot: byId("detail-plot"), stream: null, shown: null, chart: null, position: null, opener: null,
};
const wanted = { find: "", show: "", from: 0 }; // of the grid
const FILTERS = { all: "All", alarm: "Alarm", silence: "Silent", uncovered: "Uncovered" };
let model = null;
let tables = {}; // the tables of [[models]] by name; empty with one model
let lastEvents = null;
let asked = 0; // requests for the grid, so that an answer to an earlier one is not shown

// ---- Fetching

async function getJson(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), headers: { accept: "application/json" } });
  if (!answer.ok && answer.status !== 404) throw new Error(`${path}: ${answer.status}`);
  return { found: answer.ok, document: await answer.json() };
}

async function refresh() {
  const number = ++asked;
  const query = new URLSearchParams(wanted);
  const [all, one] = await Promise.all([getJson(`/api/streams?${query}`), detail.stream === null ? null : fetchDetail(detail.stream)]);
  if (number < asked) return;
  model = all.document.summary.model;
  tables = all.document.summary.models ?? {};
  showSummary(all.document.summary);
  showAlarms(all.document.open_alarms, all.document.summary.open_alarms);
  showTools(all.document);
  showMixture(byId("fleet"), all.document.mixture, (mixture) => mixture.streams === 1
    ? "What its forecasts are made of" : `What forecasts are made of, mean of ${mixture.streams.toLocaleString("en-US")} streams`);
  showGrid(all.document.streams);
  showUncharted(all.document);
  if (one !== null && one.id === detail.stream) showDetail(one);
}

/** The model that forecasts a stream; of several, the stream names its table. */
function modelOf(stream) {
  return tables[stream.model]?.model ?? model;
}

async function fetchDetail(id) {
  return { id, ...(await getJson(`/api/streams/${encodeURIComponent(id)}`)) };
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

// ---- The strip of figures

function showLink(state, text) {
  const link = byId("link");
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.querySelector("span").textContent = text;
}

function showSummary(summary) {
  const { coverage, latency_s: latency } = summary;
  const coming = lastEvents === null ? summary.events_per_second > 0 : summary.events !== lastEvents.count;
  if (coming || lastEvents === null) lastEvents = { count: summary.events, at: coming ? performance.now() : -Infinity };
  if (performance.now() - lastEvents.at > IDLE_AFTER_MS) showLink("idle", "No new events");
  else showLink("live", "Live");

  const steps = `${model.horizon} × ${model.freq} ahead`;
  const several = Object.entries(tables).map(([name, each]) => `${name}: ${each.model.name}, ${each.model.model_id}`);
  byId("model").textContent = several.length ? several.join(" · ")
    : [model.name, model.cell?.toUpperCase(), steps, model.model_id].filter(Boolean).join(" · ");
  document.title = `${model.name} · Rillcast`;
  byId("rate").textContent = formatRate(summary.events_per_second);
  byId("events").textContent = summary.events.toLocaleString("en-US");
  byId("newest").textContent = summary.newest_ds === null ? "–" : formatTime(summary.newest_ds);
  byId("p50").textContent = formatSeconds(latency.p50);
  byId("p99").textContent = formatSeconds(latency.p99);
  byId("interval").textContent = `of ${percent(coverage.nominal, 0)}`;
  byId("coverage").textContent = percent(coverage.observed);
  byId("streams").textContent = (summary.streams ?? summary.followed).toLocaleString("en-US");
  const overdue = summary.overdue_streams ?? 0;
  byId("overdue").textContent = overdue > 0 ? `, ${overdue.toLocaleString("en-US")} overdue` : "";
  byId("shown").textContent = `${summary.followed.toLocaleString("en-US")} charted`;
  const bar = byId("coverage-bar");
  bar.querySelector(".value").setAttribute("width", 100 * (coverage.observed ?? 0));
  bar.querySelector(".nominal").setAttribute("x", 100 * coverage.nominal - 0.5);
  byId("band-names").textContent = bandNames(model.quantiles);
  showRate(summary.events_per_second);
}

function bandNames(quantiles) {
  const widths = [];
  for (let i = 0; i < Math.floor(quantiles.length / 2); i += 1) {
    widths.push(Math.round(100 * (quantiles.at(-1 - i) - quantiles[i])));
  }
  return widths.length ? `${widths.join(", ")} % intervals` : "no intervals";
}

function showRate(rate) {
  rates.push(rate);
  if (rates.length > RATE_POINTS) rates.shift();
  const top = Math.max(...rates, 1e-9) * 1.15;
  const points = rates.map((value, i) => `${(120 - (rates.length - 1 - i) * (120 / (RATE_POINTS - 1))).toFixed(2)} ${(28 - (26 * value) / top).toFixed(2)}`);
  const first = points[0].split(" ")[0];
  const svg = byId("rate-line");
  svg.querySelector(".line").setAttribute("d", `M${points.join("L")}`);
  svg.querySelector(".area").setAttribute("d", `M${first} 28L${points.join("L")}L120 28Z`);
}

function formatRate(rate) {
  return rate >= 100 ? Math.round(rate).toLocaleString("en-US") : rate.toFixed(1);
}

function formatSeconds(seconds) {
  if (seconds === null) return "–";
  if (seconds < 1e-3) return `${(1e6 * seconds).toFixed(0)} µs`;
  if (seconds < 1) return `${(1e3 * seconds).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
  return `${seconds.toFixed(1)} s`;
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

/** An alarm in a few words: what it is, and how far off the value was. */
function alarmWords(alarm) {
  const seen = alarm.observed === null || alarm.expected === null ? ""
    : `: ${format(alarm.observed)}, expected ${format(alarm.expected)}`;
  return `${alarm.kind}${alarm.direction ? ` ${alarm.direction}` : ""}${seen}`;
}

function openAlarm(stream) {
  return stream.alarms.find((alarm) => alarm.closed === null);
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

function make(parent, tag, className = "") {
  const made = parent.appendChild(document.createElement(tag));
  if (className) made.className = className;
  return made;
}

function showChip(chip, stream) {
  const alarm = openAlarm(stream);
  const silence = stream.silence ? (stream.silence.asleep ? "asleep" : "overdue") : undefined;
  chip.textContent = alarm?.kind ?? silence ?? chipText(stream.status);
  chip.dataset.severity = alarm?.severity ?? (silence ? "silent" : "");
}

function chipText(status) {
  return status === "ok" ? "" : status.replaceAll("_", " ");
}

function shownIds() {
  return [...document.querySelectorAll("#grid .name")].map((name) => name.title);
}

// ---- The large view

function openDetail(id, opener = null) {
  if (detail.chart === null) {
    const svg = detail.plot.appendChild(element("svg", {}));
    detail.chart = new FanChart(svg, { axes: true });
    detail.cross = svg.appendChild(element("g", { visibility: "hidden" }));
    detail.readOut = make(detail.plot, "div", "read-out");
    detail.readOut.hidden = true;
  }
  detail.stream = id;
  detail.shown = null;
  detail.opener = opener ?? detail.opener;
  byId("detail-name").textContent = id;
  byId("detail-query").value = "";
  byId("detail-status").textContent = "";
  byId("detail-alarms").replaceChildren();
  hideReadOut();
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  if (!detail.dialog.open) detail.dialog.showModal();
  fetchDetail(id).then((one) => {
    if (one.id === detail.stream && model !== null) showDetail(one);
  }, () => showLink("lost", "Connection lost"));
}

function showDetail({ found, document: stream }) {
  byId("detail-missing").hidden = found;
  byId("detail-mixture").hidden = !found;
  detail.plot.hidden = byId("detail-figures").hidden = byId("detail-alarms").hidden = !found;
  if (!found) {
    byId("detail-missing").textContent = stream.forecast
      ? `“${detail.stream}” is forecast, and charted from its next event on.`
      : `No forecast of “${detail.stream}” is kept here. It is charted from its next event on.`;
    return;
  }
  detail.shown = stream;
  showChip(byId("detail-status"), stream);
  showMixture(byId("detail-mixture"), stream.mixture, () => "What the forecast is made of");
  showDetailAlarms(stream.alarms);
  const served = modelOf(stream);
  detail.chart.draw(stream, served);
  if (detail.position !== null) showReadOut(detail.position);
  const at = (level) => stream.forecast.quantiles[level]?.[0] ?? null;
  const [lowest, highest] = [served.quantiles[0], served.quantiles.at(-1)];
  showFigures({
    "Newest value": format(stream.y.at(-1)),
    ...(stream.model ? { Model: stream.model } : {}),
    [`Next ${served.freq}, ${percent(highest - lowest, 0)} interval`]: `${format(at(lowest))} to ${format(at(highest))}`,
    "Covered, in view": percent(stream.coverage),
    "Anomaly score": stream.anomaly.at(-1) === null ? "–" : stream.anomaly.at(-1).toFixed(2),
    Events: stream.events.toLocaleString("en-US"),
  });
}

/** The alarms of the stream, the newest first, in words. */
function showDetailAlarms(alarms) {
  const list = byId("detail-alarms");
  const shown = alarms.toReversed().slice(0, 4);
  list.replaceChildren(...shown.map((alarm) => {
    const item = document.createElement("li");
    item.dataset.severity = alarm.closed === null ? alarm.severity : "closed";
    const [what, when] = [make(item, "span"), make(item, "span", "quiet")];
    what.textContent = `${alarm.severity === "critical" ? "Critical" : "Warning"}: ${alarmWords(alarm)}`;
    const until = alarm.last === alarm.first ? "" : ` to ${formatTime(alarm.last)}`;
    when.textContent = alarm.closed === null ? `open since ${formatTime(alarm.first)}` : formatTime(alarm.first) + until;
    return item;
  }));
}

/** The weights of the experts by horizon: a bar of parts, and the larger parts in words. */
function showMixture(section, mixture, title) {
  section.hidden = mixture === null || mixture === undefined;
  if (section.hidden) return;
  section.querySelector("h3").textContent = title(mixture);
  const list = section.querySelector("ul");
  list.replaceChildren(...mixture.horizons.map(({ step, shares }) => {
    const item = document.createElement("li");
    make(item, "span", "quiet").textContent = `${step} ahead`;
    const svg = item.appendChild(element("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" }));
    let left = 0;
    shares.forEach(([, share], i) => {
      svg.append(element("rect", { x: 100 * left, width: Math.max(0, 100 * share - 0.4), height: 8, "fill-opacity": Math.max(0.15, 0.95 - 0.22 * i) }));
      left += share;
    });
    const large = shares.filter(([, share]) => share >= 0.05);
    const rest = 1 - large.reduce((sum, [, share]) => sum + share, 0);
    const parts = large.map(([what, share]) => `${percent(share, 0)} ${what}`).concat(rest >= 0.005 ? [`${percent(rest, 0)} others`] : []);
    make(item, "span").textContent = shares.length ? parts.join(", ") : "no value is known yet";
    return item;
  }));
}

function showFigures(figures) {
  const list = byId("detail-figures");
  if (list.childElementCount !== Object.keys(figures).length) {
    list.replaceChildren(...Object.keys(figures).map(() => {
      const group = document.createElement("div");
      group.append(document.createElement("dt"), document.createElement("dd"));
      return group;
    }));
  }
  Object.entries(figures).forEach(([name, value], i) => {
    [list.children[i].firstChild.textContent, list.children[i].lastChild.textContent] = [name, value];
  });
}

function showReadOut(position) {
  const near = detail.chart.nearest(position);
  if (near === null) return;
  detail.position = position;
  const rows = [];
  const dots = [];
  if (near.actual !== undefined) {
    rows.push(["actual", near.actual === null ? "missing" : format(near.actual), near.covered === 0 ? "missed" : ""]);
    if (near.actual !== null) dots.push([near.actual, "dot"]);
  }
  if (near.oneStep) {
    rows.push(["one step before", format(near.oneStep.median)]);
    rows.push(["interval", `${format(near.oneStep.lower)} to ${format(near.oneStep.upper)}`]);
  }
  if (near.anomaly !== undefined && near.anomaly !== null) rows.push(["anomaly", near.anomaly.toFixed(2)]);
  if (near.alarm) rows.push(["alarm", `${near.alarm.kind}${near.alarm.direction ? ` ${near.alarm.direction}` : ""}`, "missed"]);
  if (near.quantiles) {
    rows.push(["steps ahead", String(near.step)]);
    for (const [level, value] of near.quantiles.toReversed()) {
      if (near.quantiles.length > 5 && !isRead(level)) continue;
      rows.push([`q ${level}`, format(value)]);
    }
    for (const [events, value] of near.earlier) {
      rows.push([`median ${events} ${events === 1 ? "event" : "events"} before`, format(value)]);
    }
    const median = near.quantiles.reduce((best, q) => (Math.abs(q[0] - 0.5) < Math.abs(best[0] - 0.5) ? q : best));
    dots.push([median[1], "dot forecast"]);
  }
  detail.cross.replaceChildren(
    element("line", { class: "cross", x1: near.left, x2: near.left, y1: near.top, y2: near.bottom }),
    ...dots.map(([value, name]) => element("circle", { class: name, cx: near.left, cy: near.y(value), r: 4 })),
  );
  setAll(detail.cross, { visibility: "visible" });
  const title = document.createElement("strong");
  title.textContent = `${formatTime(near.ds)} UTC`;
  detail.readOut.replaceChildren(title, ...rows.map(([name, value, className = ""]) => {
    const row = document.createElement("div");
    row.className = className;
    row.append(name, Object.assign(document.createElement("b"), { textContent: value }));
    return row;
  }));
  detail.readOut.hidden = false;
  const right = near.left > near.width / 2;
  const left = right ? near.left - detail.readOut.offsetWidth - 14 : near.left + 14;
  const free = near.width - detail.readOut.offsetWidth;
  detail.readOut.style.transform = `translateX(${Math.round(Math.max(0, Math.min(left, free)))}px)`;
}

/** Outermost and middle levels: as many lines as a read-out can take. */
function isRead(level) {
  const levels = modelOf(detail.shown).quantiles;
  const index = levels.indexOf(level);
  const quarter = Math.round((levels.length - 1) / 4);
  return index % Math.max(1, quarter) === 0 || index === levels.length - 1;
}

function hideReadOut() {
  detail.position = null;
  detail.readOut.hidden = true;
  detail.cross.setAttribute("visibility", "hidden");
}

function neighbour(offset) {
  const ids = shownIds();
  const index = ids.indexOf(detail.stream);
  if (ids.length) openDetail(ids[(index + offset + ids.length) % ids.length]);
}

function wireDetail() {
  byId("close").addEventListener("click", () => detail.dialog.close());
  byId("previous").addEventListener("click", () => neighbour(-1));
  byId("next").addEventListener("click", () => neighbour(1));
  byId("detail-query").addEventListener("change", (event) => {
    const id = event.target.value.trim();
    if (id) openDetail(id);
  });
  detail.dialog.addEventListener("click", (event) => {
    if (event.target === detail.dialog) detail.dialog.close();
  });
  detail.dialog.addEventListener("close", () => {
    detail.stream = null;
    history.replaceState(null, "", location.pathname);
    detail.opener?.focus();
    detail.opener = null;
  });
  detail.dialog.addEventListener("keydown", (event) => {
    const offset = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (offset === undefined || event.target instanceof HTMLInputElement || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (event.shiftKey) {
      const near = detail.chart.nearest(detail.position ?? detail.plot.clientWidth / 2);
      if (near) showReadOut(near.left + offset * near.interval);
    } else {
      neighbour(offset);
    }
  });
  detail.plot.addEventListener("pointermove", (event) => {
    showReadOut(event.clientX - detail.plot.getBoundingClientRect().left);
  });
  detail.plot.addEventListener("pointerleave", hideReadOut);
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
