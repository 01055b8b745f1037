// Resumable uploads, which Lite does not have: the library that hosted Supabase Storage itself uses (@tus/server), with Supabase's
// own rules around it. An upload lives in files of this project only; when complete it becomes an object in Lite.
//   POST /upload/resumable                     the user's token must allow the upload; Upload-Metadata names bucket and object
//   POST /upload/resumable/sign                the same, with a signed upload token in `x-signature` instead of a user
//   HEAD, PATCH, DELETE …/<id>, OPTIONS        HEAD and OPTIONS need no token

import { FileStore } from '@tus/file-store';
import { Server } from '@tus/server';
import { randomUUID } from 'node:crypto';
import { StorageError, subject } from './storage.mjs';

const PATH = '/upload/resumable';
const SIGNED = `${PATH}/sign`;
const LIFETIME_MS = 24 * 3600 * 1000;

/** `lite` does the asking and the signatures; `tusDir` holds the uploads; `tusPrefix` see `setPrefix`. */
export function resumableUploads(lite, { tusDir, tusPrefix = '' }) {
  let prefix = tusPrefix;
  const store = new FileStore({ directory: tusDir, expirationPeriodInMilliseconds: LIFETIME_MS });
  const server = new Server({
    path: PATH,
    datastore: store,
    disableTerminationForFinishedUploads: true,
    respectForwardedHeaders: true,
    // As storage does: bucket, object and a version in base64url, and no trace of the project.
    namingFunction: (_, metadata) => {
      if (!metadata?.bucketName || !metadata.objectName) throw { status_code: 400, body: 'Metadata header is required' };
      return Buffer.from(`${metadata.bucketName}/${metadata.objectName}/${randomUUID()}`).toString('base64url');
    },
    generateUrl: (web, { proto, host, id }) => `${proto}://${host}${prefix}${nodeRequest(web).url.startsWith(SIGNED) ? SIGNED : PATH}/${id}`,
    getFileIdFromRequest: (_, id) => (['resumable', 'sign'].includes(id) ? undefined : id),
    onIncomingRequest,
    // A number of seconds becomes a header's value, as hosted makes it.
    onUploadCreate: async (_, { metadata }) => ({ metadata: { ...metadata, cacheControl: /^-?\d+$/.test(metadata.cacheControl) ? `max-age=${metadata.cacheControl}` : 'no-cache' } }),
    onUploadFinish,
    // Storage answers an error of its own here with the inner status as the outer one, and plain text.
    onResponseError: (_, error) => (error instanceof StorageError ? { status_code: Number(error.body.statusCode), body: error.body.message } : undefined),
  });

  /** Every request but HEAD and OPTIONS is judged anew: a signature for this object, or a user who may upload it. */
  async function onIncomingRequest(web, id) {
    const request = nodeRequest(web);
    const url = named(id);
    if (request.url.startsWith(SIGNED)) {
      if (!request.headers['x-signature']) throw new StorageError(400, 'InvalidSignature', 'Missing x-signature header');
      const { owner, upsert } = lite.verifyUrl(request.headers['x-signature'], url, 'upload');
      request.upload = { owner, upsert };
      return;
    }
    if (['HEAD', 'OPTIONS'].includes(request.method)) return;
    const headers = request.liteHeaders;
    if (!headers.authorization) throw new StorageError(400, 'InvalidRequest', "headers must have required property 'authorization'");
    // Lite judges the making of a signed upload URL by the same policies as the upload itself, and changes nothing.
    await lite.askJson('POST', `/object/upload/sign/${encodeURI(url)}`, headers);
    request.upload = { owner: subject(headers), upsert: headers['x-upsert'] === 'true' };
  }

  async function onUploadFinish(web, upload) {
    const { owner, upsert } = nodeRequest(web).upload;
    const { contentType, cacheControl } = upload.metadata;
    const headers = { ...lite.actingFor(owner), 'x-upsert': String(upsert), 'content-type': contentType || 'application/octet-stream', 'cache-control': cacheControl };
    const answer = await lite.ask('POST', `/object/${encodeURI(named(upload.id))}`, headers, store.read(upload.id));
    const text = Buffer.concat(await answer.toArray()).toString();
    if (answer.statusCode !== 200) throw { status_code: answer.statusCode, body: text };
    return { headers: { 'Tus-Complete': '1' } };
  }

  return {
    handle(request, response, headers) {
      request.liteHeaders = headers;
      request.url = request.url.replace(/^\/storage\/v1/, ''); // the gateway strips it before storage sees it
      return server.handle(request, response);
    },

    /**
     * What the path in Location begins with. Storage says `/upload/resumable/…` as it sees itself ('', a self-hosted project), or what
     * its gateway tells it in X-Forwarded-Prefix ('/storage/v1', a hosted one).
     */
    setPrefix(value) {
      prefix = value;
    },
  };
}

const nodeRequest = (web) => web.runtime.node.req;

/** `bucket/object` of an upload's id. */
const named = (id) => Buffer.from(id, 'base64url').toString().replace(/\/[^/]*$/, '');
