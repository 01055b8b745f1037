// The question that operators ask most, answered by the same code that serves requests.

import { ask } from './api.js';
import { showRefusal } from './dialogs.js';
import { $, h } from './dom.js';
import { sideName } from './format.js';

export function startExplain() {
  $('explain').addEventListener('submit', async (event) => {
    event.preventDefault();
    const [user, path, method] = ['user', 'path', 'method'].map((id) => $(id).value.trim());
    const asked = new URLSearchParams({ user, ...(path && { path, method }) });
    try {
      show(user, await ask(`explain?${asked}`));
    } catch (refused) {
      const box = h('div', { class: 'refusal' });
      showRefusal(box, refused);
      $('explained').replaceChildren(box);
    }
  });
}

function show(user, { side, reason, bucket, moves_at: movesAt, rewritten }) {
  const rows = [
    ['Served by', h('span', { class: `side ${side}` }, sideName(side))],
    ['Reason', reason.replace('_', ' ')],
    ['Bucket', `${bucket} of 10000`],
    ['Moves to New at', `${movesAt} %`],
  ];
  const answer = h('dl', { class: 'answer', 'data-side': side, 'data-user': user }, ...rows.flatMap(([term, text]) => [h('dt', {}, term), h('dd', {}, text)]));
  const request = rewritten && h('pre', { tabindex: '0', role: 'group', 'aria-label': 'The request as the side receives it' }, [`${rewritten.method} ${rewritten.path}`, ...Object.entries(rewritten.headers).map(([name, value]) => `${name}: ${value}`)].join('\n'));
  $('explained').replaceChildren(answer, ...(request ? [request] : []));
}
