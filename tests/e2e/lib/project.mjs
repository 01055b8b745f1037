// One Supabase-compatible project: PostgreSQL, Supabase Lite (auth, storage), postrust (REST), Deno (functions), a gateway in front.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { JWT_SECRET, KEYS } from './keys.mjs';
import * as paths from './paths.mjs';
import { freePorts } from './ports.mjs';
import { startPostgres } from './postgres.mjs';
import { answers } from './until.mjs';

/** What each project exposes through REST; the first is the default of a request that names none. */
export const SCHEMAS = {
  old: ['public', 'app_demo'],
  new: ['public', 'security_service', 'vendors', 'ai_chat', 'shared_services', 'billing', 'analytics', 'marketplace', 'intelligence', 'app_demo'],
};

/** Starts the project `name` (old or new). `rest` says which server answers /rest/v1: `postrust` or `lite`. */
export async function startProject(processes, name, { rest = 'postrust' } = {}) {
  const [postgresPort, litePort, functionsPort, gatewayPort, ...restPorts] = await freePorts(4 + SCHEMAS[name].length + 1);
  const database = await startPostgres(processes, name, postgresPort);
  await database.file('roles.sql');
  await database.file('old.sql');
  if (name === 'new') await database.file('new.sql');
  await database.file('access.sql', { project: name });
  await database.file('rows.sql');

  const lite = startLite(processes, name, litePort, database.url);
  const postrust = startPostrusts(processes, name, restPorts, database.authenticatorUrl);
  const functions = startFunctions(processes, name, functionsPort);
  const ports = { lite: litePort, functions: functionsPort, postrust: Object.fromEntries(postrust.map(({ schema, port }) => [schema, port])) };
  const gateway = startGateway(processes, name, gatewayPort, rest, ports);

  await Promise.all([
    processes.ready(lite, () => answers(`http://127.0.0.1:${litePort}/auth/v1/health`)),
    ...postrust.map(({ child, port }) => processes.ready(child, () => answers(`http://127.0.0.1:${port}/rpc/which_project`))),
    processes.ready(functions, () => answers(`http://127.0.0.1:${functionsPort}/functions/v1/hello`)),
    processes.ready(gateway, () => answers(`http://127.0.0.1:${gatewayPort}/__e2e/requests`)),
  ]);
  await database.file('uid.sql');
  await database.file('storage.sql', { project: name });
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

// Workaround: with several schemas exposed, postrust takes a table of the same name in another of them for the target of an embed
// (300 PGRST201 for `orders?select=order_items(*)` where `public` holds views of both; 200 `[]` where PostgREST says PGRST200). So
// each schema has a server of its own, which cannot see the others, and `*` (all of them) answers for a schema that is not exposed.
function startPostrusts(processes, name, ports, databaseUrl) {
  return [...SCHEMAS[name], '*'].map((schema, index) => {
    const port = ports[index];
    const env = {
      PATH: process.env.PATH,
      PGRST_DB_URI: databaseUrl,
      PGRST_DB_POOL: '4',
      PGRST_DB_SCHEMAS: schema === '*' ? SCHEMAS[name].join(',') : schema,
      PGRST_DB_ANON_ROLE: 'anon',
      PGRST_DB_EXTRA_SEARCH_PATH: 'public,extensions',
      PGRST_JWT_SECRET: JWT_SECRET,
      PGRST_SERVER_HOST: '127.0.0.1',
      PGRST_SERVER_PORT: String(port),
      PGRST_COMPAT_MODE: 'true', // PostgREST's paths and error bodies
      RUST_LOG: 'warn',
    };
    const label = `postrust-${name}-${schema === '*' ? 'all' : schema}`;
    return { schema, port, child: processes.start(label, paths.postrust, [], { env, cwd: processes.dir }) };
  });
}

function startFunctions(processes, name, port) {
  const script = join(paths.E2E, 'lib', 'functions.ts');
  const env = { PATH: process.env.PATH, HOME: processes.dir, PROJECT: name, PORT: String(port), NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1' };
  return processes.start(`functions-${name}`, paths.deno(), ['run', '--no-remote', '--no-config', '--allow-net=127.0.0.1', '--allow-env', script], { env });
}

function startGateway(processes, name, port, rest, ports) {
  const [anon] = KEYS[name].anon;
  const [service] = KEYS[name].service;
  // Each project signs storage URLs with a key of its own. OLD says its uploads' Location as self-hosted storage does, NEW as hosted.
  const storage = { urlSigningKey: `url-signing-key-of-the-${name}-project`, tusDir: join(processes.dir, `tus-${name}`), tusPrefix: name === 'new' ? '/storage/v1' : '' };
  const config = { project: name, port, jwtSecret: JWT_SECRET, keys: KEYS[name], liteKeys: { anon, service }, rest, ports, ...storage };
  return processes.start(`gateway-${name}`, process.execPath, [join(paths.E2E, 'lib', 'gateway.mjs'), JSON.stringify(config)]);
}
