// Which bucket is a user in? The second, independent implementation of the formula in docs (the proxy's is the first, SQL the third):
// everything the suite expects of a side comes from here, never from the proxy.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

export const SALT = 'onasis-core-v2';

/** 0…9999: the first four bytes of sha256(salt:key), scaled. */
export function bucket(key, salt = SALT) {
  const n = createHash('sha256').update(`${salt}:${key}`, 'utf8').digest().readUInt32BE(0);
  return Math.floor((n * 10000) / 2 ** 32);
}

/** 0…99: what `hash = "md5"` gives, compatible with the TypeScript helper that some clients embed. */
export function bucketMd5(key) {
  return parseInt(createHash('md5').update(key, 'utf8').digest('hex').slice(0, 8), 16) % 100;
}

export function side(key, percentage, salt = SALT) {
  return bucket(key, salt) < percentage * 100 ? 'new' : 'old';
}

/** The published vectors: key, bucket with salt `cutover`, bucket with salt `onasis-core-v2`, md5. */
export const VECTORS = [
  ['5d1c3f0e-7d0e-4c35-9a53-0c9e2e6f1b11', 8885, 711, 59],
  ['00000000-0000-0000-0000-000000000000', 719, 3265, 50],
  ['8f14e45f-ceea-467f-a9b4-1d2f3c4b5a69', 1686, 5739, 9],
  ['ada', 3375, 5300, 7],
  ['Ünïcødé-Ω', 8894, 429, 5],
];

for (const [key, withDefault, withOnasis, md5] of VECTORS) {
  assert.deepEqual([bucket(key, 'cutover'), bucket(key, SALT), bucketMd5(key)], [withDefault, withOnasis, md5], `vector ${key}`);
}
