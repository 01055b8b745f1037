// A real Prometheus scrapes two replicas under load on both sides: every question of the dashboard is answered with data, no alert
// fires in health, and each thing that is then broken brings the alerts that are there for it.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { startKubernetes } from '../lib/kubernetes.mjs';
import { Load } from '../lib/load.mjs';
import { REPOSITORY } from '../lib/paths.mjs';
import { freePorts } from '../lib/ports.mjs';
import { Processes } from '../lib/processes.mjs';
import { startPrometheus, substituted } from '../lib/prometheus.mjs';
import { rest } from '../lib/rest.mjs';
import { RealtimeSocket } from '../lib/socket.mjs';
import { cutover, registered, startPair } from '../lib/suite.mjs';
import { until } from '../lib/until.mjs';
import { MEMBERS, membersOn } from '../lib/users.mjs';

const PERCENTAGE = 50;
const PER_SECOND = 30; // to each replica
const onBoth = ['old', 'new'].map((side) => membersOn(side, PERCENTAGE, 1)[0]);

/** How fast this machine is with other things to do proves nothing. */
const OF_THE_MACHINE = ['CutoverNewSlowerThanOld'];

const dashboard = JSON.parse(readFileSync(join(REPOSITORY, 'observability/cutover.json'), 'utf8'));

// The pair whose tokens are exchanged, so that the metrics of tokens have something to say; NEW behind a wire that can be cut. Both
// replicas follow one ConfigMap.
const pair = await startPair('asymmetric');
const wire = await cuttable(pair.new.url);
const reachable = { ...pair, new: { ...pair.new, url: wire.url } };
const processes = new Processes();
const kubernetes = await startKubernetes({ data: { V2_ROLLOUT_PERCENTAGE: String(PERCENTAGE) } });
const proxies = [];
for (const name of ['replica-a', 'replica-b']) {
  const tokenFile = join(processes.dir, name);
  writeFileSync(tokenFile, name);
  const sections = `[kubernetes]\nconfigmap = "cutover/cutover-rollout"\napi_url = "${kubernetes.url}"\ntoken_file = "${tokenFile}"\n`;
  proxies.push(await cutover({ pair: reachable, name, sections, percentage: PERCENTAGE }));
}
const [first, second] = proxies;

const prometheus = await startPrometheus(processes, proxies);
const loads = proxies.map(({ url }) => new Load({ url, key: pair.old.anonKey, users: MEMBERS, perSecond: PER_SECOND }));
for (const load of loads) load.start();
after(async () => {
  await Promise.all(loads.map((load) => load.stop()));
  await processes.stop();
  wire.cut();
  kubernetes.stop();
});

/** A relay to a server that can be taken away and brought back. */
async function cuttable(target) {
  const [port] = await freePorts(1);
  const { hostname, port: to } = new URL(target);
  const open = new Set();
  const listener = createServer((socket) => {
    const other = connect({ host: hostname, port: Number(to) });
    for (const [from, into] of [[socket, other], [other, socket]]) {
      open.add(from);
      from.on('error', () => into.destroy()).on('close', () => open.delete(from) && into.destroy());
      from.pipe(into);
    }
  });
  const mend = () => new Promise((listening) => listener.listen(port, '127.0.0.1', listening));
  await mend();
  const cut = () => {
    listener.close();
    for (const socket of open) socket.destroy();
  };
  return { url: `http://127.0.0.1:${port}`, cut, mend };
}

test('the dashboard offers the job and its replicas', async () => {
  const [, job, instance] = dashboard.templating.list;
  await until('both replicas to be scraped', async () => (await prometheus.ask('up == 1')).length === 2);
  assert.deepEqual(await prometheus.choices(job.definition), ['cutover']);
  const offered = await prometheus.choices(substituted(instance.definition, { job: 'cutover' }));
  assert.deepEqual(offered, proxies.map(({ adminUrl }) => new URL(adminUrl).host).sort());
});

test('every question of the dashboard is answered with data', async () => {
  const headers = { apikey: pair.old.anonKey };
  const socket = await new RealtimeSocket(first.url, pair.old.anonKey).opened;
  assert.equal((await fetch(`${first.url}/nothing/of/supabase`, { headers })).status, 404); // an error of the proxy's own
  const [everything] = dashboard.templating.list.filter(({ name }) => name === 'instance');
  const chosen = { job: 'cutover', instance: everything.allValue };
  let asked = 0;
  for (const { title, targets = [] } of dashboard.panels) {
    for (const { refId, expr } of targets) {
      const question = substituted(expr, chosen);
      assert.doesNotMatch(question, /\$/, `a variable that nobody substitutes in ${title}`);
      await until(`an answer to ${title} ${refId}: ${question}`, async () => {
        await Promise.all(onBoth.map(({ token }) => rest(first.url, '/memory_entries?select=id&limit=1', { key: pair.old.anonKey, token })));
        return (await prometheus.ask(question)).length;
      });
      asked++;
    }
  }
  assert.ok(asked > 40, `only ${asked} questions`);
  await socket.close();
});

