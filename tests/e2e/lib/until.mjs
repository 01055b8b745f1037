// Waiting for something to become true, by asking again and again, never by sleeping for a guessed time.

/** Asks `probe` until it returns something truthy (which is returned) or `seconds` have passed (then it throws, with the last fault). */
export async function until(what, probe, { seconds = 30, everyMs = 25 } = {}) {
  const end = performance.now() + seconds * 1000;
  let fault;
  for (;;) {
    try {
      const found = await probe();
      if (found) return found;
      fault = undefined;
    } catch (error) {
      if (error.final) throw error; // no use in asking again
      fault = error;
    }
    if (performance.now() > end) {
      throw new Error(`waited ${seconds} s for ${what}${fault ? `: ${fault.cause?.message ?? fault.message}` : ''}`);
    }
    await pause(everyMs);
  }
}

export const pause = (ms) => new Promise((over) => setTimeout(over, ms));

/** True when `url` answers at all with a status below 500. */
export async function answers(url, options) {
  const response = await fetch(url, { ...options, signal: AbortSignal.timeout(2000) });
  await response.arrayBuffer();
  return response.status < 500;
}
