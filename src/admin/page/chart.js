// Messages a minute: what was sent as bars, what came in as a line, what failed as marks below. Sixty columns, whatever the span.
import { byId, el, show, svg } from "./dom.js";
import { at, count, number } from "./words.js";

const COLUMNS = 60;
const SPANS = [[60, "1 h"], [180, "3 h"], [360, "6 h"]];
const [HEIGHT, TOP, BOTTOM, LEFT] = [168, 12, 26, 34];

let minutes = 60;
let last = null;

export function start() {
  byId("spans").replaceChildren(...SPANS.map(([value, text]) => el("button", {
    type: "button", class: "choice", "aria-pressed": String(value === minutes), "data-span": value,
    onclick: () => {
      minutes = value;
      for (const button of byId("spans").children) button.setAttribute("aria-pressed", Number(button.dataset.span) === minutes);
      if (last) chart(last);
    },
  }, text)));
  new ResizeObserver(() => { if (last) chart(last); }).observe(byId("chart"));
}

export function chart(overview) {
  last = overview;
  const width = Math.max(280, Math.round(byId("chart").clientWidth));
  const data = Object.fromEntries(Object.entries(overview.minutes).map(([name, list]) => [name, columns(list)]));
  const known = Math.min(minutes, overview.minutes.sent.length);
  show(byId("chart"), [data, width, minutes, known, at(overview.now)], () => draw(data, width, Date.parse(overview.now), known));
}

// The last minutes, so many to a column, the newest at the end.
function columns(list) {
  const each = minutes / COLUMNS;
  const padded = Array(Math.max(0, minutes - list.length)).fill(0).concat(list.slice(-minutes));
  return Array.from({ length: COLUMNS }, (_, i) => padded.slice(i * each, (i + 1) * each).reduce((sum, value) => sum + value, 0));
}

function draw(data, width, now, known) {
  const each = minutes / COLUMNS;
  const total = (name) => data[name].reduce((sum, value) => sum + value, 0);
  const most = Math.max(...data.accepted, ...data.sent) / each;
  const top = nice(Math.max(most, 4));
  const inner = width - LEFT - 4;
  const x = (i) => LEFT + (i * inner) / COLUMNS;
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / each / top);
  const base = y(0);
  const parts = [];
  for (const part of [0, 0.5, 1]) {
    const line = Math.round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - part)) + 0.5;
    parts.push(svg("line", { x1: LEFT, x2: width - 4, y1: line, y2: line, class: part ? "grid" : "axis" }));
    if (part) parts.push(svg("text", { x: LEFT - 6, y: line + 4, class: "label end" }, number(top * part)));
  }
  const step = inner / COLUMNS;
  data.sent.forEach((value, i) => {
    if (value) parts.push(svg("rect", { x: x(i) + 0.75, y: y(value), width: Math.max(1, step - 1.5), height: Math.max(1, base - y(value)), class: "sent" }));
  });
  data.failed.forEach((value, i) => {
    if (value) parts.push(svg("rect", { x: x(i) + 0.75, y: base + 2, width: Math.max(1, step - 1.5), height: 4, class: "failed" }));
  });
  // Of the time before the start nothing is known, and no line is drawn.
  const first = Math.max(0, COLUMNS - Math.ceil(known / each));
  const path = data.accepted.map((value, i) => (i < first ? "" : `${i > first ? "L" : "M"}${x(i)} ${y(value)}H${x(i + 1)}`)).join("");
  parts.push(svg("path", { d: path, class: "accepted" }));
  const quarter = minutes / 4;
  for (let i = 0; i <= 4; i += 1) {
    const text = i === 4 ? "now" : at(now - (minutes - i * quarter) * 60_000);
    parts.push(svg("text", { x: LEFT + (i * inner) / 4, y: HEIGHT - 5, class: `label ${i === 0 ? "start" : i === 4 ? "end" : "middle"}` }, text));
  }
  data.sent.forEach((_, i) => {
    const from = at(now - (COLUMNS - i) * each * 60_000);
    const text = `${from}: ${number(data.accepted[i])} accepted, ${number(data.sent[i])} sent, ${number(data.deferred[i])} deferred, ${number(data.failed[i])} failed`;
    parts.push(svg("rect", { x: x(i), y: TOP, width: step, height: base - TOP + 8, class: "touch" }, svg("title", {}, text)));
  });
  const spoken = `The last ${known < minutes ? count(known, "minute") : minutes === 60 ? "hour" : `${minutes / 60} hours`}: ${number(total("accepted"))} accepted, ${number(total("sent"))} sent, ${number(total("deferred"))} deferred, ${number(total("failed"))} failed.`;
  return [
    svg("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": spoken, class: "chart" }, ...parts),
    el("p", { class: "legend", "aria-hidden": "true" },
      el("span", { class: "key key-accepted" }, `${number(total("accepted"))} accepted`),
      el("span", { class: "key key-sent" }, `${number(total("sent"))} sent`),
      el("span", { class: "key" }, `${number(total("deferred"))} deferred`),
      el("span", { class: "key key-failed" }, `${number(total("failed"))} failed`)),
  ];
}

// The next number that people like at the top of a scale.
function nice(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}
