// The page: listens to the relay, shows what it says, and goes where the address leads.
import { byId, el, say } from "./dom.js";
import { count, setNow, tick, at } from "./words.js";
import { ask, listen } from "./relay.js";
import * as dialogs from "./dialogs.js";
import * as state from "./state.js";
import { accounts } from "./accounts.js";
import * as charts from "./chart.js";
import * as month from "./month.js";
import * as mail from "./mail.js";

let listening = null;
let latest = null;

const act = {
  get mayChange() { return dialogs.who().may_change; },
  suspend: (account) => dialogs.confirm({
    title: `Suspend ${account.name}?`, go: "Suspend", danger: true,
    text: [`${count(waitingNow(), "recipient waits", "recipients wait")} at present; their mail goes over the other accounts, or waits if there is none. ${count(account.connections.in_use, "connection")} in use; attempts under way end.`],
    fields: [
      el("label", { for: "suspend-for" }, "For how long"),
      el("select", { id: "suspend-for", name: "for" }, [["", "until somebody resumes it"], ["1h", "an hour"], ["4h", "four hours"], ["1d", "a day"]].map(([value, text]) => el("option", { value }, text))),
      el("label", { for: "suspend-reason" }, "Why"),
      el("input", { id: "suspend-reason", name: "reason", maxlength: 500, autocomplete: "off" }),
    ],
    act: async (form) => {
      await ask(`/v1/accounts/${encodeURIComponent(account.name)}/suspend`, "POST", { for: form.get("for") || null, reason: form.get("reason") || null });
      return `${account.name} is suspended.`;
    },
  }),
  resume: (account) => dialogs.confirm({
    title: `Resume ${account.name}?`, go: "Resume",
    text: `${count(waitingNow(), "recipient waits", "recipients wait")} at present; their mail may go over this account again.`,
    act: async () => {
      await ask(`/v1/accounts/${encodeURIComponent(account.name)}/resume`, "POST");
      return `${account.name} is in use.`;
    },
  }),
};

const waitingNow = () => (latest?.waiting ?? []).reduce((sum, entry) => sum + entry.recipients, 0);

function heard(overview) {
  latest = overview;
  setNow(overview.now);
  state.head(overview);
  state.waiting(overview);
  state.failures(overview);
  accounts(overview, act);
  charts.chart(overview);
  mail.follow();
  tick();
}

function connection(word, since) {
  const place = byId("connection");
  const text = word === "live" ? "Live" : `Not connected since ${at(since)}`;
  if (place.dataset.state === word) return;
  // Said once when it is lost and once when it is back, not at the start.
  if (word === "lost") say(`${text}. What is shown is as it was then.`);
  else if (place.dataset.state === "lost") say("Connected again.");
  place.dataset.state = word;
  byId("connection-text").textContent = text;
  document.body.classList.toggle("stale", word === "lost");
}

// Listens if that is allowed; says how to get there if not.
function begin() {
  const { may_read: mayRead } = dialogs.who();
  byId("locked").hidden = mayRead;
  byId("connection").hidden = !mayRead;
  byId("head").hidden = !mayRead;
  if (mayRead && !listening) {
    listening = listen(heard, connection, () => dialogs.refreshSession().catch(() => {}));
    month.start();
  } else if (!mayRead) {
    listening?.stop();
    listening = null;
  }
  if (latest) accounts(latest, act);
  go();
}

// Where the address leads: #/, #/find?…, #/waiting?… or #/message/ID.
function go() {
  const mayRead = dialogs.who().may_read;
  const [path, asked = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [place, id] = path.split("/");
  const views = { find: () => mail.find(new URLSearchParams(asked)), waiting: () => mail.waiting(new URLSearchParams(asked)), message: () => mail.message(id) };
  const view = mayRead ? views[place] : undefined;
  byId("home").hidden = !mayRead || Boolean(view);
  byId("detail").hidden = !view;
  if (view) view();
  else if (latest && mayRead) charts.chart(latest);
  return view;
}

byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = new FormData(event.target);
  const asked = new URLSearchParams();
  for (const name of ["what", "since"]) if (form.get(name).trim()) asked.set(name, form.get(name).trim());
  if (form.get("failed")) asked.set("failed", "true");
  const next = `#/find?${asked}`;
  if (location.hash === next) go();
  else location.hash = next;
});

window.addEventListener("hashchange", () => {
  // Whoever follows a link is to be where it leads, also with a screen reader.
  if (go()) byId("detail-title").focus();
  else byId("main").focus();
  window.scrollTo(0, 0);
});

charts.start();
dialogs.start(begin);
setInterval(tick, 1000);

async function enter() {
  await dialogs.logInByLink();
  try {
    await dialogs.refreshSession();
  } catch (error) {
    say(error.message);
    setTimeout(enter, 5000);
  }
}
enter();
