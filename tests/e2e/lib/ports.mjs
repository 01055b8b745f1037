// Which ports are free? Chosen below 32768, where the kernel's ephemeral range begins, so that no outgoing connection of the
// tests can take one between the choice and the bind.

import { createServer } from 'node:net';

const LOWEST = 12000;
const HIGHEST = 32000;

let next = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST)); // goes on from call to call: no port is given out twice

/** `count` different ports of 127.0.0.1 that could be bound just now. */
export async function freePorts(count) {
  const held = [];
  for (let tries = 0; held.length < count && tries < 2000; tries++) {
    next = next >= HIGHEST ? LOWEST : next + 1;
    const port = next;
    const listener = await listen(port);
    if (listener) held.push({ port, listener }); // held until all are chosen: two of one call never collide
  }
  if (held.length < count) throw new Error(`found only ${held.length} of ${count} free ports between ${LOWEST} and ${HIGHEST}`);
  await Promise.all(held.map(({ listener }) => new Promise((closed) => listener.close(closed))));
  return held.map(({ port }) => port);
}

/** The port itself if it is free, else another one. For a program that would rather have a port a person can remember. */
export async function preferPort(port) {
  const listener = await listen(port);
  if (!listener) return (await freePorts(1))[0];
  await new Promise((closed) => listener.close(closed));
  return port;
}

function listen(port) {
  return new Promise((resolve) => {
    const listener = createServer();
    listener.once('error', () => resolve(null));
    listener.listen(port, '127.0.0.1', () => resolve(listener));
  });
}
