// Numbers, times and names as people read them.
import { el } from "./dom.js";

const plain = new Intl.NumberFormat("en");
const decimal = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const whole = new Intl.DateTimeFormat("en-GB", { dateStyle: "long", timeStyle: "long" });

export const number = (value) => plain.format(value);
export const money = (value) => decimal.format(value);
export const count = (value, one, many = `${one}s`) => `${number(value)} ${value === 1 ? one : many}`;

// The relay's clock against this machine's, in milliseconds: what it says about times is by its own.
let ahead = 0;
export const setNow = (time) => { ahead = Date.parse(time) - Date.now(); };
export const now = () => Date.now() + ahead;

// A time of today as 14:05, another with its day.
export function at(time) {
  const date = new Date(time);
  return (date.toDateString() === new Date(now()).toDateString() ? clock : day).format(date);
}

// A span in its two largest units.
export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 && hours < 10 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} d`;
}

export function ago(time) {
  const seconds = (now() - Date.parse(time)) / 1000;
  return seconds < 1.5 ? "just now" : `${span(seconds)} ago`;
}

export function until(time) {
  const seconds = (Date.parse(time) - now()) / 1000;
  return seconds < 1 ? "any moment" : `in ${span(seconds)}`;
}

// A <time> that `tick` keeps true: `how` is ago, until or at.
const ways = { ago, until, at };
export const time = (value, how = "at") =>
  el("time", { datetime: value, "data-how": how, title: whole.format(new Date(value)) }, ways[how](value));

export function tick() {
  for (const element of document.querySelectorAll("time[data-how]")) {
    const text = ways[element.dataset.how](element.dateTime);
    if (element.textContent !== text) element.textContent = text;
  }
}

export function size(octets) {
  if (octets < 1000) return `${octets} bytes`;
  const units = ["KB", "MB", "GB"];
  let value = octets / 1000;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) { value /= 1000; unit += 1; }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

const limits = {
  recipients_per_day: "Recipients a day",
  external_recipients_per_day: "External recipients a day",
  external_per_minute: "External a minute",
  messages_per_minute: "Messages a minute",
  minimum_pause: "Pause between messages",
};
export const limit = (key) => limits[key] ?? key.replaceAll("_", " ");

// What a state or result means for whoever looks: good, wait, bad or calm.
const tones = {
  ready: "good", sent: "good", connections: "good", flowing: "good",
  budget: "wait", deferred: "wait", held: "wait", waiting: "wait", expired: "bad", "in-doubt": "wait", turn: "calm", "under-way": "good",
  suspended: "bad", paused: "bad", "no-account": "bad", failed: "bad", stopped: "bad", removed: "calm", idle: "calm",
};
export const tone = (word) => tones[word] ?? "wait";
const chips = { "under-way": "under way", "no-account": "no account", "in-doubt": "in doubt", connections: "busy" };
export const chip = (word, text = chips[word] ?? word) => el("span", { class: "chip", "data-tone": tone(word) }, text);

// What the relay says in half a sentence, as a whole one; `commands` and keys_of_the_configuration look like what they are.
export function sentence(text) {
  if (!text) return [];
  const begun = /^[a-z]+\b(?![_@.])/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  const whole = /[.!?]$/.test(begun) ? begun : `${begun}.`;
  return whole.split(/(`[^`]+`|\b[a-z]+(?:_[a-z]+)+\b)/).filter(Boolean)
    .map((part) => (/^`|_/.test(part) && !part.includes(" ") || part.startsWith("`") ? el("code", {}, part.replaceAll("`", "")) : part));
}
