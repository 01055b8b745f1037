// The API keys of the projects, and the tokens of their users: how they are signed and how a project verifies them.
// OLD has legacy keys (JWTs), NEW has the opaque ones. In the ordinary pair both verify user tokens with the same secret (Cutover's
// token mode `shared`); the variants of stack.mjs give NEW a key of its own.

import { createHmac, createPrivateKey, createPublicKey, generateKeyPairSync, randomUUID, sign, timingSafeEqual, verify } from 'node:crypto';

import { secret } from './said.mjs';

export const JWT_SECRET = 'super-secret-jwt-token-with-at-least-32-characters-long';
export const OTHER_SECRET = 'another-secret-of-the-new-project-with-more-than-32-characters';

const base64url = (value) => Buffer.from(value).toString('base64url');

/** How a project signs: { alg: 'HS256', secret } or { alg: 'ES256', jwk } with a private JWK that names its kid. */
export const hs256 = (secret) => ({ alg: 'HS256', secret });

/** A new ES256 key with a kid of its own, as a project that has migrated to signing keys holds one. */
export function es256() {
  const jwk = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });
  return { alg: 'ES256', jwk: { ...jwk, alg: 'ES256', use: 'sig', kid: randomUUID() } };
}

/** What /auth/v1/.well-known/jwks.json shows: never a secret, so nothing for HS256. */
export function jwks(signing) {
  if (signing.alg === 'HS256') return { keys: [] };
  const { d, ...open } = signing.jwk;
  return { keys: [{ ...open, key_ops: ['verify'] }] };
}

/** A JWT with these claims. `signing` may be a plain HS256 secret. */
export function signJwt(claims, signing = JWT_SECRET) {
  const key = typeof signing === 'string' ? hs256(signing) : signing;
  const head = { alg: key.alg, typ: 'JWT', ...(key.jwk && { kid: key.jwk.kid }) };
  const text = `${base64url(JSON.stringify(head))}.${base64url(JSON.stringify(claims))}`;
  const token = `${text}.${signature(key, text)}`;
  secret(token);
  return token;
}

function signature({ alg, secret, jwk }, text) {
  if (alg === 'HS256') return createHmac('sha256', secret).update(text).digest('base64url');
  return sign('sha256', Buffer.from(text), { key: createPrivateKey({ key: jwk, format: 'jwk' }), dsaEncoding: 'ieee-p1363' }).toString('base64url');
}

/** Why a token was refused, in the words of Supabase Realtime (its join reply is `code: message`). */
export class TokenFault extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** The claims of a token that this project's own key has signed and whose time has not passed; else throws a TokenFault. */
export function verifyJwt(token, signing, now = Math.floor(Date.now() / 1000)) {
  const [head, claims] = parts(token);
  if (head.alg !== signing.alg || (signing.jwk && head.kid !== signing.jwk.kid)) {
    const kid = head.kid ? ` for key ID (kid) ${JSON.stringify(head.kid)}` : '';
    throw new TokenFault('JwtSignerError', `Failed to generate JWT signer${kid}, check your JWT secret or JWKS configuration`);
  }
  if (!signed(token, signing)) throw new TokenFault('JwtSignatureError', 'Failed to validate JWT signature');
  if (typeof claims.exp !== 'number' || claims.role === undefined) throw new TokenFault('InvalidJWTToken', 'Fields `role` and `exp` are required in JWT');
  if (claims.exp <= now) throw new TokenFault('InvalidJWTToken', `Token has expired ${now - claims.exp} seconds ago`);
  return claims;
}

/** The claims of a token whoever signed it, for tests that look at what was sent. */
export const claimsOf = (token) => parts(token)[1];

function parts(token) {
  try {
    const [head, body, mark, more] = String(token).split('.');
    if (!mark || more !== undefined) throw new Error('not three parts');
    const decoded = [head, body].map((part) => JSON.parse(Buffer.from(part, 'base64url')));
    if (decoded.every((part) => part && typeof part === 'object')) return decoded;
  } catch {
    // told below
  }
  throw new TokenFault('MalformedJWT', 'The token provided is not a valid JWT');
}

function signed(token, signing) {
  const at = token.lastIndexOf('.');
  const [text, mark] = [token.slice(0, at), Buffer.from(token.slice(at + 1), 'base64url')];
  if (signing.alg === 'HS256') {
    const expected = Buffer.from(signature(signing, text), 'base64url');
    return expected.length === mark.length && timingSafeEqual(expected, mark);
  }
  const key = createPublicKey({ key: jwks(signing).keys[0], format: 'jwk' });
  return verify('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' }, mark);
}

/** The token of a signed-in user, as the auth service would make it. */
export function userToken(sub, claims = {}, signing = JWT_SECRET) {
  const now = Math.floor(Date.now() / 1000);
  return signJwt({ sub, role: 'authenticated', aud: 'authenticated', iat: now, exp: now + 3600, ...claims }, signing);
}

const legacyKey = (ref, role, signing) => signJwt({ iss: 'supabase', ref, role, iat: 1700000000, exp: 2100000000 }, signing);

/** anon and service: every key that the project accepts, the preferred one first. A project that signs with ES256 has no legacy keys. */
export function projectKeys(name, signing) {
  const legacy = (role) => (signing.alg === 'HS256' ? [legacyKey(`${name}project`, role, signing)] : []);
  if (name === 'old') return { anon: legacy('anon'), service: legacy('service_role') };
  return {
    anon: ['sb_publishable_nEwPrOjEcTpUbLiShAbLe1_a1b2c3d4', ...legacy('anon')],
    service: ['sb_secret_nEwPrOjEcTsEcReTkEyOnLy1_e5f6a7b8', ...legacy('service_role')],
  };
}
