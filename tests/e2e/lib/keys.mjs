// The API keys of the two projects and the tokens of their users.
// OLD has legacy keys (JWTs), NEW has the opaque ones and still accepts its own legacy keys; both verify user tokens with the same
// secret (Cutover's token mode `shared`).

import { createHmac } from 'node:crypto';

export const JWT_SECRET = 'super-secret-jwt-token-with-at-least-32-characters-long';

const base64url = (value) => Buffer.from(value).toString('base64url');

export function signJwt(claims, secret = JWT_SECRET) {
  const head = base64url(JSON.stringify({ alg: 'HS256', typ: 'JWT' }));
  const body = base64url(JSON.stringify(claims));
  return `${head}.${body}.${createHmac('sha256', secret).update(`${head}.${body}`).digest('base64url')}`;
}

/** The token of a signed-in user, as the auth service would make it. */
export function userToken(sub, claims = {}) {
  const now = Math.floor(Date.now() / 1000);
  return signJwt({ sub, role: 'authenticated', aud: 'authenticated', iat: now, exp: now + 3600, ...claims });
}

const legacyKey = (ref, role) => signJwt({ iss: 'supabase', ref, role, iat: 1700000000, exp: 2100000000 });

/** anon and service: every key accepted, the preferred one first. */
export const KEYS = {
  old: {
    anon: [legacyKey('oldproject', 'anon')],
    service: [legacyKey('oldproject', 'service_role')],
  },
  new: {
    anon: ['sb_publishable_nEwPrOjEcTpUbLiShAbLe1_a1b2c3d4', legacyKey('newproject', 'anon')],
    service: ['sb_secret_nEwPrOjEcTsEcReTkEyOnLy1_e5f6a7b8', legacyKey('newproject', 'service_role')],
  },
};
