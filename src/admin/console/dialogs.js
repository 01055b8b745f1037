// Two dialogs. <dialog> keeps the focus within and gives it back.

import { h } from './dom.js';

export function showRefusal(box, refused) {
  const lines = [`${refused.code}: ${refused.message}`, refused.details, refused.hint].filter(Boolean);
  box.replaceChildren(...lines.map((line) => h('p', {}, line)));
  box.hidden = false;
}

/** Makes a dialog ready: `submit` is called when it is confirmed, and the dialog closes if that does not throw. */
export function dialog(element, submit) {
  const refusal = element.querySelector('.refusal');
  const confirm = element.querySelector('[type=submit]');
  element.querySelector('[data-close]').addEventListener('click', () => element.close());
  element.querySelector('form').addEventListener('submit', async (event) => {
    event.preventDefault();
    if (confirm.disabled) return; // a second Enter while the first is on its way
    refusal.hidden = true;
    confirm.disabled = true;
    try {
      await submit();
      element.close();
    } catch (refused) {
      showRefusal(refusal, refused);
    } finally {
      confirm.disabled = false;
    }
  });
  return {
    open() {
      refusal.hidden = true;
      if (!element.open) element.showModal();
    },
  };
}
