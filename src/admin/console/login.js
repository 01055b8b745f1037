// The token is exchanged for a cookie that no script can read.

import { ask } from './api.js';
import { $ } from './dom.js';
import { showRefusal } from './dialogs.js';

export function startLogin(signedIn) {
  $('login-form').addEventListener('submit', async (event) => {
    event.preventDefault();
    $('login-refusal').hidden = true;
    const field = $('token');
    try {
      await ask('login', { method: 'POST', body: { token: field.value } });
      field.value = '';
      signedIn();
    } catch (refused) {
      showRefusal($('login-refusal'), refused);
      field.select();
    }
  });
}

export function showLogin() {
  $('console').hidden = true;
  $('login').hidden = false;
  for (const dialog of document.querySelectorAll('dialog[open]')) dialog.close();
  $('token').focus();
}
