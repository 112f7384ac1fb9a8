// Single messages and deliveries: what was found, what waits, one message's whole story, and what can be done about them.
import { byId, el, say, show } from "./dom.js";
import { chip, count, number, sentence, size, time } from "./words.js";
import { ask, query } from "./relay.js";
import { confirm } from "./dialogs.js";

const PAGE = 50;
const DOINGS = {
  hold: { go: "Hold", title: "Hold", done: "held", text: "No further attempt is made until somebody releases it. An attempt under way is not cut off." },
  release: { go: "Release", title: "Release", done: "released", text: "It goes on where it was held." },
  retry: { go: "Try again now", title: "Try again", done: "due now", text: "What was deferred is due at once. Accounts that rest and budgets that are used up still hold it back." },
  remove: { go: "Remove", title: "Remove", done: "removed", danger: true, text: "They will not get it, nobody is told, and it cannot be undone." },
};

let turn = 0;

// Shows one of the views; what a view that was left says later is not shown.
async function view(title, build) {
  turn += 1;
  const own = turn;
  byId("detail-title").textContent = title;
  const body = byId("detail-body");
  body.replaceChildren(el("p", { class: "empty" }, "Looking …"));
  const put = (...parts) => { if (own === turn) body.replaceChildren(...parts.flat().filter(Boolean)); };
  try {
    await build(put);
  } catch (error) {
    put(el("p", { class: "error" }, sentence(error.message)));
  }
}

// --- what was found

export function find(asked) {
  const what = asked.get("what") ?? "";
  const filter = { what, since: asked.get("since") ?? "", failed: asked.get("failed") === "true" };
  const title = what ? `Messages found for “${what}”` : filter.failed ? "Messages that failed" : "All messages";
  return view(title, async (put) => {
    const list = el("ul", { class: "rows card" });
    const more = el("p", { class: "more" });
    const told = el("p", { class: "quiet", role: "status" });
    const load = async (before) => {
      const { stories, next } = await ask(query("/v1/trace", { ...filter, before, limit: 20 }));
      list.append(...stories.map(found));
      const all = list.children.length;
      told.textContent = all ? `${count(all, "message")}${next ? " so far" : ""}, the newest first.` : "";
      more.replaceChildren(...(next ? [el("button", { type: "button", class: "plain", onclick: () => load(next).catch((error) => say(error.message)) }, "Older ones")] : []));
      return all;
    };
    const any = await load();
    put(any || more.children.length ? [told, any > 0 && list, more] : el("p", { class: "empty" }, "No message was found. Words are compared as a whole; an address, a queue id or a message id finds its own."));
  });
}

function found({ message, sent, failed, removed, waiting }) {
  return el("li", { class: "row" },
    el("div", { class: "row-main" },
      el("p", {}, el("a", { href: `#/message/${message.id}` }, message.subject || "(no subject)")),
      el("p", { class: "quiet" }, `${message.from || "a notice of the relay"} by ${message.client}`)),
    el("p", { class: "row-side" }, el("span", {}, ...outcome({ sent, failed, removed, waiting })), time(message.accepted)));
}

const outcome = ({ sent, failed, removed, waiting }) =>
  [[sent, "sent", "sent"], [waiting, "waiting", "waiting"], [failed, "failed", "failed"], [removed, "removed", "removed"]]
    .filter(([value]) => value > 0)
    .flatMap(([value, word, text]) => [chip(word, `${number(value)} ${text}`), " "]);

// --- what waits

const REASONS = ["", "held", "deferred", "suspended", "paused", "budget", "connections", "turn", "no-account", "under-way"];

export function waiting(asked) {
  const filter = Object.fromEntries(["reason", "class", "priority", "client"].map((key) => [key, asked.get(key) ?? ""]).filter(([, value]) => value));
  return view("What waits", async (put) => {
    const list = el("ul", { class: "rows card" });
    const more = el("p", { class: "more" });
    const load = async (after) => {
      const { entries, next } = await ask(query("/v1/queue", { ...filter, after, limit: PAGE }));
      list.append(...entries.map(entry));
      more.replaceChildren(...(next ? [el("button", { type: "button", class: "plain", onclick: () => load(next).catch((error) => say(error.message)) }, "Show more")] : []));
    };
    await load();
    const doings = Object.keys(DOINGS).map((action) => el("button", {
      type: "button", class: DOINGS[action].danger ? "danger-plain" : "plain", onclick: () => all(action, filter, () => waiting(asked)),
    }, `${DOINGS[action].go.replace(" now", "")} all`));
    put(filters(filter),
      list.children.length ? [el("div", { class: "doings", role: "group", "aria-label": "All of these" }, doings), list] : el("p", { class: "empty" }, Object.keys(filter).length ? "Nothing waits that is like this." : "Nothing waits."),
      more);
  });
}

