// The console: what is shown comes by one event stream and a few questions, and changes go out by two.

import { ask, askIfThere, onSignedOut, watch } from './api.js';
import { addPoint, setMarks, setPoints, startCharts } from './charts.js';
import { $, h, say } from './dom.js';
import { startExplain } from './explain.js';
import { percent, showAudit, showDecisions, showFacts, showNotices, showNow, showReplicas, showTables } from './lists.js';
import { showLogin, startLogin } from './login.js';
import { showRollout, startRollout } from './rollout.js';
import { startTheme } from './theme.js';

const LOOK_AGAIN_MS = 10_000;
const AUDIT_RECORDS = 50;

let version;
let stopWatching;
let looking;
let seen = {}; // of the last frame: what says that the slower questions have new answers

startTheme();
startCharts();
startExplain();
startRollout(look);
startLogin(begin);
onSignedOut(end);
$('logout').addEventListener('click', async () => {
  await ask('logout', { method: 'POST' }).catch(() => {});
  end();
});
// The link would put a fragment into the address; the focus is all that is wanted.
$('skip').addEventListener('click', (event) => {
  event.preventDefault();
  $('rollout').focus();
});

const standing = await ask('session').catch(() => ({ login: false, signed_in: true }));
$('logout').hidden = !standing.login;
if (standing.signed_in) begin();
else showLogin();

function begin() {
  $('login').hidden = true;
  $('console').hidden = false;
  stopWatching ??= watch({
    link: (state, text) => {
      $('link').dataset.state = state;
      if ($('link-text').textContent !== text) $('link-text').textContent = text;
    },
    opening: ({ points, frame }) => {
      setPoints(points);
      if (frame) show(frame);
    },
    frame: (frame) => {
      addPoint({ at: frame.at, sides: frame.sides });
      show(frame);
    },
    rollout: (state) => {
      showRollout(state);
      look();
    },
  });
  look();
  looking ??= setInterval(() => document.hidden || look(), LOOK_AGAIN_MS);
}

function end() {
  stopWatching?.();
  stopWatching = undefined;
  clearInterval(looking);
  looking = undefined;
  showLogin();
}

function show(frame) {
  showRollout(frame.rollout);
  showFacts(frame, version);
  showNow(frame);
  showDecisions(frame.decisions);
  showTables(frame.tables);
  const { faults, reload_failures: failures, rollout: { epoch } } = frame;
  if (faults !== seen.faults || failures !== seen.failures || epoch !== seen.epoch) {
    seen = { faults, failures, epoch };
    look();
  }
}

/** Asks for what the frames do not hold. */
async function look() {
  const [status, audit, replicas] = await Promise.all([askIfThere('status'), askIfThere(`audit?limit=${AUDIT_RECORDS}`), askIfThere('replicas')]);
  if (!status) return;
  version = status.version;
  const faults = document.querySelectorAll('.notice.fault').length;
  const faultsNow = showNotices(status);
  if (faultsNow > faults) say(`The settings have ${faultsNow === 1 ? 'a fault' : 'faults'}.`);
  $('projects').replaceChildren(h('span', { class: 'side old' }, status.projects.old), '  →  ', h('span', { class: 'side new' }, status.projects.new));
  showReplicas(replicas, status);
  if (!audit) return;
  showAudit(audit.records.toReversed());
  setMarks(audit.records.map(({ time, to }) => ({ at: Date.parse(time), text: percent(to) })));
}
