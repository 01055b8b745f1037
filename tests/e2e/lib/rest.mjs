// Raw requests, for tests that look at status lines and headers rather than at a client's idea of them.

import { request as httpRequest } from 'node:http';

/** A request to /rest/v1 as a user (or as a key alone). Returns status, headers, text and, where it is JSON, json. */
export async function rest(baseUrl, path, { key, token, method = 'GET', headers = {}, body } = {}) {
  const all = { ...(key && { apikey: key, authorization: `Bearer ${token ?? key}` }), ...(body !== undefined && { 'content-type': 'application/json' }), ...headers };
  const response = await fetch(`${baseUrl}/rest/v1${path}`, { method, headers: all, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, json: response.headers.get('content-type')?.includes('json') && text ? JSON.parse(text) : undefined };
}

/** A request whose path goes out byte for byte as written (fetch would tidy it). */
export function raw(baseUrl, path, { method = 'GET', headers = {}, body } = {}) {
  const { hostname, port } = new URL(baseUrl);
  return new Promise((resolve, reject) => {
    const request = httpRequest({ hostname, port, path, method, headers, agent: false }, async (response) => {
      const text = Buffer.concat(await response.toArray()).toString();
      resolve({ status: response.statusCode, headers: response.headers, rawHeaders: response.rawHeaders, text });
    });
    request.on('error', reject).end(body);
  });
}
