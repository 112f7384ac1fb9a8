// Building and replacing parts of the page. Text goes in as text, never as markup: subjects and replies come from strangers.

export const byId = (id) => document.getElementById(id);

// An element: attributes by name, `on…` for what it listens to, children as elements, texts or nothing.
export function el(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const shown = new WeakMap();

// Shows what `build` makes of `data`, if that is not what is shown already. Whoever has the focus keeps it, by its `data-key`.
export function show(place, data, build) {
  const signature = JSON.stringify(data);
  if (shown.get(place) === signature) return;
  shown.set(place, signature);
  const active = document.activeElement;
  const key = place.contains(active) ? active.dataset.key : undefined;
  const open = new Set([...place.querySelectorAll("details[open]")].map((details) => details.dataset.key));
  place.replaceChildren(...[build(data)].flat().filter(Boolean));
  for (const details of place.querySelectorAll("details")) if (open.has(details.dataset.key)) details.open = true;
  if (key) [...place.querySelectorAll("[data-key]")].find((element) => element.dataset.key === key)?.focus();
}

// Says something to everybody: it is seen for a while, and read out once.
export function say(text) {
  const said = byId("said");
  said.textContent = text;
  said.classList.add("visible");
  clearTimeout(say.timer);
  say.timer = setTimeout(() => said.classList.remove("visible"), 8000);
}
