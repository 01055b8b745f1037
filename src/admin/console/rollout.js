// The number, the ways to change it, and the abort.

import { ask } from './api.js';
import { dialog } from './dialogs.js';
import { $, h, say, setText } from './dom.js';
import { sideName } from './format.js';

const STEPS = [0, 10, 50, 100];
const BUCKETS = 10_000;

let now; // the last state that the proxy told
let reasonField;

/** What is meant by the text of the field: a number of 0 to 100 with at most two decimals, or undefined. */
export function readPercentage(text) {
  const plain = text.trim().replace(',', '.').replace(/\s*%$/, '');
  return /^\d{1,3}(\.\d{1,2})?$/.test(plain) && Number(plain) <= 100 ? Number(plain) : undefined;
}

/** Buckets on new by the percentage rule, whether or not it is asked at the moment. */
const onNew = (percentage) => Math.round(percentage * (BUCKETS / 100));

/** What a change to `target` does, in words. A force counts as everybody being on that side. */
export function preview({ percentage, force }, target) {
  const before = force === 'old' ? 0 : force === 'new' ? BUCKETS : onNew(percentage);
  const moved = onNew(target) - before;
  const count = (n) => `${n.toLocaleString()} of ${BUCKETS.toLocaleString()} buckets`;
  const resume = force ? `Resume: nobody is forced to ${sideName(force)} any more. ` : '';
  if (moved === 0) return `${resume}No bucket moves.`;
  const [from, to] = moved > 0 ? ['Old', 'New'] : ['New', 'Old'];
  return `${resume}${count(Math.abs(moved))}: their users move from ${from} to ${to}. Then ${onNew(target).toLocaleString()} are on New.`;
}

export function startRollout(changed) {
  reasonField = $('change-reason');
  $('steps').append(...STEPS.map((step) => h('button', { type: 'button', 'data-step': step, 'aria-pressed': 'false', 'aria-label': `${step} percent` }, `${step} %`)));
  $('steps').addEventListener('click', ({ target }) => {
    if (target.dataset.step === undefined) return;
    $('target').value = target.dataset.step;
    showPreview();
  });
  $('target').addEventListener('input', showPreview);

  const change = dialog($('change-dialog'), async () => {
    const reason = reasonField.value.trim();
    if (!reason) throw Object.assign(new Error('say why: it is what the next operator reads'), { code: 'Reason' });
    const { percentage, resume, epoch } = asked;
    const state = await ask('rollout', { method: 'PUT', body: { percentage, reason, ...(resume && { resume }) }, headers: { 'if-match': `"${epoch}"` } });
    reasonField.value = '';
    $('target').value = '';
    showRollout(state);
    changed();
  });
  let asked;
  $('change').addEventListener('submit', (event) => {
    event.preventDefault();
    const percentage = readPercentage($('target').value);
    if (percentage === undefined || !now) {
      setText($('preview'), 'Write a number from 0 to 100, with two decimals at most.');
      $('target').setAttribute('aria-invalid', 'true');
      $('target').focus();
      return;
    }
    // What is confirmed is what was shown: the epoch makes the proxy refuse if somebody else was faster.
    asked = { percentage, resume: Boolean(now.force), epoch: now.epoch };
    setText($('change-title'), now.force ? `Resume at ${percentage} %?` : `From ${now.percentage} % to ${percentage} %?`);
    setText($('change-summary'), preview(now, percentage));
    setText($('change-confirm'), now.force ? `Resume at ${percentage} %` : `Move to ${percentage} %`);
    change.open();
    reasonField.focus();
  });

  const abort = dialog($('abort-dialog'), async () => {
    const state = await ask('rollout/abort', { method: 'POST', body: { reason: $('abort-reason').value.trim() } });
    $('abort-reason').value = '';
    $('target').value = '';
    showRollout(state);
    changed();
  });
  $('abort').addEventListener('click', () => abort.open());
}

/** Shows the state that the proxy told; says so when it is another than before. */
export function showRollout(state) {
  const before = now;
  now = state;
  setText($('percentage'), String(state.percentage));
  $('split-new').style.width = `${state.force === 'old' ? 0 : state.force === 'new' ? 100 : state.percentage}%`;
  $('force').hidden = !state.force;
  setText($('force'), forced(state));
  setText($('change-open'), state.force ? 'Resume…' : 'Change…');
  showPreview();
  if (before && before.epoch !== state.epoch) say(`The rollout is ${state.percentage} percent now. ${forced(state)}`);
}

function forced({ force, held }) {
  if (!force) return '';
  const where = held ? ' This is held in the memory of this process alone: abort every replica, mend the settings, and abort again.' : '';
  return `Everybody is forced to ${sideName(force)}.${where}`;
}

function showPreview() {
  const text = $('target').value;
  const target = readPercentage(text);
  for (const button of $('steps').children) button.setAttribute('aria-pressed', String(text !== '' && Number(button.dataset.step) === target));
  $('target').removeAttribute('aria-invalid');
  if (!now || !text.trim()) return setText($('preview'), now?.force ? 'Choose the percentage to resume at.' : 'Choose a percentage; nothing changes before you confirm it.');
  setText($('preview'), target === undefined ? 'Write a number from 0 to 100, with two decimals at most.' : preview(now, target));
}
