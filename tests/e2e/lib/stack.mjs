// Both projects, started side by side in a few seconds, and stopped with everything they own.

import { Processes } from './processes.mjs';
import { startProject } from './project.mjs';

/** Starts OLD and NEW. Returns { old, new, processes, stop }; each project has url, anonKey, serviceKey, keys, databaseUrl. */
export async function startStack(options = {}) {
  const processes = new Processes();
  try {
    const [old, neu] = await Promise.all([startProject(processes, 'old', options), startProject(processes, 'new', options)]);
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
