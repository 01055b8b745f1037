// The processes and the temporary directory of one run, and the promise that nothing outlives it: on a normal end, on SIGINT or
// SIGTERM, on an error nobody caught, everything started here is stopped by its process id and the directory removed.

import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { placeFor } from './said.mjs';
import { until } from './until.mjs';

const STOP_SECONDS = 10;

export class Processes {
  constructor() {
    this.dir = mkdtempSync(join(tmpdir(), 'cutover-e2e-'));
    chmodSync(this.dir, 0o755); // PostgreSQL may run under another account and has to pass through
    this.children = [];
    this.closers = []; // what is stopped in another way than by a signal
    this.stopping = null;
    this.exitOnSignal = undefined; // the exit code after a signal, when it is an ordinary way to end; else 128 + signal
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
      process.once(signal, () => this.stop().finally(() => process.exit(this.exitOnSignal ?? 128 + constants.signals[signal])));
    }
    for (const event of ['uncaughtException', 'unhandledRejection']) {
      process.on(event, (error) => {
        if (this.stopping) return; // what is being taken away is missed by whoever used it
        console.error(error);
        this.stop().finally(() => process.exit(1));
      });
    }
    process.once('exit', () => this.killNow()); // the last resort, for process.exit() in the middle of things
  }

  /** Starts a program with its output in `<dir>/<name>.log`; that of the program under test goes where it is kept, in a run of the suite. */
  start(name, command, args, options = {}) {
    const logPath = placeFor(command, this.dir, name) ?? join(this.dir, `${name}.log`);
    const log = openSync(logPath, 'a');
    // Detached from the terminal, so that Ctrl-C reaches this process alone, which then stops the others in order.
    const child = spawn(command, args, { stdio: ['ignore', log, log], detached: true, ...options });
    child.logPath = logPath;
    child.label = name;
    child.began = [command, args, options];
    child.ended = new Promise((ended) => {
      child.once('exit', (code, signal) => ended({ code, signal }));
      child.once('error', (error) => ended({ code: -1, error }));
    });
    child.ended.then((how) => (child.how = how));
    this.children.push(child);
    return child;
  }

  /** Waits until `probe` holds; gives up at once, with the end of the log, when the program has ended. */
  async ready(child, probe, seconds = 30) {
    try {
      await until(`${child.label} to be ready`, () => {
        if (child.how) throw Object.assign(new Error(`${child.label} ended: ${JSON.stringify(child.how)}`), { final: true });
        return probe();
      }, { seconds });
    } catch (error) {
      error.message += `\n--- ${child.label} said last:\n${tail(child.logPath)}`;
      throw error;
    }
  }

  /** SIGTERM, then SIGKILL for one that does not listen. Returns how it ended. */
  async end(child) {
    if (!child.how) {
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_SECONDS * 1000);
      await child.ended;
      clearTimeout(timer);
    }
    this.children = this.children.filter((other) => other !== child);
    return child.ended;
  }

  /** Ends a program as the kernel does when memory is short. Returns a function that starts the same again, as a supervisor would. */
  async crash(child) {
    child.kill('SIGKILL');
    await child.ended;
    this.children = this.children.filter((other) => other !== child);
    return () => this.start(child.label, ...child.began);
  }

  /** The running program whose log has this name. */
  named(label) {
    const found = this.children.find((child) => child.label === label);
    if (!found) throw new Error(`no program ${label} among ${this.children.map((child) => child.label).join(', ')}`);
    return found;
  }

  onStop(closer) {
    this.closers.push(closer);
  }

  /** Stops everything, newest first, and removes the directory. */
  stop() {
    this.stopping ??= (async () => {
      await Promise.allSettled([...this.children].reverse().map((child) => this.end(child)));
      await Promise.allSettled(this.closers.map((close) => close()));
      this.closers = [];
      this.removeDir();
    })();
    return this.stopping;
  }

  killNow() {
    for (const child of this.children) if (!child.how) child.kill('SIGKILL');
    for (const close of this.closers) close.now?.();
    this.removeDir();
  }

  removeDir() {
    if (!process.env.CUTOVER_E2E_KEEP) rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

function tail(path, lines = 15) {
  return readFileSync(path, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
}
