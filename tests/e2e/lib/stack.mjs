// Both projects, started side by side in a few seconds, and stopped with everything they own.

import { es256, hs256, OTHER_SECRET } from './keys.mjs';
import { Processes } from './processes.mjs';
import { startProject } from './project.mjs';

/** How NEW's tokens may differ from OLD's, who signs with HS256 in all pairs; the default pair (`shared`) has one secret for both. In
 * the others a token of one project is refused by the other, and Cutover has to exchange it. */
export const PAIRS = {
  secrets: () => hs256(OTHER_SECRET),
  asymmetric: es256,
};

/** Starts a NEW for a pair other than `shared`. Its keys of the API differ from no other NEW's. */
export function startOtherNew(processes, pair, options = {}) {
  return startProject(processes, 'new', { ...options, signing: PAIRS[pair](), label: `new-${pair}` });
}

/** Starts OLD and NEW. Returns { old, new, processes, stop }; each project has url, anonKey, serviceKey, keys, signing, databaseUrl. */
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