function filters(filter) {
  const select = (name, label, values) => el("label", {}, label, " ", el("select", {
    name, onchange: (event) => {
      const next = { ...filter, [name]: event.target.value };
      location.hash = query("#/waiting", next);
    },
  }, values.map((value) => el("option", { value, selected: (filter[name] ?? "") === value }, value || "any"))));
  return el("form", { class: "filters", "aria-label": "Which deliveries", onsubmit: (event) => event.preventDefault() },
    select("reason", "Waiting for", REASONS), select("class", "Class", ["", "internal", "external"]), select("priority", "Priority", ["", "high", "normal", "bulk"]),
    filter.client && el("span", {}, `of ${filter.client}`));
}

function entry(delivery) {
  return el("li", { class: "row" },
    el("div", { class: "row-main" },
      el("p", {}, chip(delivery.waits_for), " ", el("a", { href: `#/message/${delivery.id.split(".")[0]}` }, delivery.subject || "(no subject)"),
        el("span", { class: "quiet" }, ` to ${count(delivery.recipients, "recipient")}`)),
      el("p", {}, sentence(delivery.reason)),
      el("p", { class: "quiet fine" }, `${delivery.from || "a notice of the relay"} by ${delivery.client}, ${delivery.class}, ${delivery.priority} priority, ${count(delivery.attempts, "attempt")}`)),
    el("p", { class: "row-side" }, el("span", {}, "since ", time(delivery.accepted)), delivery.until && el("span", {}, "goes on ", time(delivery.until, "until"))));
}

// All that a filter lets through: counted first, then done to those and no others, in as many steps as it takes.
async function all(action, filter, then) {
  const doing = DOINGS[action];
  const selection = Object.keys(filter).length ? filter : { all: true };
  const text = el("span", {}, "Counting …");
  let totals = { deliveries: 0, recipients: 0, through: null };
  const counting = (async () => {
    let after = null;
    do {
      const part = await ask("/v1/queue/count", "POST", { ...selection, after });
      totals = { deliveries: totals.deliveries + part.deliveries, recipients: totals.recipients + part.recipients, through: part.through ?? totals.through };
      after = part.next;
    } while (after);
    text.textContent = `${count(totals.deliveries, "delivery", "deliveries")} to ${count(totals.recipients, "recipient")}. ${doing.text}`;
  });
  await confirm({
    title: `${doing.title} all of these?`, text, go: doing.go, danger: doing.danger,
    before: counting,
    act: async () => {
      const done = { deliveries: 0, recipients: 0, unchanged: 0, under_way: 0 };
      let after = null;
      if (totals.through) {
        do {
          const part = await ask(`/v1/queue/${action}`, "POST", { ...selection, after, through: totals.through });
          for (const key of Object.keys(done)) done[key] += part[key];
          after = part.next;
          text.textContent = `${number(done.deliveries)} of ${number(totals.deliveries)} …`;
        } while (after);
      }
      then();
      return result(action, done);
    },
  });
}

function result(action, changed) {
  const parts = [`${count(changed.deliveries, "delivery", "deliveries")} ${DOINGS[action].done}`];
  if (action === "remove" && changed.deliveries) parts.push(`${count(changed.recipients, "recipient")} will not get it`);
  if (changed.unchanged) parts.push(`${number(changed.unchanged)} left as ${changed.unchanged === 1 ? "it is" : "they are"}`);
  if (changed.under_way) parts.push(`${number(changed.under_way)} left because an attempt is under way`);
  return `${parts.join("; ")}.`;
}

// --- one message

// The message that is shown and still waits, and when it was looked at.
let followed = { id: null, at: 0 };
const PAUSE = 3000;

export function message(id) {
  followed = { id: null, at: 0 };
  return view("Message", async (put) => {
    const place = el("div", { class: "story" });
    const story = await storyOf(id);
    put(place);
    tell(place, id, story);
  });
}

// Called with each change of the relay's state: a story that goes on is told on.
export async function follow() {
  const { id, at } = followed;
  const place = document.querySelector("#detail-body > .story");
  if (!id || !place || byId("detail").hidden || document.hidden || Date.now() - at < PAUSE) return;
  followed.at = Date.now();
  try {
    const story = await storyOf(id);
    if (place.isConnected) tell(place, id, story);
  } catch {
    // It is asked again with the next change.
  }
}

