// A fan chart in SVG: what happened, what is expected next, and what had been expected before.
//
// Owns: the drawing of one stream, small (no axes) or large (axes, read-out). Knows nothing of fetching, and keeps
// no data but what it drew last. Elements are made once; a redraw only sets attributes, so that two dozen charts
// refresh without a flicker.

const SVG = "http://www.w3.org/2000/svg";
const DAY = 86_400_000;
const PIXELS_PER_STEP = 4; // closer together, a line is a blot
const TIME_STEPS = [
  1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 10_800_000, 21_600_000, 43_200_000,
  DAY, 2 * DAY, 7 * DAY, 14 * DAY,
];
const GROUPS = ["grid", "alarms", "bands", "revisions", "marks", "scale"];
const MONTH_STEPS = [1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1_200]; // wider apart, labels are of the calendar
const clock = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", hour: "2-digit", minute: "2-digit" });
const clockWithSeconds = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", timeStyle: "medium" });
const day = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", day: "numeric", month: "short" });
const monthWithYear = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", month: "short", year: "numeric" });
const year = new Intl.DateTimeFormat("en-GB", { timeZone: "UTC", year: "numeric" });
const moment = new Intl.DateTimeFormat("en-GB", {
  timeZone: "UTC", weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit",
});

/** A number as people read it: four significant digits or so. */
export function format(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(2);
  const digits = size >= 1e5 ? 0 : size >= 100 ? 1 : size >= 1 ? 2 : size >= 0.01 ? 3 : 5;
  return value.toLocaleString("en-US", { maximumFractionDigits: digits });
}

/** An event time in UTC, in full. */
export function formatTime(ms) {
  return moment.format(ms);
}

/** An event time in UTC, without its year. */
export function formatShortly(ms) {
  return `${day.format(ms)}, ${clock.format(ms)}`;
}

export class FanChart {
  #svg;
  #axes;
  #parts;
  #drawn = null;
  #size = [0, 0];

  /**
   * @param {SVGSVGElement} svg where to draw
   * @param {{axes: boolean}} options whether to draw axes
   */
  constructor(svg, { axes }) {
    this.#svg = svg;
    this.#axes = axes;
    svg.classList.add("fan");
    this.#parts = Object.fromEntries(
      ["grid", "alarms", "past", "trail", "bands", "revisions", "now", "median", "actual", "miss", "marks", "scale"].map((name) => {
        const grouped = GROUPS.includes(name);
        const part = svg.appendChild(document.createElementNS(SVG, grouped ? "g" : "path"));
        if (!grouped) part.setAttribute("class", name);
        return [name, part];
      }),
    );
    this.#parts.newest = svg.appendChild(element("circle", { class: "newest", r: axes ? 5 : 4 }));
    new ResizeObserver(([entry]) => {
      this.#size = [entry.contentRect.width, entry.contentRect.height];
      if (this.#drawn) this.draw(this.#drawn.whole, this.#drawn.model);
    }).observe(svg);
  }

  /** Draw one stream as `/api/streams/{id}` gives it, for a model as `/api/summary` gives it. */
  draw(whole, model) {
    const [width, height] = this.#size;
    this.#drawn = { whole, model };
    if (width === 0 || height === 0) return; // not laid out yet: the observer calls again
    const stream = newest(whole, Math.floor(width / PIXELS_PER_STEP));
    this.#drawn.stream = stream;
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);

