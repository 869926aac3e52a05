// The strip of figures over all streams of all members, and a line for each table of models.

import { formatTime } from "/static/chart.js";
import { byId, make, percent, served, showLink } from "/static/common.js";

const IDLE_AFTER_MS = 6_000;
const RATE_POINTS = 120;
const rates = [];
let lastEvents = null;

export function showSummary(summary) {
  const { model, tables } = served;
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
  const [first] = Object.keys(tables);
  byId("interval").textContent = `of ${percent(coverage.nominal, 0)}${first === undefined ? "" : `, ${first}`}`;
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
  showTables(tables);
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

export function formatRate(rate) {
  return rate >= 100 ? Math.round(rate).toLocaleString("en-US") : rate.toFixed(1);
}

export function formatSeconds(seconds) {
  if (seconds === null) return "–";
  if (seconds < 1e-3) return `${(1e6 * seconds).toFixed(0)} µs`;
  if (seconds < 1) return `${(1e3 * seconds).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
  return `${seconds.toFixed(1)} s`;
}

/** Each table of models with its own coverage: the intervals of one say nothing about those of another. */
function showTables(tables) {
  const entries = Object.entries(tables);
  byId("tables").hidden = entries.length === 0;
  byId("tables").replaceChildren(...entries.map(([name, table]) => {
    const item = document.createElement("li");
    make(item, "b").textContent = name;
    const { coverage } = table;
    const covered = coverage.observed === null ? "no forecast scored yet"
      : `${percent(coverage.observed)} covered, of ${percent(coverage.nominal, 0)}`;
    for (const text of [
      `${table.model.name}, ${table.model.freq}`, `${(table.streams ?? table.followed).toLocaleString("en-US")} streams`,
      `${formatRate(table.events_per_second)} events/s`, covered,
    ]) make(item, "span").textContent = text;
    return item;
  }));
}
