// One Supabase-compatible project: PostgreSQL, Supabase Lite (auth, storage), postrust (REST), Deno (functions), a gateway in front.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { JWT_SECRET, KEYS } from './keys.mjs';
import * as paths from './paths.mjs';
import { startPostgres } from './postgres.mjs';
import { answers } from './until.mjs';

/** What each project exposes through REST; the first is the default of a request that names none. */
export const SCHEMAS = {
  old: ['public', 'app_demo'],
  new: ['public', 'security_service', 'vendors', 'ai_chat', 'shared_services', 'billing', 'analytics', 'marketplace', 'intelligence', 'app_demo'],
};

/** Starts the project `name` (old or new) on six ports. `rest` says which server answers /rest/v1: `postrust` or `lite`. */
export async function startProject(processes, name, ports, { rest = 'postrust' } = {}) {
  const [postgresPort, litePort, postrustPort, functionsPort, gatewayPort] = ports;
  const database = await startPostgres(processes, name, postgresPort);
  await database.file('roles.sql');
  await database.file(`${name}.sql`);
  await database.file('access.sql', { project: name });
  await database.file('rows.sql');

  const lite = startLite(processes, name, litePort, database.url);
  const postrust = startPostrust(processes, name, postrustPort, database.authenticatorUrl);
  const functions = startFunctions(processes, name, functionsPort);
  const gateway = startGateway(processes, name, gatewayPort, rest, { lite: litePort, postrust: postrustPort, functions: functionsPort });

  await Promise.all([
    processes.ready(lite, () => answers(`http://127.0.0.1:${litePort}/auth/v1/health`)),
    processes.ready(postrust, () => answers(`http://127.0.0.1:${postrustPort}/rpc/which_project`)),
    processes.ready(functions, () => answers(`http://127.0.0.1:${functionsPort}/functions/v1/hello`)),
    processes.ready(gateway, () => answers(`http://127.0.0.1:${gatewayPort}/__e2e/requests`)),
  ]);
  await database.file('uid.sql');
  await database.file('storage.sql');
  await database.close();

  const [anonKey] = KEYS[name].anon;
  const [serviceKey] = KEYS[name].service;
  return { name, url: `http://127.0.0.1:${gatewayPort}`, anonKey, serviceKey, keys: KEYS[name], databaseUrl: database.url };
}

function startLite(processes, name, port, databaseUrl) {
  const cwd = join(processes.dir, `lite-${name}`);
  mkdirSync(join(cwd, 'supabase'), { recursive: true });
  const config = `
[api]
port = ${port}
schemas = ${JSON.stringify(SCHEMAS[name])}
[db]
driver = "postgres"
url = "${databaseUrl}"
[auth]
enabled = true
jwt_secret = "${JWT_SECRET}"
publishable_key = "${KEYS[name].anon[0]}"
secret_key = "${KEYS[name].service[0]}"
[auth.email]
enable_confirmations = false
[storage]
enabled = true
[studio]
enabled = false
`;
  writeFileSync(join(cwd, 'supabase', 'config.toml'), config);
  const env = { ...process.env, LITE_TELEMETRY: '0', DO_NOT_TRACK: '1', EXPERIMENTAL_STORAGE: '1' };
  return processes.start(`lite-${name}`, process.execPath, [paths.lite, 'start', '--no-admin'], { cwd, env });
}

function startPostrust(processes, name, port, databaseUrl) {
  const env = {
    PATH: process.env.PATH,
    PGRST_DB_URI: databaseUrl,
    PGRST_DB_SCHEMAS: SCHEMAS[name].join(','),
    PGRST_DB_ANON_ROLE: 'anon',
    PGRST_DB_EXTRA_SEARCH_PATH: 'public,extensions',
    PGRST_JWT_SECRET: JWT_SECRET,
    PGRST_SERVER_HOST: '127.0.0.1',
    PGRST_SERVER_PORT: String(port),
    PGRST_COMPAT_MODE: 'true', // PostgREST's paths and error bodies
    RUST_LOG: 'warn',
  };
  return processes.start(`postrust-${name}`, paths.postrust, [], { env, cwd: processes.dir });
}

function startFunctions(processes, name, port) {
  const script = join(paths.E2E, 'lib', 'functions.ts');
  const env = { PATH: process.env.PATH, HOME: processes.dir, PROJECT: name, PORT: String(port), NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1' };
  return processes.start(`functions-${name}`, paths.deno(), ['run', '--no-remote', '--no-config', '--allow-net=127.0.0.1', '--allow-env', script], { env });
}

function startGateway(processes, name, port, rest, ports) {
  const [anon] = KEYS[name].anon;
  const [service] = KEYS[name].service;
  const config = { project: name, port, jwtSecret: JWT_SECRET, keys: KEYS[name], liteKeys: { anon, service }, rest, ports };
  return processes.start(`gateway-${name}`, process.execPath, [join(paths.E2E, 'lib', 'gateway.mjs'), JSON.stringify(config)]);
}
