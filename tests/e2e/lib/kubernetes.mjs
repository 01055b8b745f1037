// The part of a Kubernetes API server that Cutover speaks: one ConfigMap, listed, watched, and patched with its resource version. Callers
// are told apart by their tokens, so that one of them can be cut off.

import { createServer } from 'node:http';
import { freePorts } from './ports.mjs';

export async function startKubernetes({ namespace = 'cutover', name = 'cutover-rollout', data }) {
  const [port] = await freePorts(1);
  const api = new KubernetesApi({ namespace, name, data });
  await new Promise((listening) => api.server.listen(port, '127.0.0.1', listening));
  return Object.assign(api, { url: `http://127.0.0.1:${port}` });
}

class KubernetesApi {
  revision = 1;
  cutOff = new Set(); // tokens
  watches = new Set(); // { token, response }
  server = createServer((request, response) => this.answer(request, response).catch(() => response.destroy()));

  constructor({ namespace, name, data }) {
    Object.assign(this, { namespace, name, data, annotations: {} });
  }

  get configMap() {
    const { namespace, name, annotations } = this;
    return { apiVersion: 'v1', kind: 'ConfigMap', metadata: { namespace, name, annotations, resourceVersion: String(this.revision) }, data: this.data };
  }

  async answer(request, response) {
    const token = request.headers.authorization?.replace(/^Bearer /, '');
    if (this.cutOff.has(token)) return request.socket.destroy();
    const { pathname, searchParams } = new URL(request.url, 'http://api');
    const all = `/api/v1/namespaces/${this.namespace}/configmaps`;
    if (pathname === all && request.method === 'GET') {
      // Rights to one name: list and watch are granted only when the selector names it.
      if (searchParams.get('fieldSelector') !== `metadata.name=${this.name}`) return refuse(response, 403, 'Forbidden');
      if (searchParams.get('watch') === 'true') return this.watch(response, token, searchParams);
      return send(response, 200, { apiVersion: 'v1', kind: 'ConfigMapList', metadata: { resourceVersion: String(this.revision) }, items: [this.configMap] });
    }
    if (pathname !== `${all}/${this.name}`) return refuse(response, 404, 'NotFound');
    if (request.method === 'PATCH') return this.patch(response, JSON.parse(Buffer.concat(await request.toArray())));
    return send(response, 200, this.configMap);
  }

  watch(response, token, searchParams) {
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const watch = { token, response };
    this.watches.add(watch);
    const over = setTimeout(() => response.end(), Number(searchParams.get('timeoutSeconds') ?? 60) * 1000);
    response.on('close', () => {
      clearTimeout(over);
      this.watches.delete(watch);
    });
    if (Number(searchParams.get('resourceVersion')) < this.revision) this.tell(watch);
  }

  tell({ response }) {
    response.write(`${JSON.stringify({ type: 'MODIFIED', object: this.configMap })}\n`);
  }

  patch(response, { metadata = {}, data = {} }) {
    if (metadata.resourceVersion && metadata.resourceVersion !== String(this.revision)) return refuse(response, 409, 'Conflict');
    this.data = merged(this.data, data);
    this.annotations = merged(this.annotations, metadata.annotations ?? {});
    this.revision++;
    send(response, 200, this.configMap);
    for (const watch of this.watches) this.tell(watch);
  }

  /** From now on this caller reaches nothing; its watch breaks off. */
  cut(token) {
    this.cutOff.add(token);
    for (const watch of this.watches) if (watch.token === token) watch.response.destroy();
  }

  mend(token) {
    this.cutOff.delete(token);
  }

  stop() {
    this.server.close();
    this.server.closeAllConnections();
  }
}

/** A JSON merge patch of flat objects: null takes away. */
function merged(object, changes) {
  return Object.fromEntries(Object.entries({ ...object, ...changes }).filter(([, value]) => value !== null));
}

function send(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function refuse(response, code, reason) {
  send(response, code, { apiVersion: 'v1', kind: 'Status', status: 'Failure', message: reason, reason, code });
}
