// Small charts of both sides, next to each other and on one scale, so that heights can be compared.

import { $, h, s, setText } from './dom.js';
import { duration, number, share, sideName } from './format.js';

const SPAN_MS = 300_000;
const SIDES = ['old', 'new'];
const LEFT = 46;
const TOP = 16;
const TIGHT_TOP = 24; // below figures that take the whole width
const BOTTOM = 5;
const CLOCK = 14; // more at the bottom of the last row, for the times
const NARROW = 260;
const MARK_ROOM = 40; // for the words beside a mark

/** What is drawn: fields of a side's point, how to say a value, and the least top of the scale. */
const MEASURES = [
  { name: 'Requests per second', lines: [['requests_per_second', '']], text: number, least: 5, area: true },
  { name: 'Error share', hint: 'answers 5xx', lines: [['error_share', '']], text: share, least: 0.05, most: 1, area: true },
  { name: 'Time to the answer', lines: [['p50', 'p50'], ['p95', 'p95'], ['p99', 'p99']], text: duration, least: 0.01 },
];
const STYLES = ['a', 'b', 'c'];

let points = [];
let marks = [];
let hover; // the time under the pointer
const panels = [];

export function startCharts() {
  const root = $('panels');
  root.append(...SIDES.map((side) => h('p', { class: `side ${side}` }, sideName(side))));
  for (const measure of MEASURES) {
    root.append(heading(measure));
    for (const side of SIDES) root.append(panel(measure, side));
  }
  new ResizeObserver(draw).observe(root);
}

function heading({ name, hint, lines }) {
  const keys = lines.length > 1 ? lines.map(([, label], i) => h('span', { class: 'key' }, s('svg', { viewBox: '0 0 22 8', 'aria-hidden': 'true' }, s('path', { d: 'M0 4H22', class: `line ${STYLES[i]}` })), label)) : [];
  return h('p', { class: 'measure' }, name, hint && h('span', { class: 'soft' }, hint), ...keys);
}

function panel(measure, side) {
  const svg = s('svg', { role: 'img', 'aria-label': `${measure.name}, ${sideName(side)}` });
  const readout = h('p', { class: 'readout', 'aria-hidden': 'true' });
  const isLast = measure === MEASURES.at(-1);
  const element = h('div', { class: `panel ${side}${isLast ? ' last' : ''}` }, svg, readout);
  svg.addEventListener('pointermove', ({ offsetX }) => {
    const ratio = (offsetX - LEFT) / Math.max(1, svg.clientWidth - LEFT);
    hover = end() - SPAN_MS * (1 - Math.min(1, Math.max(0, ratio)));
    draw();
  });
  svg.addEventListener('pointerleave', () => {
    hover = undefined;
    draw();
  });
  panels.push({ measure, side, svg, readout });
  return element;
}

/** All the past that the proxy remembers. */
export function setPoints(all) {
  points = all;
  draw();
}

export function addPoint(point) {
  if (points.at(-1)?.at >= point.at) return; // the stream may say one twice
  points = [...points.filter(({ at }) => at > point.at - SPAN_MS - 5_000), point];
  draw();
}

/** Changes of the number: `{ at, text }`. */
export function setMarks(all) {
  marks = all;
  draw();
}

const end = () => points.at(-1)?.at ?? Date.now();

/** 1, 2 or 5 times a power of ten, not below `value`. */
export function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((top) => top >= value * 0.999_999);
}

function draw() {
  if (!panels[0]?.svg.clientWidth) return;
  for (const measure of MEASURES) {
    const values = points.flatMap(({ sides }) => SIDES.flatMap((side) => measure.lines.map(([field]) => sides[side][field] ?? 0)));
    const top = Math.min(measure.most ?? Infinity, niceTop(Math.max(measure.least, ...values)));
    for (const one of panels) if (one.measure === measure) drawPanel(one, top);
  }
}

