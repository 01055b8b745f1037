// The two wire forms of a Phoenix message as Supabase Realtime speaks them, and nothing else: vsn 1.0.0 (JSON objects) and 2.0.0
// (JSON arrays; binary frames whose first byte is their kind). A decoded frame is { join_ref, ref, topic, event, payload }; a binary
// one has `kind` as well, and its payload is a Buffer (kinds 0 to 2) or { event, payload, encoding, metadata } (kinds 3 and 4).
// Used by the responder and, the other way round, by the tests' own clients.

export const KIND = { push: 0, reply: 1, broadcast: 2, userPush: 3, userBroadcast: 4 };
const FIELDS = {
  // From the client a push carries a ref; from the server it does not (Phoenix's serializer is not symmetric).
  clientPush: ['join_ref', 'ref', 'topic', 'event'],
  [KIND.push]: ['join_ref', 'topic', 'event'],
  [KIND.reply]: ['join_ref', 'ref', 'topic', 'status'],
  [KIND.broadcast]: ['topic', 'event'],
  [KIND.userPush]: ['join_ref', 'ref', 'topic', 'event', 'metadata'],
  [KIND.userBroadcast]: ['topic', 'event', 'metadata'],
};

export const isV1 = (vsn) => vsn.startsWith('1.');

export function encodeText(vsn, { join_ref = null, ref = null, topic, event, payload }) {
  return JSON.stringify(isV1(vsn) ? { topic, event, payload, ref, join_ref } : [join_ref, ref, topic, event, payload]);
}

/** Throws on what is not a frame of this version: the server then closes the socket, as Phoenix does. */
export function decodeText(vsn, text) {
  const frame = JSON.parse(text);
  if (isV1(vsn)) {
    if (typeof frame?.topic !== 'string' || typeof frame?.event !== 'string') throw new Error('expected a V1 object');
    return { join_ref: frame.join_ref ?? null, ref: frame.ref ?? null, topic: frame.topic, event: frame.event, payload: frame.payload ?? {} };
  }
  if (!Array.isArray(frame) || frame.length < 5) throw new Error('expected a V2 array');
  const [join_ref, ref, topic, event, payload] = frame;
  return { join_ref, ref, topic, event, payload };
}

/** `fields` by name, the body last. Kinds 3 and 4 carry one more byte after the lengths: is the body JSON (1) or raw (0)? */
export function encodeBinary(kind, fields, body, { encoding, fromClient = false } = {}) {
  const names = FIELDS[kind === KIND.push && fromClient ? 'clientPush' : kind];
  const texts = names.map((name) => Buffer.from(fields[name] ?? ''));
  for (const [index, text] of texts.entries()) if (text.length > 255) throw new RangeError(`${names[index]} is longer than 255 bytes`);
  const head = [kind, ...texts.map((text) => text.length)];
  if (encoding !== undefined) head.push(encoding);
  return Buffer.concat([Buffer.from(head), ...texts, body]);
}

export function decodeBinary(data, { fromClient = false } = {}) {
  const kind = data[0];
  const names = FIELDS[kind === KIND.push && fromClient ? 'clientPush' : kind];
  if (!names) throw new Error(`unknown kind ${kind}`);
  const encoded = kind >= KIND.userPush;
  let at = 1 + names.length + (encoded ? 1 : 0);
  const found = { kind, join_ref: null, ref: null };
  for (const [index, name] of names.entries()) {
    const end = at + data[1 + index];
    if (end > data.length) throw new Error('a field is cut off');
    found[name] = data.toString('utf8', at, end);
    at = end;
  }
  const body = data.subarray(at);
  if (!encoded) return { ...found, payload: body };
  const encoding = data[1 + names.length];
  const { event, metadata, ...rest } = found;
  return { ...rest, event: 'broadcast', payload: { event, encoding, payload: encoding === 1 ? JSON.parse(body) : body, metadata } };
}
