// One Supabase-compatible project: PostgreSQL, Supabase Lite (auth, storage), postrust (REST), Deno (functions), a gateway in front.

import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { hs256, JWT_SECRET, jwks, projectKeys } from './keys.mjs';
import * as paths from './paths.mjs';
import { plan } from './plan.mjs';
import { freePorts } from './ports.mjs';
import { startPostgres } from './postgres.mjs';
import { secret } from './said.mjs';
import { answers } from './until.mjs';

/** What each project exposes through REST; the first is the default of a request that names none. */
export const SCHEMAS = {
  old: ['public', 'app_demo'],
  new: ['public', 'security_service', 'vendors', 'ai_chat', 'shared_services', 'billing', 'analytics', 'marketplace', 'intelligence', 'app_demo'],
};

/** Starts the project `name` (old or new). `rest` says which server answers /rest/v1: `postrust` or `lite`; `signing` is the key that
 * it verifies users' tokens with (see keys.mjs); `label` tells several projects of one name apart. `build(database)` fills its database. */
export async function startProject(processes, name, build, { rest = 'postrust', signing = hs256(JWT_SECRET), label = name } = {}) {
  const keys = projectKeys(name, signing);
  const liteSecret = signing.secret ?? randomBytes(32).toString('hex'); // Lite knows HS256 only
  const [postgresPort, litePort, functionsPort, gatewayPort, ...restPorts] = await freePorts(4 + SCHEMAS[name].length + 1);
  const database = await startPostgres(processes, label, postgresPort);
  await database.file('roles.sql');
  await build(database);

  const lite = startLite(processes, { name, label, port: litePort, databaseUrl: database.url, secret: liteSecret, keys });
  const postrust = startPostrusts(processes, { name, label, ports: restPorts, databaseUrl: database.authenticatorUrl, signing });
  const functions = startFunctions(processes, { name, label, port: functionsPort });
  const ports = { lite: litePort, functions: functionsPort, postrust: Object.fromEntries(postrust.map(({ schema, port }) => [schema, port])) };
  const gateway = startGateway(processes, { project: name, port: gatewayPort, rest, ports, keys, signing, jwtSecret: liteSecret, databaseUrl: database.url }, label);

  await Promise.all([
    processes.ready(lite, () => answers(`http://127.0.0.1:${litePort}/auth/v1/health`)),
    ...postrust.map(({ child, port }) => processes.ready(child, () => answers(`http://127.0.0.1:${port}/rpc/which_project`))),
    processes.ready(functions, () => answers(`http://127.0.0.1:${functionsPort}/functions/v1/hello`)),
    processes.ready(gateway, () => answers(`http://127.0.0.1:${gatewayPort}/__e2e/requests`)),
  ]);
  await database.file('uid.sql');
  await database.file('storage.sql', { project: name });
  await database.close();

  secret(keys.anon, keys.service, signing.secret, signing.jwk?.d);
  const { anon: [anonKey], service: [serviceKey] } = keys;
  return { name, url: `http://127.0.0.1:${gatewayPort}`, anonKey, serviceKey, keys, signing, databaseUrl: database.url, crashDatabase: database.crash };
}

/** OLD, made by hand; its dump is what NEW is built from, and `made` is told of it before OLD's services are up. */
export function buildOld(dump, made) {
  return async (database) => {
    for (const file of ['old.sql', 'access.sql', 'rows.sql']) await database.file(file);
    await database.dump(dump);
    made({ databaseUrl: database.url, dump });
  };
}

/** NEW, as an operator builds it: OLD's dump into an empty project, then `cutover plan --apply`. `old` is or will be { databaseUrl, dump }. */
export function buildNew(processes, old) {
  return async (database) => {
    const { databaseUrl, dump } = await old;
    await database.restore(dump);
    await plan(processes, { old: databaseUrl, new: database.url }, ['--apply', '--yes']);
    await database.file('new-extra.sql');
  };
}

function startLite(processes, { name, label, port, databaseUrl, secret, keys }) {
  const cwd = join(processes.dir, `lite-${label}`);
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
jwt_secret = "${secret}"
publishable_key = "${keys.anon[0]}"
secret_key = "${keys.service[0]}"
[auth.email]
enable_confirmations = false
[storage]
enabled = true
[studio]
enabled = false
`;
  writeFileSync(join(cwd, 'supabase', 'config.toml'), config);
  const env = { ...process.env, LITE_TELEMETRY: '0', DO_NOT_TRACK: '1', EXPERIMENTAL_STORAGE: '1' };
  return processes.start(`lite-${label}`, process.execPath, [paths.lite, 'start', '--no-admin'], { cwd, env });
}

// Workaround: with several schemas exposed, postrust takes a table of the same name in another of them for the target of an embed
// (300 PGRST201 for `orders?select=order_items(*)` where `public` holds views of both; 200 `[]` where PostgREST says PGRST200). So
// each schema has a server of its own, which cannot see the others, and `*` (all of them) answers for a schema that is not exposed.
function startPostrusts(processes, { name, label, ports, databaseUrl, signing }) {
  return [...SCHEMAS[name], '*'].map((schema, index) => {
    const port = ports[index];
    const env = {
      PATH: process.env.PATH,
      PGRST_DB_URI: databaseUrl,
      PGRST_DB_POOL: '4',
      PGRST_DB_SCHEMAS: schema === '*' ? SCHEMAS[name].join(',') : schema,
      PGRST_DB_ANON_ROLE: 'anon',
      PGRST_DB_EXTRA_SEARCH_PATH: 'public,extensions',
      PGRST_JWT_SECRET: signing.secret ?? JSON.stringify(jwks(signing)),
      PGRST_SERVER_HOST: '127.0.0.1',
      PGRST_SERVER_PORT: String(port),
      PGRST_COMPAT_MODE: 'true', // PostgREST's paths and error bodies
      RUST_LOG: 'warn',
    };
    const log = `postrust-${label}-${schema === '*' ? 'all' : schema}`;
    return { schema, port, child: processes.start(log, paths.postrust, [], { env, cwd: processes.dir }) };
  });
}

function startFunctions(processes, { name, label, port }) {
  const script = join(paths.E2E, 'lib', 'functions.ts');
  const env = { PATH: process.env.PATH, HOME: processes.dir, PROJECT: name, PORT: String(port), NO_COLOR: '1', DENO_NO_UPDATE_CHECK: '1' };
  return processes.start(`functions-${label}`, paths.deno(), ['run', '--no-remote', '--no-config', '--allow-net=127.0.0.1', '--allow-env', script], { env });
}

function startGateway(processes, config, label) {
  const { anon: [anon], service: [service] } = config.keys;
  // Each project signs storage URLs with a key of its own. OLD says its uploads' Location as self-hosted storage does, NEW as hosted.
  const storage = { urlSigningKey: `url-signing-key-of-the-${label}-project`, tusDir: join(processes.dir, `tus-${label}`), tusPrefix: config.project === 'new' ? '/storage/v1' : '' };
  const all = { ...config, ...storage, liteKeys: { anon, service } };
  return processes.start(`gateway-${label}`, process.execPath, [join(paths.E2E, 'lib', 'gateway.mjs'), JSON.stringify(all)]);
}
