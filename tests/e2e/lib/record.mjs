// Writes down what clients and the proxy say to each other, byte for byte: what fuzz/corpus.py grows its corpora from. On when
// CUTOVER_E2E_RECORD names a folder; each connection is two files there, `.up` and `.down`.

import { createWriteStream, mkdirSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';

const folder = process.env.CUTOVER_E2E_RECORD;
let connections = 0;

/** The port that clients are to use: the proxy's own, or one that leads there and is listened in on. */
export async function listenedPort(port) {
  if (!folder) return port;
  mkdirSync(folder, { recursive: true });
  const server = createServer((client) => {
    const name = join(folder, `${process.pid}-${++connections}`);
    const proxy = connect(port, '127.0.0.1');
    for (const [from, to, direction] of [[client, proxy, 'up'], [proxy, client, 'down']]) {
      const file = createWriteStream(`${name}.${direction}`);
      from.on('data', (bytes) => file.write(bytes));
      from.on('close', () => (file.end(), to.destroy()));
      from.on('error', () => to.destroy());
      from.pipe(to);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  server.unref();
  return server.address().port;
}
