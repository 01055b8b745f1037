// A PostgreSQL with pgvector, in the run's own directory: pg0 unpacks it, makes the cluster and starts it in about a second.

import { execFile, spawnSync } from 'node:child_process';
import { chmodSync, chownSync, copyFileSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import postgres from 'postgres';
import * as paths from './paths.mjs';
import { until } from './until.mjs';

const run = promisify(execFile);
const DATABASE = 'app';
/** What a project has before anything is restored into it. */
const PLATFORM = ['auth', 'storage', 'extensions', 'graphql*', 'realtime', 'vault'];

/** Starts one cluster; returns its URL and a connection for set-up statements (one per cluster, closed with it). */
export async function startPostgres(processes, name, port) {
  const home = join(processes.dir, `postgres-${name}`); // pg0 keeps everything below $HOME; one home each, nothing shared
  mkdirSync(home);
  const program = join(home, 'pg0'); // a copy, because the cache may lie where another account cannot read
  copyFileSync(paths.pg0(), program);
  chmodSync(program, 0o755);
  const account = unprivileged();
  if (account) chownSync(home, account.uid, account.gid);

  const options = { cwd: home, env: { PATH: process.env.PATH, HOME: home, LC_ALL: 'C.UTF-8' }, ...account };
  const settings = { max_connections: 100, shared_buffers: '64MB', wal_level: 'logical', timezone: 'UTC' };
  const config = Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]);

  const stop = () => run(program, ['drop', '--name', name, '--force'], options);
  stop.now = () => spawnSync(program, ['drop', '--name', name, '--force'], options);
  processes.onStop(stop);
  const start = () => run(program, ['start', '--name', name, '--port', String(port), '--database', DATABASE, ...config], options);
  await start();

  /** kill -9 of the postmaster; its children notice and end by themselves. Returns a function that starts the cluster again. */
  const crash = async () => {
    const [pid] = readFileSync(join(home, '.pg0', 'instances', name, 'data', 'postmaster.pid'), 'utf8').split('\n');
    process.kill(Number(pid), 'SIGKILL');
    return () => until('PostgreSQL to start again', () => start().then(() => true), { everyMs: 200 });
  };
  return { ...database(home, port, DATABASE), crash };
}

/** One database of a cluster, with a connection for set-up statements. */
function database(home, port, name, role = 'postgres') {
  const url = `postgres://${role}:${role}@127.0.0.1:${port}/${name}`;
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  return {
    url,
    name,
    authenticatorUrl: `postgres://authenticator:authenticator@127.0.0.1:${port}/${name}`,
    sql,
    /** Runs one of the files in sql/, with {{name}} placeholders filled in. */
    async file(fileName, values = {}) {
      const text = readFileSync(join(paths.E2E, 'sql', fileName), 'utf8');
      await sql.unsafe(text.replace(/\{\{(\w+)\}\}/g, (_, key) => values[key])).simple();
    },
    /** Makes another database in the cluster. */
    async another(other, template = 'template0') {
      await sql.unsafe(`create database "${other}" template "${template}"`);
      return database(home, port, other);
    },
    /** The same database as another role, whose password is its name. */
    as: (other) => database(home, port, name, other),
    /** Runs one of PostgreSQL's own programs, of the server's version (pg0 unpacked them). */
    async program(program, ...args) {
      const installations = join(home, '.pg0', 'installation');
      const [version] = readdirSync(installations);
      return run(join(installations, version, 'bin', program), [...args, '--dbname', url], { maxBuffer: 1 << 26 });
    },
    /** Everything of the application: what `supabase db dump` takes, in one file. Schemas that each project has of its own stay out. */
    async dump(file, ...more) {
      await this.program('pg_dump', ...PLATFORM.flatMap((schema) => ['--exclude-schema', schema]), '--file', file, ...more);
    },
    /** Restores a dump, stopping at the first error. */
    async restore(file) {
      await this.program('psql', '--no-psqlrc', '--quiet', '--set', 'ON_ERROR_STOP=1', '--file', file);
    },
    close: () => sql.end({ timeout: 1 }),
  };
}

/** PostgreSQL does not run as root: then the account that setup.sh made. */
function unprivileged() {
  if (process.getuid() !== 0) return undefined;
  const line = readFileSync('/etc/passwd', 'utf8').split('\n').find((entry) => entry.startsWith('cutover-e2e:'));
  if (!line) throw new Error('account cutover-e2e is missing: run tests/e2e/setup.sh');
  const [, , uid, gid] = line.split(':');
  return { uid: Number(uid), gid: Number(gid) };
}
