// The month so far, what it cost, and what it will come to if it goes on like this.
import { byId, el, show, svg } from "./dom.js";
import { count, money, number, now } from "./words.js";
import { ask } from "./relay.js";

// It is added up from the history, which takes longer than a look at the queue.
const EVERY = 5 * 60_000;

let timer = null;

export function start() {
  clearInterval(timer);
  timer = setInterval(refresh, EVERY);
  refresh();
}

async function refresh() {
  const place = byId("month");
  try {
    const report = await ask("/v1/report?by=day");
    show(place, [report.month, report.lines], () => month(report));
  } catch (error) {
    const text = error.status === 409 ? "No history is kept, so there is nothing to add up." : error.message;
    show(place, text, () => el("p", { class: "empty" }, text));
  }
}

function month(report) {
  const sum = (name) => report.lines.reduce((total, line) => total + line[name], 0);
  const recipients = sum("recipients");
  const [year, of] = report.month.split("-").map(Number);
  const [from, to] = [Date.UTC(year, of - 1, 1), Date.UTC(year, of, 1)];
  const days = Math.round((to - from) / 86_400_000);
  if (!recipients && !sum("failed")) return el("p", { class: "empty" }, "Nothing was sent yet.");
  const passed = Math.max((now() - from) / (to - from), 1 / 31 / 24);
  const whole = Math.round(recipients / Math.min(passed, 1));
  const name = new Intl.DateTimeFormat("en", { month: "long", timeZone: "UTC" }).format(from);
  return [
    el("dl", { class: "sums" },
      el("div", {}, el("dt", {}, "Recipients"), el("dd", {}, number(recipients))),
      el("div", {}, el("dt", {}, "Cost"), el("dd", {}, money(sum("cost")))),
      el("div", {}, el("dt", {}, "Failed"), el("dd", {}, number(sum("failed"))))),
    bars(report, days, name),
    el("p", { class: "quiet" }, `If ${name} goes on like this: ${count(whole, "recipient")}, ${money((whole * report.price_per_million) / 1_000_000)} at ${number(report.price_per_million)} a million.`),
  ];
}

function bars(report, days, name) {
  const of = new Map(report.lines.map((line) => [Number(line.name.slice(-2)), line.recipients]));
  const most = Math.max(1, ...of.values());
  const [width, height] = [310, 44];
  const step = width / days;
  const parts = Array.from({ length: days }, (_, i) => {
    const value = of.get(i + 1) ?? 0;
    const tall = value ? Math.max(2, (value / most) * (height - 2)) : 1;
    return svg("rect", { x: i * step + 1, y: height - tall, width: step - 2, height: tall, class: value ? "sent" : "none" }, svg("title", {}, `${i + 1} ${name}: ${count(value, "recipient")}`));
  });
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "days", role: "img", preserveAspectRatio: "none", "aria-label": `Recipients by day of ${name}; at most ${number(most)} on one day` }, ...parts);
}