function tell(place, id, story) {
  const signature = JSON.parse(JSON.stringify(story, (key, value) => (key === "age" ? undefined : value)));
  show(place, signature, () => {
    if (!story) return el("p", { class: "empty" }, `Nothing is known of ${id}: it never was, or is older than the history.`);
    byId("detail-title").textContent = story.message.subject || "(no subject)";
    return [el("p", { class: "outcome" }, ...outcome(story)), doings(id, story), facts(story.message), ...deliveries(story)];
  });
  followed = { id: story?.waiting ? id : null, at: Date.now() };
}

async function storyOf(id) {
  try {
    const { stories } = await ask(query("/v1/trace", { what: id, limit: 1 }));
    if (stories.length) return stories[0];
  } catch (error) {
    // Without a history the queue still knows what waits.
    if (error.status !== 409) throw error;
  }
  try {
    const { message: letter, deliveries: queued } = await ask(`/v1/queue/${id}`);
    return { message: letter, deliveries: [], queued, sent: 0, failed: 0, removed: 0, waiting: queued.reduce((sum, one) => sum + one.recipients.length, 0) };
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

function doings(id, story) {
  const { queued } = story;
  if (!queued.length) return null;
  const recipients = queued.reduce((sum, one) => sum + one.recipients.length, 0);
  const fits = {
    hold: queued.some((one) => !one.held),
    release: queued.some((one) => one.held),
    retry: queued.some((one) => one.waits_for === "deferred"),
    remove: true,
  };
  return el("div", { class: "doings", role: "group", "aria-label": "This message" }, Object.keys(DOINGS).filter((action) => fits[action]).map((action) => el("button", {
    type: "button", class: DOINGS[action].danger ? "danger-plain" : "plain", "data-action": action, "data-key": action,
    onclick: () => confirm({
      title: `${DOINGS[action].title} this message?`, go: DOINGS[action].go, danger: DOINGS[action].danger,
      text: `${count(recipients, "recipient")} in ${count(queued.length, "delivery", "deliveries")}. ${DOINGS[action].text}`,
      act: async () => {
        const changed = await ask(`/v1/queue/${id}/${action}`, "POST");
        message(id);
        return result(action, changed);
      },
    }),
  }, DOINGS[action].go)));
}

function facts(letter) {
  const rows = [
    ["Accepted", [time(letter.accepted), ` from ${letter.client}`, letter.peer && ` (${letter.peer})`]],
    ["From", letter.from || "a notice of the relay"],
    letter.author && letter.author !== letter.from && ["Author", letter.author],
    ["Size", size(letter.size)],
    ["Priority", letter.priority],
    ["Message id", letter.message_id || "none"],
    ["Queue id", letter.id],
  ];
  return el("dl", { class: "facts card" }, rows.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, ...[value].flat().filter(Boolean)))));
}

function deliveries({ deliveries: past, queued }) {
  const ids = [...new Set([...past, ...queued].map((one) => one.id))].sort((a, b) => Number(a.split(".")[1]) - Number(b.split(".")[1]));
  return ids.map((id) => {
    const [before, waits] = [past.find((one) => one.id === id), queued.find((one) => one.id === id)];
    const one = before ?? waits;
    return el("section", { class: "card delivery", "aria-label": `Delivery ${id}` },
      el("h3", {}, `Delivery ${id.split(".")[1]}`, el("span", { class: "quiet" }, ` ${count(one.recipients.length, "recipient")}${one.class ? `, ${one.class}` : ""}, by ${one.route}`)),
      people(one.recipients),
      el("ol", { class: "steps" }, (before?.attempts ?? []).map(attempt), waits && el("li", { class: "step" },
        el("p", {}, chip(waits.waits_for), " ", sentence(waits.reason), waits.until && [" Goes on ", time(waits.until, "until"), "."]),
        waits.advice && el("p", { class: "quiet" }, sentence(waits.advice)))));
  });
}

const people = (recipients) => recipients.length <= 3
  ? el("p", {}, recipients.join(", "))
  : el("details", { "data-key": recipients[0] }, el("summary", { "data-key": `all ${recipients[0]}` }, `${recipients.slice(0, 2).join(", ")} and ${count(recipients.length - 2, "other")}`), el("p", {}, recipients.slice(2).join(", ")));

function attempt(one) {
  return el("li", { class: "step" },
    el("p", {}, chip(one.result), " ", time(one.ended), one.account && ` through ${one.account}`, one.recipients.length === 1 && el("span", { class: "quiet" }, ` for ${one.recipients[0]}`), one.recipients.length > 1 && el("span", { class: "quiet" }, ` for ${count(one.recipients.length, "recipient")}`)),
    one.reply && el("p", { class: "reply" }, one.reply),
    (one.relay || one.retry) && el("p", { class: "quiet fine" }, one.relay && `${one.relay}, at ${one.step}`, one.retry && [one.relay && "; ", "next attempt ", time(one.retry)]));
}