test('both sides were really compared', async () => {
  const board = (title) => substituted(dashboard.panels.find((panel) => panel.title === title).targets[0].expr, { job: 'cutover', instance: '.+' });
  for (const side of ['old', 'new']) {
    const perSecond = async () => (await prometheus.ask(board(`Requests on ${side}`))).find(({ metric }) => metric.route === 'rest')?.value;
    await until(`${PER_SECOND / 2} requests per second on ${side}`, async () => await perSecond() > PER_SECOND / 2); // it comes to about PER_SECOND
    const [failures] = await prometheus.ask(board(`Failures on ${side}`));
    assert.equal(failures.value, 0);
  }
  assert.deepEqual((await prometheus.ask(board('Percentage'))).map(({ metric, value }) => [metric.percentage, value]), [[String(PERCENTAGE), 2]]);
});

test('in health no alert fires', async () => {
  // Gone it was before the first scrape, and down for the second in which nothing here ran: neither may last.
  await prometheus.rests('CutoverGone', 'CutoverDown');
  const fired = await prometheus.ask('max_over_time(ALERTS{alertstate="firing",alertname!~"CutoverGone|CutoverDown"}[5m])');
  const names = fired.map(({ metric }) => metric.alertname).filter((name) => !OF_THE_MACHINE.includes(name));
  assert.deepEqual(names, []);
  const { groups } = await prometheus.api('rules');
  for (const { rules } of groups) for (const rule of rules) assert.equal(rule.health, 'ok', `${rule.name}: ${rule.lastError}`);
});

test('a replica that the API server does not reach stays behind', async () => {
  kubernetes.cut('replica-b');
  await first.setPercentage(10);
  const fired = await prometheus.fires('CutoverReplicasDisagree', 'CutoverEpochsDiffer', 'CutoverConfigMapSilent');
  assert.equal(fired.CutoverReplicasDisagree.labels.severity, 'critical');
  assert.equal(fired.CutoverConfigMapSilent.labels.instance, new URL(second.adminUrl).host);
  const [change] = dashboard.annotations.list;
  await until('the change to be marked on the dashboard', async () => (await prometheus.ask(substituted(change.expr, { job: 'cutover', instance: '.+' }))).length);
  kubernetes.mend('replica-b');
  await prometheus.rests('CutoverReplicasDisagree', 'CutoverEpochsDiffer', 'CutoverConfigMapSilent');
  assert.equal((await second.rollout()).percentage, 10);
});

test('a bad file on disk', async () => {
  first.editFile((text) => text.replace(`percentage = ${PERCENTAGE}`, 'percentage = ten'));
  const { CutoverSettingsFaulty: alert } = await prometheus.fires('CutoverSettingsFaulty', 'CutoverReloadFailed');
  assert.match(alert.annotations.summary, new RegExp(new URL(first.adminUrl).host));
  first.editFile((text) => text.replace('percentage = ten', `percentage = ${PERCENTAGE}`));
  await prometheus.rests('CutoverSettingsFaulty', 'CutoverReloadFailed');
});

test('new goes away', async () => {
  wire.cut();
  const fired = await prometheus.fires('CutoverNewUnreachable', 'CutoverSideFails', 'CutoverNewWorseThanOld');
  assert.equal(fired.CutoverSideFails.labels.side, 'new');
  assert.match(fired.CutoverSideFails.annotations.summary, /^\d+(\.\d+)?% of the requests to new fail$/);
  assert.equal(fired.CutoverOldUnreachable, undefined);
  const [, alerts] = dashboard.annotations.list;
  await until('the alerts to be marked on the dashboard', async () => (await prometheus.ask(alerts.expr)).length);
  await wire.mend();
  await prometheus.rests('CutoverNewUnreachable', 'CutoverSideFails', 'CutoverNewWorseThanOld');
});

test('a replica goes away', async () => {
  await loads[1].stop();
  await second.stop();
  const { CutoverDown: alert } = await prometheus.fires('CutoverDown');
  assert.equal(alert.labels.instance, new URL(second.adminUrl).host);
  assert.deepEqual((await prometheus.firing()).map(({ labels }) => labels.alertname).filter((name) => !OF_THE_MACHINE.includes(name)), ['CutoverDown']);
});

registered(import.meta);
