// The head of the page, what waits, and what failed last.
import { byId, el, show } from "./dom.js";
import { chip, count, number, sentence, time } from "./words.js";
import { query } from "./relay.js";

export function head(overview) {
  byId("sentence").dataset.flow = overview.flow;
  if (byId("sentence").textContent !== overview.sentence) byId("sentence").textContent = overview.sentence;
  show(byId("details"), overview.details, () => sentence(overview.details));
  document.title = overview.flow === "stopped" ? "Stopped · hve-relay" : `${number(overview.queue.ready + overview.queue.deferred)} waiting · hve-relay`;
  const hour = (list) => list.slice(-60).reduce((sum, value) => sum + value, 0);
  const { queue, in_doubt: doubt, minutes } = overview;
  const figures = [
    ["Under way", queue.under_way],
    ["Ready", queue.ready],
    ["Deferred", queue.deferred],
    ["Held", queue.held],
    ...(doubt ? [["In doubt since the start", doubt]] : []),
    ["Accepted in an hour", hour(minutes.accepted)],
    ["Sent in an hour", hour(minutes.sent)],
  ];
  show(byId("figures"), figures, () => figures.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, number(value)))));
  byId("hostname").textContent = overview.hostname;
  byId("version").replaceChildren(`Version ${overview.version}, running since `, time(overview.since));
}

const address = (entry) => `#/waiting?${new URLSearchParams({ reason: entry.waits_for, class: entry.class, priority: entry.priority })}`;

export function waiting(overview) {
  const empty = overview.classes.map((entry) => [entry.priority, entry.class, entry.empty_at]);
  show(byId("waiting"), [overview.waiting, empty], () => {
    if (!overview.waiting.length) return el("p", { class: "empty" }, "Nothing waits.");
    const ends = (entry) => overview.classes.find((other) => other.priority === entry.priority && other.class === entry.class)?.empty_at;
    return [
      el("ul", { class: "rows" }, overview.waiting.map((entry) => row(entry, ends(entry)))),
      el("p", { class: "more" }, el("a", { href: "#/waiting", "data-key": "all" }, "All that waits")),
    ];
  });
}

function row(entry, ends) {
  return el("li", { class: "row" },
    el("div", { class: "row-main" },
      el("p", {}, chip(entry.waits_for), " ",
        el("a", { href: address(entry), "data-key": address(entry) }, `${count(entry.deliveries, "delivery", "deliveries")} to ${count(entry.recipients, "recipient")}`),
        el("span", { class: "quiet" }, ` ${entry.class}, ${entry.priority} priority`)),
      el("p", {}, sentence(entry.reason)),
      entry.advice && el("p", { class: "quiet" }, sentence(entry.advice))),
    el("p", { class: "row-side" },
      el("span", {}, "oldest ", time(entry.oldest, "ago")),
      entry.until && el("span", {}, "goes on ", time(entry.until, "until")),
      ends && el("span", {}, "all gone by ", time(ends))));
}

export function failures(overview) {
  show(byId("failures"), overview.failures, () => {
    if (!overview.failures.length) {
      return el("p", { class: "empty" }, "Nothing has failed since ", time(overview.since), ".");
    }
    return [
      el("ul", { class: "rows" }, overview.failures.slice(0, 6).map((failure) => el("li", { class: "row" },
        el("div", { class: "row-main" },
          el("p", {}, chip(failure.result), " ", el("a", { href: `#/message/${failure.id.split(".")[0]}`, "data-key": failure.id + failure.to }, failure.to),
            el("span", { class: "quiet" }, ` from ${failure.client}`)),
          failure.reply && el("p", { class: "reply" }, failure.reply)),
        el("p", { class: "row-side" }, time(failure.at, "ago"))))),
      el("p", { class: "more" }, el("a", { href: query("#/find", { failed: "true" }), "data-key": "failed" }, "All that failed")),
    ];
  });
}