function drawPanel({ measure, side, svg, readout }, top) {
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  const [isFirst, isLast] = [measure === MEASURES[0], measure === MEASURES.at(-1)];
  const floor = height - BOTTOM - (isLast ? CLOCK : 0);
  const x = (at) => LEFT + (width - LEFT) * (1 - (end() - at) / SPAN_MS);
  const isTight = width < NARROW && measure.lines.length > 1;
  const roof = isTight ? TIGHT_TOP : TOP;
  const y = (value) => floor - (floor - roof) * Math.min(1, value / top);
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  const seen = points.filter(({ at }) => at >= end() - SPAN_MS);
  const shown = hover === undefined ? seen.at(-1) : nearest(seen, hover);
  svg.replaceChildren(
    ...[0, 0.5, 1].flatMap((part) => grid(part * top, y(part * top), width, measure)),
    ...(isLast ? times(x, height) : []),
    ...marks.filter(({ at }) => at > end() - SPAN_MS && at <= end()).flatMap((mark, i, all) => {
      const room = x(all[i + 1]?.at ?? Infinity) - x(mark.at);
      return drawMark(isFirst && room > MARK_ROOM ? mark.text : '', x(mark.at), floor, width);
    }),
    ...measure.lines.flatMap(([field], i) => drawLine(seen, side, field, { x, y, floor, area: measure.area, style: STYLES[i] })),
    ...(hover === undefined ? lastMark(seen, side, measure, x, y) : [s('path', { class: 'cross', d: `M${x(shown?.at ?? hover)} ${TOP}V${floor}` })]),
  );
  const figures = measure.lines.map(([field, label]) => `${label} ${measure.text(shown?.sides[side][field])}`.trim());
  const clock = hover !== undefined && shown ? `${new Date(shown.at).toLocaleTimeString()}  ` : '';
  setText(readout, isTight ? figures.map((figure) => figure.split(' ').slice(1).join('\u00a0')).join(' ') : clock + figures.join('  '));
  svg.setAttribute('aria-label', `${measure.name}, ${sideName(side)}, last five minutes. Now ${figures.join(', ')}. Top of the scale ${measure.text(top)}.`);
}

function grid(value, y, width, { text }) {
  return [s('path', { class: 'axis', d: `M${LEFT} ${y}H${width}` }), s('text', { class: 'tick', x: LEFT - 6, y: y + 3.5, 'text-anchor': 'end' }, text(value))];
}

function times(x, height) {
  const minutes = [5, 4, 3, 2, 1, 0].filter((minute) => x(end() - 60_000) - x(end() - 120_000) > 44 || minute % 5 === 0);
  return minutes.map((minute) => s('text', { class: 'tick', x: x(end() - minute * 60_000), y: height - 3, 'text-anchor': minute === 5 ? 'start' : minute ? 'middle' : 'end' }, minute ? `−${minute} min` : 'now'));
}

function drawMark(text, x, floor, width) {
  const isLate = x > width - 60;
  return [s('path', { class: 'mark', d: `M${x} ${TOP - 4}V${floor}` }), s('text', { class: 'mark-text', x: x + (isLate ? -3 : 3), y: TOP + 4, 'text-anchor': isLate ? 'end' : 'start' }, text)];
}

/** A line with a gap wherever there was nothing to measure. */
function drawLine(seen, side, field, { x, y, floor, area, style }) {
  const runs = [];
  let open = false;
  for (const { at, sides } of seen) {
    const value = sides[side][field];
    if (value === null || value === undefined) {
      open = false;
      continue;
    }
    if (!open) runs.push([]);
    open = true;
    runs.at(-1).push([x(at), y(value)]);
  }
  const path = (run) => `M${run.map(([px, py]) => `${px.toFixed(1)} ${py.toFixed(1)}`).join('L')}`;
  const lines = runs.map((run) => s('path', { class: `line ${style}`, d: run.length > 1 ? path(run) : `${path(run)}h1.5` }));
  const areas = area ? runs.filter((run) => run.length > 1).map((run) => s('path', { class: 'area', d: `${path(run)}V${floor}H${run[0][0].toFixed(1)}Z` })) : [];
  return [...areas, ...lines];
}

/** The side's own shape at the end of its line. */
function lastMark(seen, side, { lines: [[field]] }, x, y) {
  const last = seen.at(-1);
  const value = last?.sides[side][field];
  if (value === null || value === undefined) return [];
  const [px, py] = [x(last.at) - 3, y(value)];
  return [side === 'old' ? s('circle', { class: 'end', cx: px, cy: py, r: 3 }) : s('path', { class: 'end', d: `M${px} ${py - 4}l4 7h-8Z` })];
}

function nearest(seen, at) {
  return seen.reduce((best, point) => (best && Math.abs(best.at - at) <= Math.abs(point.at - at) ? best : point), undefined);
}