    const step = model.step_ms;
    const levels = model.quantiles.map((level) => stream.forecast.quantiles[level]);
    const past = pastForecast(stream);
    const [low, high] = extent([stream.y, past.median, ...levels]);
    const ticks = this.#axes ? valueTicks(low, high, Math.max(3, Math.floor(height / 64))) : [];
    const margin = this.#axes
      ? { left: 14 + 6.6 * Math.max(...ticks.map((tick) => tick.label.length)), right: 14, top: 10, bottom: 28 }
      : { left: 1, right: 1, top: 6, bottom: 6 };
    const start = stream.ds[0];
    const end = stream.forecast.ds.at(-1);
    const x = linear(start, end, margin.left, width - margin.right);
    const y = linear(low, high, height - margin.bottom, margin.top);
    Object.assign(this.#drawn, { x, y, past, margin, width, height });

    this.#drawAlarms(stream, step, x, margin, width, height);
    const last = stream.y.at(-1);
    const here = x(stream.ds.at(-1));
    const anchor = last === null ? [] : [[here, y(last)]];
    const ahead = (values) => [...anchor, ...values.map((value, i) => [x(stream.forecast.ds[i]), y(value)])];
    const pairs = Math.floor(levels.length / 2);
    sync(this.#parts.bands, pairs, "path", "band").forEach((path, i) => {
      path.setAttribute("d", area(ahead(levels[i]), ahead(levels[levels.length - 1 - i])));
    });
    const middle = model.quantiles.reduce((best, q, i, all) => (Math.abs(q - 0.5) < Math.abs(all[best] - 0.5) ? i : best), 0);
    const frame = (value) => Math.min(height - margin.bottom, Math.max(margin.top, y(value)));
    const runs = unbroken(past.ds, past.median, step);
    this.#path("median", line(ahead(levels[middle])));
    this.#path("actual", unbroken(stream.ds, stream.y, step).map((run) => line(run.map((i) => [x(stream.ds[i]), y(stream.y[i])]))).join(""));
    this.#path("trail", runs.map((run) => line(run.map((i) => [x(past.ds[i]), frame(past.median[i])]))).join(""));
    this.#path("past", runs.map((run) => area(
      run.map((i) => [x(past.ds[i]), frame(past.lower[i])]),
      run.map((i) => [x(past.ds[i]), frame(past.upper[i])]),
    )).join(""));
    const revisions = stream.revisions ?? [];
    sync(this.#parts.revisions, revisions.length, "path", "revision").forEach((path, i) => {
      const drawn = slots(revisions[i]).filter(([ds]) => ds >= start);
      setAll(path, {
        d: drawn.length ? line(drawn.map(([ds, value]) => [x(ds), frame(value)])) : "",
        "stroke-opacity": (i + 1) / (revisions.length + 1), // the older, the fainter
      });
    });
    const misses = stream.covered.flatMap((covered, i) => (covered === 0 && stream.y[i] !== null ? [i] : []));
    this.#path("miss", misses.map((i) => `M${x(stream.ds[i]).toFixed(1)} ${y(stream.y[i]).toFixed(1)}h0`).join(""));
    this.#path("now", `M${here} ${margin.top}V${height - margin.bottom}`);
    this.#parts.newest.setAttribute("visibility", last === null ? "hidden" : "visible");
    if (last !== null) place(this.#parts.newest, here, y(last));
    if (this.#axes) this.#drawAxes(ticks, start, end, x, y, margin, width, height);
    else this.#drawScale(low, high, height);
  }

  /**
   * What is drawn nearest to a horizontal position, and where.
   * @param {number} position pixels from the left edge
   */
  nearest(position) {
    if (!this.#drawn?.x) return null;
    const { stream, model, x, y, past } = this.#drawn;
    const times = [...stream.ds, ...stream.forecast.ds];
    const index = times.reduce((best, time, i) => (Math.abs(x(time) - position) < Math.abs(x(times[best]) - position) ? i : best), 0);
    const ahead = index - stream.ds.length;
    const before = past.ds.indexOf(times[index]);
    return {
      ds: times[index],
      left: x(times[index]),
      y,
      step: ahead + 1,
      actual: ahead < 0 ? stream.y[index] : undefined,
      covered: ahead < 0 ? stream.covered[index] : undefined,
      anomaly: ahead < 0 ? stream.anomaly[index] : undefined,
      alarm: (stream.alarms ?? []).find((alarm) => ahead < 0 && alarm.first <= times[index]
        && times[index] <= (alarm.closed === null ? Infinity : alarm.last)),
      oneStep: ahead < 0 && before >= 0
        ? { lower: past.lower[before], median: past.median[before], upper: past.upper[before] } : undefined,
      // Forecasts for this slot made before the newest, the latest first: how many events before, and what they said.
      earlier: ahead < 0 ? [] : (stream.revisions ?? []).map((revision, i, all) => {
        const found = slots(revision).find(([ds]) => ds === times[index]);
        return found && [all.length - i, found[1]];
      }).filter(Boolean).toReversed(),
      quantiles: ahead < 0 ? undefined : model.quantiles.map((q) => [q, stream.forecast.quantiles[q][ahead]]),
      top: this.#drawn.margin.top,
      bottom: this.#drawn.height - this.#drawn.margin.bottom,
      width: this.#drawn.width,
      interval: times[1] === undefined ? 0 : Math.abs(x(times[0] + model.step_ms) - x(times[0])),
    };
  }

  #path(name, d) {
    this.#parts[name].setAttribute("d", d);
  }

  /** Spans of alarms behind the curves: from the period in which one opened to that of the last evidence. */
  #drawAlarms(stream, step, x, margin, width, height) {
    const [start, now] = [stream.ds[0], stream.ds.at(-1)];
    const shown = (stream.alarms ?? []).filter((alarm) => (alarm.closed === null ? now : alarm.last) + step >= start);
    const right = width - margin.right;
    sync(this.#parts.alarms, shown.length, "rect", "alarm").forEach((rect, i) => {
      const alarm = shown[i];
      const left = Math.max(margin.left, x(alarm.first - step / 2));
      const end = Math.min(right, x((alarm.closed === null ? Math.max(now, alarm.last) : alarm.last) + step / 2));
      setAll(rect, {
        class: `alarm ${alarm.severity}`, x: left.toFixed(1), y: margin.top, width: Math.max(3, end - left).toFixed(1),
        height: height - margin.top - margin.bottom,
      });
    });
    const bars = sync(this.#parts.marks, shown.length, "rect", "alarm-bar");
    [...this.#parts.alarms.children].forEach((rect, i) => {
      const at = (name) => rect.getAttribute(name);
      setAll(bars[i], { class: `alarm-bar ${shown[i].severity}`, x: at("x"), y: margin.top, width: at("width"), height: 3 });
    });
  }

  /** The greatest and the least value that the small chart has room for, at its left edge. */
  #drawScale(low, high, height) {
    const labels = sync(this.#parts.scale, 2, "text", "scale", undefined, "scale");
    [[high, 10], [low, height - 2]].forEach(([value, at], i) => {
      setAll(labels[i], { x: 1, y: at });
      labels[i].textContent = format(value);
    });
  }

  #drawAxes(ticks, start, end, x, y, margin, width, height) {
    const times = timeTicks(start, end, Math.max(2, Math.floor((width - margin.left) / 96)));
    const lines = sync(this.#parts.grid, 2 * ticks.length + times.length, null, null, () => ticks.flatMap(() => [
      element("line", { class: "gridline" }), element("text", { "text-anchor": "end" }),
    ]).concat(times.map(() => element("text", { "text-anchor": "middle" }))), `${ticks.length}/${times.length}`);
    ticks.forEach((tick, i) => {
      const [rule, label] = lines.slice(2 * i, 2 * i + 2);
      const at = y(tick.value);
      setAll(rule, { x1: margin.left, x2: width - margin.right, y1: at, y2: at });
      setAll(label, { x: margin.left - 8, y: at + 4 });
      label.textContent = tick.label;
    });
    times.forEach((tick, i) => {
      const label = lines[2 * ticks.length + i];
      setAll(label, { x: x(tick.ds), y: height - 8, class: tick.strong ? "day" : "" });
      label.textContent = tick.label;
    });
  }
}

