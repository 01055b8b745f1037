// Both projects, started side by side in a few seconds, and stopped with everything they own.

import { join } from 'node:path';
import { es256, hs256, OTHER_SECRET } from './keys.mjs';
import { Processes } from './processes.mjs';
import { buildNew, buildOld, startProject } from './project.mjs';

/** How NEW's tokens may differ from OLD's, who signs with HS256 in all pairs; the default pair (`shared`) has one secret for both. In
 * the others a token of one project is refused by the other, and Cutover has to exchange it. */
export const PAIRS = {
  secrets: () => hs256(OTHER_SECRET),
  asymmetric: es256,
};

/** Starts a NEW for a pair other than `shared`, from the dump that the stack's was made of. Its keys of the API differ from no other NEW's. */
export function startOtherNew(processes, pair, old, options = {}) {
  return startProject(processes, 'new', buildNew(processes, old), { ...options, signing: PAIRS[pair](), label: `new-${pair}` });
}

/** Starts OLD and NEW. Returns { old, new, processes, stop }; each project has url, anonKey, serviceKey, keys, signing, databaseUrl; OLD its dump. */
export async function startStack(options = {}) {
  const processes = new Processes();
  try {
    const dump = join(processes.dir, 'old.dump.sql');
    const built = Promise.withResolvers();
    const [old, neu] = await Promise.all([
      startProject(processes, 'old', buildOld(dump, built.resolve), options).catch((error) => {
        built.reject(error); // NEW waits for it
        throw error;
      }),
      startProject(processes, 'new', buildNew(processes, built.promise), options),
    ]);
    return { old: { ...old, dump }, new: neu, processes, stop: () => processes.stop() };
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
