// The program under test: its configuration for the stack, its start and stop, and its admin API.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SALT } from './bucket.mjs';
import * as paths from './paths.mjs';
import { freePorts, preferPort } from './ports.mjs';
import { listenedPort } from './record.mjs';
import { isKeeping, keep, keepCommands, keepPages, listenTo, secretsOf } from './said.mjs';

/** How NEW reorganises OLD, as an operator would write it: the proxy reads by it, and `cutover plan` builds NEW by it. */
export const SCHEMA = `
[schema]
legacy = "public"
unmapped = "pass"
compat = "public"
cross_schema_embeds = "compat"

[schema.tables]
topics = "security_service"
memory_entries = "security_service"
memory_chunks = "security_service"
api_keys = "security_service"
vendor_organizations = "vendors.organizations"
vendor_api_keys = "vendors.api_keys"
vendor_platform_sessions = "vendors.platform_sessions"
vendor_usage_logs = "vendors.usage_logs"
ai_conversations = "ai_chat.conversations"
ai_messages = "ai_chat.messages"
profiles = "shared_services"
user_settings = "shared_services.settings"
subscriptions = "billing"
usage_tracking = "analytics"
products = "marketplace"
orders = "marketplace"
order_items = "marketplace"
"smart_recall_*" = "intelligence"
intelligence_usage_logs = "intelligence.usage_logs"

[schema.functions]
match_memories = "security_service"
`;

/** All that can be logged, so that it can be looked through. */
const LEVEL = 'trace';

/** A configuration for both projects of a pair, as text. `rollout` adds or replaces keys of its section; `sections` is more TOML.
 * A pair whose `tokens` is `exchange` has its signing keys in it. */
export function configText(stack, { port, adminPort, percentage = 0, rollout = {}, sections = '', auditFile = '', adminToken }) {
  const project = (name) => `
[projects.${name}]
url = "${stack[name].url}"
anon_key = ${JSON.stringify(stack[name].keys.anon)}
service_role_key = ${JSON.stringify(stack[name].keys.service)}
${stack.tokens === 'exchange' ? signingKey(stack[name].signing) : ''}
`;
  const section = (values) => Object.entries(values).map(([key, value]) => `${key} = ${JSON.stringify(value)}`).join('\n');
  return `# Written by tests/e2e; edited while the proxy runs.
listen = "127.0.0.1:${port}"
debug_headers = true

[admin]
listen = "127.0.0.1:${adminPort}"
${adminToken ? `token = ${JSON.stringify(adminToken)}` : ''}
${project('old')}${project('new')}
[rollout]
percentage = ${percentage} # the number that moves users
${section({ salt: SALT, audit_file: auditFile, ...rollout })}

${stack.tokens ? `[tokens]\nmode = "${stack.tokens}"` : ''}
${SCHEMA}
${sections}`;
}

function signingKey({ secret, jwk }) {
  return secret ? `jwt_secret = ${JSON.stringify(secret)}` : `signing_key = ${JSON.stringify(JSON.stringify(jwk))}`;
}

/**
 * Starts `cutover serve` in front of the stack and waits until it says that it is ready. `ports` are wishes; a taken one is replaced.
 * Returns the running proxy; stop() asserts that it drained and exited with 0.
 */
export async function startCutover(processes, stack, { ports = [], name = 'cutover', ...options } = {}) {
  const [free, freeAdmin] = await freePorts(2);
  const port = ports[0] ? await preferPort(ports[0]) : free;
  const adminPort = ports[1] ? await preferPort(ports[1]) : freeAdmin;
  const configPath = join(processes.dir, `${name}.toml`);
  const auditFile = join(processes.dir, `${name}-audit.jsonl`);
  const text = configText(stack, { port, adminPort, auditFile, ...options });
  writeFileSync(configPath, text);
  secretsOf(text);

  const proxy = new Cutover(processes, { name, port: await listenedPort(port), adminPort, configPath, auditFile, adminToken: options.adminToken });
  await proxy.start();
  return proxy;
}

class Cutover {
  constructor(processes, { name, port, adminPort, configPath, auditFile, adminToken }) {
    Object.assign(this, { processes, name, configPath, auditFile, authorized: adminToken && { authorization: `Bearer ${adminToken}` }, url: `http://127.0.0.1:${port}`, adminUrl: `http://127.0.0.1:${adminPort}` });
  }

  async start() {
    const env = { PATH: process.env.PATH, HOME: process.env.HOME, ...(isKeeping() && { CUTOVER_LOG__LEVEL: LEVEL }) }; // no rollout variable of the caller's
    listenTo(this.adminUrl);
    this.child = this.processes.start(this.name, paths.cutoverBinary(), ['serve', '--config', this.configPath], { env, cwd: this.processes.dir });
    await this.processes.ready(this.child, async () => (await fetch(`${this.adminUrl}/readyz`)).ok);
  }

  /** Another process with the same configuration and ports: what the first one kept in memory is gone. */
  async restart() {
    await this.stop();
    await this.start();
  }

  /** GET /rollout: the body, with the ETag as `etag`. */
  async rollout() {
    const response = await fetch(`${this.adminUrl}/rollout`, { headers: this.authorized });
    assert.equal(response.status, 200);
    return { ...(await response.json()), etag: response.headers.get('etag') };
  }

  /** PUT /rollout. Returns the status and the ETag of what now holds; `etag` makes it conditional. */
  async put(body, etag) {
    const headers = { 'content-type': 'application/json', ...this.authorized, ...(etag && { 'if-match': etag }) };
    const response = await fetch(`${this.adminUrl}/rollout`, { method: 'PUT', headers, body: JSON.stringify(body) });
    return { status: response.status, etag: response.headers.get('etag'), body: await response.json() };
  }

  /** The usual way to move users in a test: the change must be accepted. */
  async setPercentage(percentage) {
    const { status, etag, body } = await this.put({ percentage, reason: 'test' });
    assert.equal(status, 200, JSON.stringify(body));
    return etag;
  }

  async status() {
    return (await fetch(`${this.adminUrl}/status`, { headers: this.authorized })).json();
  }

  async metrics() {
    return (await fetch(`${this.adminUrl}/metrics`, { headers: this.authorized })).text();
  }

  /** Changes the file as an editor that writes in place does, or as one that writes beside and renames. */
  editFile(change, { rename = false } = {}) {
    const text = change(readFileSync(this.configPath, 'utf8'));
    const target = rename ? `${this.configPath}.new` : this.configPath;
    writeFileSync(target, text);
    if (rename) renameSync(target, this.configPath);
  }

  log() {
    return readFileSync(this.child.logPath, 'utf8');
  }

  async stop() {
    if (!this.child.how) await keepPages(this, 'somebody');
    await keepCommands(this.configPath);
    const { code, signal } = await this.processes.end(this.child);
    if (existsSync(this.auditFile)) keep('audit', readFileSync(this.auditFile, 'utf8'));
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, `cutover ended badly after SIGTERM; it said last:\n${this.log().slice(-2000)}`);
  }
}
