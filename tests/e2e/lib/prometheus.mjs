// A real Prometheus that scrapes proxies and judges the alerts of observability/, on a faster clock than theirs.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as paths from './paths.mjs';
import { freePorts } from './ports.mjs';
import { answers, until } from './until.mjs';

/** What five minutes are to an operator, these seconds are to a test. */
const WINDOW = '5s';
const EVERY = '250ms';

/** The rules of the repository with short windows and no patience; what they compare is unchanged. */
export function quickRules() {
  const text = readFileSync(join(paths.REPOSITORY, 'observability/rules.yml'), 'utf8');
  return text.replace(/\[\d+m\]/g, `[${WINDOW}]`).replace(/for: \d+\w+/g, 'for: 500ms');
}

/** Starts Prometheus on the admin listeners of these proxies, as one job. */
export async function startPrometheus(processes, proxies) {
  const [port] = await freePorts(1);
  const file = (name, text) => {
    const path = join(processes.dir, name);
    writeFileSync(path, text);
    return path;
  };
  file('rules.yml', quickRules());
  const targets = proxies.map((proxy) => new URL(proxy.adminUrl).host);
  const config = { // JSON is YAML
    global: { scrape_interval: EVERY, scrape_timeout: EVERY, evaluation_interval: EVERY },
    rule_files: ['rules.yml'],
    scrape_configs: [{ job_name: 'cutover', static_configs: [{ targets }] }],
  };
  const prometheus = new Prometheus(`http://127.0.0.1:${port}`);
  const child = processes.start('prometheus', paths.prometheus('prometheus'), [
    `--config.file=${file('prometheus.yml', JSON.stringify(config))}`, `--storage.tsdb.path=${join(processes.dir, 'tsdb')}`,
    `--web.listen-address=127.0.0.1:${port}`, '--log.level=warn',
  ]);
  await processes.ready(child, () => answers(`${prometheus.url}/-/ready`));
  return prometheus;
}

class Prometheus {
  constructor(url) {
    this.url = url;
  }

  async api(path, parameters = {}) {
    const response = await fetch(`${this.url}/api/v1/${path}?${new URLSearchParams(parameters)}`);
    const { status, data, error } = await response.json();
    if (status !== 'success') throw Object.assign(new Error(`${JSON.stringify(parameters)}: ${error}`), { final: true });
    return data;
  }

  /** The samples that answer an expression now, as [{ metric, value }]; those that are no number are left out. */
  async ask(query) {
    const { result } = await this.api('query', { query });
    return result.map(({ metric, value }) => ({ metric, value: Number(value[1]) })).filter(({ value }) => Number.isFinite(value));
  }

  /** What a variable of a dashboard offers, from its `label_values(selector, label)`. */
  async choices(definition) {
    const [, selector, label] = definition.match(/^label_values\((.*), (\w+)\)$/);
    return this.api(`label/${label}/values`, { 'match[]': selector });
  }

  /** The alerts that fire now. */
  async firing() {
    return (await this.api('alerts')).alerts.filter(({ state }) => state === 'firing');
  }

  /** Waits until alerts with these names fire, and returns them by name. */
  async fires(...names) {
    const found = await until(`${names} to fire`, async () => {
      const firing = await this.firing();
      return names.every((name) => firing.some(({ labels }) => labels.alertname === name)) && firing;
    }, { seconds: 30, everyMs: 100 });
    return Object.fromEntries(found.map((alert) => [alert.labels.alertname, alert]));
  }

  /** Waits until none of these fires. */
  async rests(...names) {
    await until(`${names} to rest`, async () => !(await this.firing()).some(({ labels }) => names.includes(labels.alertname)), { seconds: 30, everyMs: 100 });
  }
}

/** An expression of the dashboard as Grafana would send it. */
export function substituted(expression, { job, instance }) {
  const values = { job, instance, __rate_interval: WINDOW };
  return expression.replace(/\$(\w+)/g, (whole, name) => values[name] ?? whole);
}
