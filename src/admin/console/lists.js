// What is told in tables and lists: the figures of now, decisions, tables, replicas, changes, warnings.

import { $, h, list, setText } from './dom.js';
import { duration, number, share, sideName, span, when } from './format.js';

const FIGURES = [
  ['Requests per second', ({ sides }, side) => number(sides[side].requests_per_second)],
  ['Error share', ({ sides }, side) => share(sides[side].error_share)],
  ['Time to the answer, p50', ({ sides }, side) => duration(sides[side].p50)],
  ['p95', ({ sides }, side) => duration(sides[side].p95)],
  ['p99', ({ sides }, side) => duration(sides[side].p99)],
  ['WebSockets', ({ open }, side) => number(open.websockets[side])],
  ['Connections', ({ open }, side) => number(open.upstream_connections[side])],
];

const nothing = (text, columns) => () => h('tr', { 'data-empty': '' }, h('td', { class: 'nothing', colspan: columns }, text));

export function showNow(frame) {
  list($('now'), FIGURES, {
    key: ([name]) => name,
    make: ([name]) => h('tr', {}, h('th', { scope: 'row' }, name), h('td'), h('td')),
    fill: (row, [, text]) => ['old', 'new'].forEach((side, i) => setText(row.children[i + 1], text(frame, side))),
  });
  const { open, own_per_second: own } = frame;
  setText($('open'), `${number(open.requests)} requests in flight · ${number(open.client_connections)} client connections · ${number(open.realtime_sockets)} realtime sockets · ${number(own)} per second answered by the proxy itself`);
}

export function showDecisions(rows) {
  list($('decisions'), rows, {
    key: ({ name }) => name,
    make: ({ name }) => h('tr', {}, h('th', { scope: 'row' }, name.replace('_', ' ')), h('td'), h('td'), h('td')),
    fill: (row, { total, per_second: rate }) => {
      [number(rate.old), number(rate.new), number(total.old + total.new)].forEach((text, i) => setText(row.children[i + 1], text));
    },
    empty: nothing('No decision yet.', 4),
  });
}

export function showTables(rows) {
  list($('tables'), rows, {
    key: ({ kind, name }) => `${kind} ${name}`,
    make: ({ kind, name }) => {
      const shown = kind === 'function' ? `${name}()` : name;
      const bar = h('span', { class: 'share', 'aria-hidden': 'true' }, h('span'));
      return h('tr', {}, h('th', { scope: 'row', class: 'name', title: `${kind} ${name}` }, shown, bar), h('td'), h('td'), h('td'));
    },
    fill: (row, { total, per_second: rate }) => {
      [number(total.old), number(total.new), number(rate.old + rate.new)].forEach((text, i) => setText(row.children[i + 1], text));
      row.querySelector('.share > span').style.width = `${(100 * total.new) / Math.max(1, total.old + total.new)}%`;
    },
    empty: nothing('No request to a table or function yet.', 4),
  });
}

export function showFacts({ rollout, phase, uptime_seconds: uptime }, version) {
  setText($('facts'), `epoch ${rollout.epoch} · from ${rollout.source.replace(/\/\S*\//, '')}`); // a file's name says enough
  $('facts').title = rollout.source;
  setText($('foot'), `${version ? `Cutover ${version} · ` : ''}${phase} · up ${span(uptime)}`);
}

/** `told` is the answer of /replicas; without one this process stands alone. */
export function showReplicas(told, own) {
  const replicas = told?.replicas ?? [{ name: 'this process', epoch: own.epoch, percentage: own.percentage, force: own.force, ready: own.phase === 'serving' }];
  const agreed = told?.agreed ?? true;
  const summary = replicas.length < 2 ? 'One process; no others are known.' : agreed ? `All ${replicas.length} follow the same number.` : 'They do not follow the same number.';
  setText($('agreed'), summary);
  $('agreed').classList.toggle('disagreed', !agreed);
  list($('replicas'), replicas, {
    key: ({ address, name }) => `${address} ${name}`,
    make: () => h('li', {}, h('div', { class: 'row' }, h('span', { class: 'mono' }), h('strong')), h('div', { class: 'by' })),
    fill: (item, { address, name, epoch, percentage, force, ready, error }) => {
      const [label, value, by] = [item.querySelector('.mono'), item.querySelector('strong'), item.querySelector('.by')];
      setText(label, name || address);
      label.title = [name, address].filter(Boolean).join(' ');
      setText(value, percentage === undefined || percentage === null ? '–' : `${percentage} %`);
      const parts = [ready ? 'ready' : 'not ready', epoch && `epoch ${epoch}`, force && `forced to ${sideName(force)}`, error];
      setText(by, parts.filter(Boolean).join(' · '));
    },
  });
}

/** The audit's words for a state: `10`, or `10 forced old`. */
export const percent = (state) => state.replace(/^[\d.]+/, '$& %').replace('forced', '· forced');

export function showAudit(records) {
  list($('audit'), records, {
    key: ({ hash }) => hash,
    make: ({ time, from, to, actor, reason, epoch }) => {
      const { short, full } = when(time);
      return h('li', {},
        h('div', { class: 'row' }, h('span', { class: 'move' }, `${percent(from)} → ${percent(to)}`), h('time', { datetime: time, title: full }, short)),
        reason ? h('div', { class: 'reason' }, reason) : undefined,
        h('div', { class: 'by' }, `${actor} · epoch ${epoch}`));
    },
    empty: () => h('li', { class: 'nothing', 'data-empty': '' }, 'No change yet.'),
  });
}

export function showNotices({ reload, warnings }) {
  const faults = reload.faults.map((fault) => ({ kind: 'fault', text: describe(fault) }));
  const all = [...faults, ...warnings.map((text) => ({ kind: 'warning', text }))];
  $('notices').hidden = !all.length;
  list($('notices'), all, {
    key: ({ kind, text }) => kind + text,
    make: ({ kind, text }) => h('p', { class: `notice ${kind}` }, h('strong', {}, kind === 'fault' ? 'Fault:' : 'Warning:'), text),
  });
  return faults.length;
}

/** A fault has its words by name; what this page does not know of is shown as it came. */
function describe(fault) {
  const { source, key, found, allowed } = fault;
  return key ? `${key} in ${source}: found ${found}, allowed: ${allowed}. The last good settings are served; do not restart.` : JSON.stringify(fault);
}
