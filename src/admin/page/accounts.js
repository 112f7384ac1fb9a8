// Each account: its state and the reason in words, its budgets as gauges, and its suspension.
import { byId, el, show } from "./dom.js";
import { chip, count, limit, number, sentence, time } from "./words.js";

// Beyond so many, those that take mail are folded.
const FEW = 6;

export function accounts(overview, act) {
  show(byId("accounts"), [overview.accounts, overview.tenant, act.mayChange], () => {
    const all = overview.accounts;
    if (!all.length) return el("p", { class: "empty" }, "There is no account.");
    const fold = all.length > FEW;
    const first = fold ? all.filter((entry) => !isWell(entry)) : all;
    const rest = fold ? all.filter(isWell) : [];
    return [
      fold && el("p", { class: "quiet" }, `${count(rest.length, "account takes", "accounts take")} mail, ${number(first.length)} ${first.length === 1 ? "does" : "do"} not.`),
      ...first.map((entry) => account(entry, act)),
      rest.length > 0 && el("details", { "data-key": "rest" }, el("summary", { "data-key": "rest-summary" }, `${number(rest.length)} that take mail`), ...rest.map((entry) => account(entry, act))),
      overview.tenant.some((budget) => budget.max !== null) && el("div", { class: "account" },
        el("h3", {}, "All accounts together"), gauges("the tenant", overview.tenant)),
    ];
  });
}

const isWell = (entry) => ["ready", "connections"].includes(entry.state) && !entry.waits.length;

function account(entry, act) {
  const suspended = entry.state === "suspended";
  const waits = entry.waits.filter((wait) => wait.reason !== entry.reason);
  return el("article", { class: "account", "aria-label": entry.name },
    el("div", { class: "account-head" },
      el("h3", {}, entry.name),
      chip(entry.state),
      el("button", {
        type: "button", class: "small", "data-key": `suspend ${entry.name}`,
        "aria-label": `${suspended ? "Resume" : "Suspend"} ${entry.name}`,
        onclick: () => (suspended ? act.resume(entry) : act.suspend(entry)),
      }, suspended ? "Resume" : "Suspend")),
    entry.reason && el("p", {}, sentence(entry.reason), entry.until && [" Goes on ", time(entry.until, "until"), "."]),
    entry.advice && el("p", { class: "quiet" }, sentence(entry.advice)),
    ...waits.map((wait) => el("p", { class: "quiet" }, sentence(`${wait.class} mail waits: ${wait.reason}`), wait.until && [" Goes on ", time(wait.until, "until"), "."])),
    gauges(entry.name, entry.budgets),
    el("p", { class: "quiet fine" }, `${entry.connections.in_use} of ${count(entry.connections.max, "connection")} in use, route ${entry.route}`));
}

const gauges = (whose, budgets) => {
  const limited = budgets.filter((budget) => budget.max !== null && budget.max > 0 && budget.limit !== "minimum_pause");
  return limited.length > 0 && el("div", { class: "gauges" }, limited.map((budget) => gauge(whose, budget)));
};

function gauge(whose, budget) {
  const used = budget.used + budget.in_flight;
  const share = Math.min(1, used / budget.max);
  const name = limit(budget.limit);
  const text = `${number(used)} of ${number(budget.max)}`;
  // A minute that is used up is how it goes; a day that is, is news.
  const level = budget.window < 3600 ? "calm" : share >= 1 ? "full" : share >= 0.9 ? "high" : "calm";
  const bar = el("div", { class: "gauge-bar", "data-level": level });
  bar.style.width = `${share * 100}%`;
  return el("div", { class: "gauge" },
    el("p", { class: "gauge-words" }, el("span", {}, name), el("span", { class: "figure" }, text, share >= 1 && budget.frees_at && [", free ", time(budget.frees_at, "until")])),
    el("div", {
      class: "gauge-track", role: "meter", "aria-label": `${name} of ${whose}`,
      "aria-valuemin": 0, "aria-valuemax": budget.max, "aria-valuenow": Math.min(used, budget.max), "aria-valuetext": text,
    }, bar));
}