/** The stream with no more than its `count` newest events. */
function newest(stream, count) {
  const tail = (column) => column.slice(-Math.max(2, count));
  const oneStep = Object.fromEntries(Object.entries(stream.one_step).map(([name, column]) => [name, tail(column)]));
  return {
    ...stream, ds: tail(stream.ds), y: tail(stream.y), covered: tail(stream.covered), anomaly: tail(stream.anomaly), one_step: oneStep,
  };
}

/** The one-step forecasts, at the slot that they were made for; the newest one belongs to the future. */
function pastForecast(stream) {
  const count = stream.ds.length - 1;
  return {
    ds: stream.one_step.ds.slice(0, count),
    lower: stream.one_step.lower.slice(0, count),
    median: stream.one_step.median.slice(0, count),
    upper: stream.one_step.upper.slice(0, count),
  };
}

/** Slots and medians of an earlier forecast. */
function slots(revision) {
  return revision.median.map((value, i) => [revision.ds[i], value]);
}

/** Runs of indices with a value each and no slot left out between them. */
function unbroken(ds, values, step) {
  const runs = [];
  let last = null;
  values.forEach((value, i) => {
    if (value === null) return;
    if (last === null || last !== i - 1 || ds[i] - ds[last] > 1.5 * step) runs.push([]);
    runs.at(-1).push(i);
    last = i;
  });
  return runs;
}

