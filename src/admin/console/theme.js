// Light, dark, or as the system says.

import { $ } from './dom.js';

const NEXT = { auto: 'light', light: 'dark', dark: 'auto' };
const KEY = 'cutover-theme';

function stored() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null; // storage may be forbidden
  }
}

function show(theme) {
  document.documentElement.dataset.theme = theme;
  $('theme').textContent = { auto: 'Auto', light: 'Light', dark: 'Dark' }[theme];
  $('theme').setAttribute('aria-label', `${$('theme').textContent}: the theme`);
}

export function startTheme() {
  let theme = NEXT[stored()] ? stored() : 'auto';
  show(theme);
  $('theme').addEventListener('click', () => {
    theme = NEXT[theme];
    show(theme);
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // then it lasts as long as the page
    }
  });
}
