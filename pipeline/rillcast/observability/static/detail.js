// The large view of one stream: chart with axes and read-out, alarms, figures; keys and pointer.

import { FanChart, element, format, formatTime, setAll } from "/static/chart.js";
import { alarmWords, byId, getJson, make, modelOf, percent, served, showChip, showLink, showMixture, shownIds } from "/static/common.js";

export const detail = {
  dialog: byId("detail"), plot: byId("detail-plot"), stream: null, shown: null, chart: null, position: null, opener: null,
};

export async function fetchDetail(id) {
  return { id, ...(await getJson(`/api/streams/${encodeURIComponent(id)}`)) };
}

export function openDetail(id, opener = null) {
  if (detail.chart === null) {
    const svg = detail.plot.appendChild(element("svg", {}));
    detail.chart = new FanChart(svg, { axes: true });
    detail.cross = svg.appendChild(element("g", { visibility: "hidden" }));
    detail.readOut = make(detail.plot, "div", "read-out");
    detail.readOut.hidden = true;
  }
  detail.stream = id;
  detail.shown = null;
  detail.dialog.setAttribute("aria-busy", "true");
  detail.opener = opener ?? detail.opener;
  byId("detail-name").textContent = id;
  byId("detail-query").value = "";
  byId("detail-status").textContent = "";
  byId("detail-alarms").replaceChildren();
  hideReadOut();
  history.replaceState(null, "", `#${encodeURIComponent(id)}`);
  if (!detail.dialog.open) detail.dialog.showModal();
  fetchDetail(id).then((one) => {
    if (one.id === detail.stream && served.model !== null) showDetail(one);
  }, () => showLink("lost", "Connection lost"));
}

export function showDetail({ found, document: stream }) {
  detail.dialog.removeAttribute("aria-busy");
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
  const model = modelOf(stream);
  detail.chart.draw(stream, model);
  if (detail.position !== null) showReadOut(detail.position);
  const at = (level) => stream.forecast.quantiles[level]?.[0] ?? null;
  const [lowest, highest] = [model.quantiles[0], model.quantiles.at(-1)];
  showFigures({
    "Newest value": format(stream.y.at(-1)),
    ...(stream.model ? { Model: stream.model } : {}),
    [`Next ${model.freq}, ${percent(highest - lowest, 0)} interval`]: `${format(at(lowest))} to ${format(at(highest))}`,
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
  if (detail.shown === null) return; // until the stream's answer comes, the chart is that of the stream before
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

export function wireDetail() {
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
