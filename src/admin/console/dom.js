// The few things that a page without a framework needs. Text is always set as text: nothing here can make markup of it.

const SVG = 'http://www.w3.org/2000/svg';

export const $ = (id) => document.getElementById(id);

/** An element with attributes (`class`, `title`, …; undefined is left out) and children: elements or text. */
export function h(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same within a drawing. */
export function s(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== undefined && child !== null));
  return element;
}

/** Sets text only where it differs, so that a selection is not lost each second. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Makes the children of `parent` those of `items`, in their order, and keeps the elements of known keys. `make` gives the element,
 * `fill` writes an item into it. Without items it shows `empty`.
 */
export function list(parent, items, { key, make, fill, empty }) {
  const known = parent.kept ?? new Map();
  const next = new Map();
  for (const item of items) {
    const name = key(item);
    const element = known.get(name) ?? make(item);
    fill?.(element, item);
    next.set(name, element);
  }
  parent.kept = next;
  const wanted = next.size ? [...next.values()] : [].concat(empty?.() ?? []);
  const same = wanted.length === parent.children.length && wanted.every((element, i) => element === parent.children[i]);
  if (!same && (next.size || !parent.firstElementChild?.hasAttribute('data-empty'))) parent.replaceChildren(...wanted);
}

/** Tells a screen reader, politely. */
export function say(text) {
  $('say').textContent = text;
}