function extent(columns) {
  let low = Infinity;
  let high = -Infinity;
  for (const column of columns) {
    for (const value of column) {
      if (value === null) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return [0, 1];
  const pad = low === high ? Math.max(1e-9, Math.abs(low) * 0.05) : (high - low) * 0.04;
  return [low - pad, high + pad];
}

function linear(from, to, start, end) {
  const ratio = from === to ? 0 : (end - start) / (to - from);
  return (value) => start + (value - from) * ratio;
}

function valueTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const first = Math.ceil(low / step);
  const last = Math.floor(high / step);
  const digits = Math.max(0, Math.min(8, -Math.floor(Math.log10(step) + 1e-9) + (step / power === 2.5 ? 1 : 0)));
  const huge = Math.max(Math.abs(low), Math.abs(high)) >= 1e9;
  return Array.from({ length: last - first + 1 }, (_, i) => {
    const value = (first + i) * step;
    const label = huge ? value.toExponential(2)
      : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return { value, label };
  });
}

function timeTicks(start, end, count) {
  const step = TIME_STEPS.find((candidate) => (end - start) / candidate <= count);
  if (step === undefined) return monthTicks(start, end, count);
  const ticks = [];
  for (let ds = Math.ceil(start / step) * step; ds <= end; ds += step) {
    const midnight = ds % DAY === 0;
    const label = midnight ? day : step < 60_000 ? clockWithSeconds : clock;
    ticks.push({ ds, label: label.format(ds), strong: midnight && step < DAY });
  }
  return ticks;
}

/** Ticks at the beginnings of months or years, which are not equally far apart. */
function monthTicks(start, end, count) {
  const [from, to] = [start, end].map((ds) => 12 * new Date(ds).getUTCFullYear() + new Date(ds).getUTCMonth());
  const step = MONTH_STEPS.find((candidate) => (to - from) / candidate <= count) ?? MONTH_STEPS.at(-1);
  const ticks = [];
  for (let month = Math.ceil(from / step) * step; month <= to; month += step) {
    const ds = Date.UTC(Math.floor(month / 12), month % 12);
    if (ds >= start) ticks.push({ ds, label: (step < 12 ? monthWithYear : year).format(ds), strong: false });
  }
  return ticks;
}

function line(points) {
  // A lone point is a line of no length: its round cap makes it a dot.
  return points.length === 1 ? `M${pair(points[0])}h0` : `M${points.map(pair).join("L")}`;
}

function area(lower, upper) {
  return lower.length === 0 ? "" : `M${lower.map(pair).join("L")}L${upper.toReversed().map(pair).join("L")}Z`;
}

function pair([x, y]) {
  return `${x.toFixed(1)} ${y.toFixed(1)}`;
}

function place(circle, x, y) {
  setAll(circle, { cx: x.toFixed(1), cy: y.toFixed(1) });
}

/** Make an SVG element. */
export function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  setAll(made, attributes);
  return made;
}

/** Set several attributes. */
export function setAll(target, attributes) {
  for (const [name, value] of Object.entries(attributes)) target.setAttribute(name, value);
}

/** Keep `count` children in a group; they are made anew only when their number or `key` changes. */
function sync(group, count, name, className, make, key = String(count)) {
  if (group.dataset.key !== key) {
    group.dataset.key = key;
    group.replaceChildren(...(make ? make() : Array.from({ length: count }, () => element(name, { class: className }))));
  }
  return [...group.children];
}
