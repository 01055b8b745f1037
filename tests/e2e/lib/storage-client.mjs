// What the storage tests share: a client that knows who served it, a resumable upload, and the proof that bytes are the same.

import { createClient } from '@supabase/supabase-js';
import { createHash } from 'node:crypto';
import { Upload } from 'tus-js-client';

export const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

/** supabase-js as a user. `served` says which project answered each request since it was last emptied, as `METHOD project`. */
export function storageClient(url, key, token) {
  const served = [];
  const watched = async (input, init) => {
    const response = await fetch(input, init);
    served.push(`${init?.method ?? 'GET'} ${response.headers.get('x-e2e-project')}`);
    return response;
  };
  return { storage: createClient(url, key, { accessToken: async () => token, global: { fetch: watched } }).storage, served };
}

/** The names of all objects in a project's bucket that belong to a user, as the project itself calls them. */
export async function objectsOf(project, bucket, user) {
  const { storage } = createClient(project.url, project.serviceKey, { auth: { persistSession: false } });
  const { data, error } = await storage.from(bucket).listV2({});
  if (error) throw error;
  return data.objects.map(({ name }) => name).filter((name) => name.includes(user.id));
}

/**
 * Starts an upload with tus-js-client, set up as Supabase's documentation says. `pauseAfter` stops it once the server has that many
 * bytes; `uploadUrl` goes on with one. Returns { paused, finished, upload }: promises of the upload's URL.
 */
export function resumable({ url, headers, bucket, path, bytes, type = 'application/octet-stream', chunkSize = Infinity, pauseAfter = Infinity, uploadUrl = null, signed = false }) {
  let upload;
  const stopped = Promise.withResolvers();
  const finished = new Promise((resolve, reject) => {
    upload = new Upload(bytes, {
      endpoint: `${url}/storage/v1/upload/resumable${signed ? '/sign' : ''}`,
      uploadUrl,
      headers,
      chunkSize,
      uploadSize: bytes.length,
      retryDelays: null,
      uploadDataDuringCreation: true,
      removeFingerprintOnSuccess: true,
      metadata: { bucketName: bucket, objectName: path, contentType: type, cacheControl: '3600' },
      onChunkComplete: async (size, accepted) => {
        if (accepted < pauseAfter || accepted === bytes.length) return;
        await upload.abort(); // the next chunk is not sent; the upload stays on the server
        stopped.resolve(upload.url);
      },
      onSuccess: () => resolve(upload.url),
      onError: reject,
    });
  });
  finished.catch(stopped.reject); // an upload that fails before its pause
  stopped.promise.catch(() => {});
  upload.start();
  return { paused: stopped.promise, finished, upload };
}
