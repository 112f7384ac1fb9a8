// Logging in, and asking before something is done.
import { byId, say } from "./dom.js";
import { ask } from "./relay.js";

// As the relay said it last; until it has, nobody may do anything.
let session = { operator: null, may_read: false, may_change: false, can_log_in: false };
let known = false;
let sessionChanged = () => {};

export const who = () => session;

export async function refreshSession() {
  set(await ask("/v1/session"));
  return session;
}

function set(next) {
  const same = known && JSON.stringify(next) === JSON.stringify(session);
  session = next;
  known = true;
  byId("operator").textContent = session.operator ? session.operator.replace(/^user /, "") : "";
  byId("log-in").hidden = Boolean(session.operator);
  byId("log-out").hidden = !session.operator;
  if (!same) sessionChanged();
}

export function start(changed) {
  sessionChanged = changed;
  byId("log-in").addEventListener("click", () => logIn());
  byId("locked-log-in").addEventListener("click", () => logIn());
  byId("log-out").addEventListener("click", async () => {
    try {
      set(await ask("/v1/session", "DELETE"));
      say("Logged out.");
    } catch (error) {
      say(error.message);
    }
  });
}

// A link may bring a token, behind the # so that no log has it; the address loses it at once.
export async function logInByLink() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", "/#/");
  try {
    set(await ask("/v1/session", "POST", { token: decodeURIComponent(found[1]) }));
  } catch (error) {
    say(`The link's token was not taken: ${error.message}`);
  }
}

// Returns whether somebody is logged in now.
export function logIn(why = "") {
  const dialog = byId("login");
  const [user, password, token] = [byId("login-user"), byId("login-password"), byId("login-token")];
  const can = session.can_log_in;
  byId("login-fields").hidden = !can;
  byId("login-go").hidden = !can;
  byId("login-cancel").textContent = can ? "Cancel" : "Close";
  byId("login-error").textContent = "";
  byId("login-why").hidden = !why && can;
  byId("login-why").textContent = can ? why : "Nobody can log in yet. Add an [[admin.user]] to the configuration and have the relay reload it, or use hve-relay on the machine itself.";
  [password, token].forEach((field) => { field.value = ""; });
  return opened(dialog, byId("login-form"), byId("login-cancel"), byId("login-go"), async () => {
    try {
      const login = token.value ? { token: token.value } : { user: user.value, password: password.value };
      set(await ask("/v1/session", "POST", login));
      say(`Logged in as ${session.operator.replace(/^user /, "")}.`);
      return true;
    } catch (error) {
      byId("login-error").textContent = `${error.message[0].toUpperCase()}${error.message.slice(1)}.`.replace(/\.\.$/, ".");
      password.focus();
      return false;
    }
  });
}

// Asks, and if that is confirmed does it: `act` gets what was filled in and says what came of it. What must be known first is found out
// `before`. Whoever is not logged in is asked to first.
export async function confirm({ title, text, go, danger = false, fields = null, before = null, act }) {
  if (!session.may_change && !(await logIn("To change something, the relay must know who you are."))) return;
  const dialog = byId("confirm");
  byId("confirm-title").textContent = title;
  byId("confirm-text").replaceChildren(...[text].flat());
  byId("confirm-fields").replaceChildren(...(fields ?? []));
  byId("confirm-error").textContent = "";
  byId("confirm-go").textContent = go;
  byId("confirm-go").classList.toggle("danger", danger);
  const button = byId("confirm-go");
  button.disabled = Boolean(before);
  if (before) {
    before().then(() => { button.disabled = false; }, (error) => { byId("confirm-error").textContent = error.message; });
  }
  await opened(dialog, byId("confirm-form"), byId("confirm-cancel"), button, async () => {
    try {
      say(await act(new FormData(byId("confirm-form"))));
      return true;
    } catch (error) {
      if (error.status === 401) await refreshSession().catch(() => {});
      byId("confirm-error").textContent = error.message;
      return false;
    }
  });
}

// Opens a dialog until it is cancelled, or done.
function opened(dialog, form, cancel, go, done) {
  return new Promise((resolve) => {
    const controller = new AbortController();
    const { signal } = controller;
    const opener = document.activeElement?.dataset?.key;
    let result = false;
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      if (go.disabled || go.hidden) return;
      go.disabled = true;
      dialog.setAttribute("aria-busy", "true");
      result = await done();
      go.disabled = false;
      dialog.removeAttribute("aria-busy");
      if (result) dialog.close();
    }, { signal });
    cancel.addEventListener("click", () => dialog.close(), { signal });
    dialog.addEventListener("close", () => {
      controller.abort();
      // What was clicked may have been drawn anew meanwhile.
      const again = opener && [...document.querySelectorAll("[data-key]")].find((element) => element.dataset.key === opener);
      if (document.activeElement === document.body) (again || byId(byId("detail").hidden ? "main" : "detail-title")).focus();
      resolve(result);
    }, { signal });
    dialog.showModal();
  });
}
