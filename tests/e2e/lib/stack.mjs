// Both projects, started side by side in a few seconds, and stopped with everything they own.

import { Processes } from './processes.mjs';
import { freePorts } from './ports.mjs';
import { startProject } from './project.mjs';

const PORTS_PER_PROJECT = 5;

/** Starts OLD and NEW. Returns { old, new, processes, stop }; each project has url, anonKey, serviceKey, keys, databaseUrl. */
export async function startStack(options = {}) {
  const processes = new Processes();
  try {
    const ports = await freePorts(2 * PORTS_PER_PROJECT);
    const [old, neu] = await Promise.all([
      startProject(processes, 'old', ports.slice(0, PORTS_PER_PROJECT), options),
      startProject(processes, 'new', ports.slice(PORTS_PER_PROJECT), options),
    ]);
    return { old, new: neu, processes, stop: () => processes.stop() };
  } catch (error) {
    await processes.stop();
    throw error;
  }
}

/** What the gateway of a project has seen since the last call of `forget`. */
export async function requestsSeen(project) {
  return (await fetch(`${project.url}/__e2e/requests`)).json();
}

export async function forget(project) {
  await fetch(`${project.url}/__e2e/requests`, { method: 'DELETE' });
}
