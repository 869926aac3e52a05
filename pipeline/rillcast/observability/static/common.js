// What all parts of the page share: the server's answers, the models that serve, and small pieces of the page.
//
// Owns: requests, the state `served`, words and elements that more than one part shows.

import { element, format } from "/static/chart.js";

const TIMEOUT_MS = 4_000;
export const byId = (id) => document.getElementById(id);
export const percent = (ratio, digits = 1) => (ratio === null ? "–" : `${(100 * ratio).toFixed(digits)} %`);
export const served = { model: null, tables: {} }; // tables of [[models]] by name; empty with one model

export async function getJson(path) {
  const answer = await fetch(path, { signal: AbortSignal.timeout(TIMEOUT_MS), headers: { accept: "application/json" } });
  if (!answer.ok && answer.status !== 404) throw new Error(`${path}: ${answer.status}`);
  return { found: answer.ok, document: await answer.json() };
}

/** The model that forecasts a stream; of several, the stream names its table. */
export function modelOf(stream) {
  return served.tables[stream.model]?.model ?? served.model;
}

/** An alarm in a few words: what it is, and how far off the value was. */
export function alarmWords(alarm) {
  const seen = alarm.observed === null || alarm.expected === null ? ""
    : `: ${format(alarm.observed)}, expected ${format(alarm.expected)}`;
  return `${alarm.kind}${alarm.direction ? ` ${alarm.direction}` : ""}${seen}`;
}

export function make(parent, tag, className = "") {
  const made = parent.appendChild(document.createElement(tag));
  if (className) made.className = className;
  return made;
}

export function showChip(chip, stream) {
  const alarm = openAlarm(stream);
  const silence = stream.silence ? (stream.silence.asleep ? "asleep" : "overdue") : undefined;
  chip.textContent = alarm?.kind ?? silence ?? chipText(stream.status);
  chip.dataset.severity = alarm?.severity ?? (silence ? "silent" : "");
}

export function chipText(status) {
  return status === "ok" ? "" : status.replaceAll("_", " ");
}

export function shownIds() {
  return [...document.querySelectorAll("#grid .name")].map((name) => name.title);
}

/** The weights of the experts by horizon: a bar of parts, and in words the larger parts and what a network adds. */
export function showMixture(section, mixture, title) {
  section.hidden = mixture === null || mixture === undefined;
  if (section.hidden) return;
  section.querySelector("h3").textContent = title(mixture);
  const list = section.querySelector("ul");
  list.replaceChildren(...mixture.horizons.map(({ step, shares, network }) => {
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
    const words = shares.length ? parts.join(", ") : "no value is known yet";
    make(item, "span").textContent = network ? `${words}; ${network}` : words;
    return item;
  }));
}

export function showLink(state, text) {
  const link = byId("link");
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.querySelector("span").textContent = text;
}

function openAlarm(stream) {
  return stream.alarms.find((alarm) => alarm.closed === null);
}
