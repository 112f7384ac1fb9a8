// The relay: what it is asked, what it tells by itself, and who asks.

export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

// One request. The relay says what is wrong in a sentence.
export async function ask(path, method = "GET", body = undefined) {
  let response;
  try {
    response = await fetch(path, { method, body: body === undefined ? undefined : JSON.stringify(body), credentials: "same-origin" });
  } catch {
    throw new Refused(0, "The relay does not answer.");
  }
  let answer = {};
  try {
    answer = await response.json();
  } catch {
    if (response.ok) throw new Refused(response.status, "The relay's answer cannot be read.");
  }
  if (!response.ok) throw new Refused(response.status, answer.error ?? `The relay answered with status ${response.status}.`);
  return answer;
}

export const query = (path, asked) => {
  const pairs = Object.entries(asked).filter(([, value]) => value !== undefined && value !== "" && value !== false);
  return pairs.length ? `${path}?${new URLSearchParams(pairs)}` : path;
};

// Silence for longer than this means that the connection is gone, whatever the browser thinks. The relay speaks every ten seconds.
const SILENCE = 25_000;
const AGAIN = [1_000, 2_000, 5_000, 10_000];

// Listens for as long as the page is open. `heard` gets each overview; `changed` gets "live" or "lost", and since when.
export function listen(heard, changed, refused) {
  let source;
  let watchdog;
  let tries = 0;
  let lost = null;
  let waiting = null;

  function lose() {
    lost ??= new Date();
    changed("lost", lost);
    source?.close();
    clearTimeout(watchdog);
    clearTimeout(waiting);
    waiting = setTimeout(connect, AGAIN[Math.min(tries, AGAIN.length - 1)]);
    tries += 1;
  }

  function watch() {
    clearTimeout(watchdog);
    watchdog = setTimeout(lose, SILENCE);
  }

  function connect() {
    source?.close();
    source = new EventSource("/v1/events");
    watch();
    source.addEventListener("overview", (event) => {
      watch();
      tries = 0;
      lost = null;
      changed("live", null);
      heard(JSON.parse(event.data));
    });
    source.addEventListener("error", () => {
      lose();
      refused();
    });
  }

  // A page that wakes up, or a network that is back, need not wait for its turn.
  const hurry = () => { if (lost && !document.hidden) { tries = 0; connect(); } };
  document.addEventListener("visibilitychange", hurry);
  window.addEventListener("online", hurry);
  connect();
  return { stop() { source?.close(); clearTimeout(watchdog); clearTimeout(waiting); document.removeEventListener("visibilitychange", hurry); window.removeEventListener("online", hurry); } };
}
