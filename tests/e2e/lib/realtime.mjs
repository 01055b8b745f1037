// A small realtime service, because no registry has one: enough of Phoenix (vsn 1.0.0 and 2.0.0) for a client to subscribe, keep
// its heartbeat, broadcast to the others in the room and see which project answered. Each joined client is sent a `project`
// broadcast that names it; database changes are acknowledged, never sent.

import { WebSocketServer } from 'ws';

const USER_PUSH = 3; // binary frames of vsn 2.0.0
const USER_BROADCAST = 4;

export function realtimeService(project) {
  const server = new WebSocketServer({ noServer: true });
  const sockets = new Set();

  function connect(socket, request) {
    const vsn = new URL(request.url, 'http://x').searchParams.get('vsn') ?? '1.0.0';
    const client = { socket, vsn, rooms: new Map() };
    sockets.add(client);
    socket.on('close', () => sockets.delete(client));
    socket.on('message', (data, isBinary) => (isBinary ? userPush(client, data) : message(client, decode(vsn, String(data)))));
  }

  function message(client, { join_ref, ref, topic, event, payload }) {
    const reply = (response) => send(client, { join_ref, ref, topic, event: 'phx_reply', payload: { status: 'ok', response } });
    if (event === 'phx_join') {
      const config = payload.config ?? {};
      client.rooms.set(topic, { join_ref, config });
      const bindings = (config.postgres_changes ?? []).map((binding, index) => ({ id: index + 1, ...binding }));
      reply({ postgres_changes: bindings });
      if (bindings.length) {
        const status = { extension: 'postgres_changes', status: 'ok', message: 'Subscribed to PostgreSQL', channel: topic.replace('realtime:', '') };
        send(client, { join_ref, ref: null, topic, event: 'system', payload: status });
      }
      deliver(client, topic, 'project', { project });
    } else if (event === 'phx_leave') {
      client.rooms.delete(topic);
      reply({});
      send(client, { join_ref, ref, topic, event: 'phx_close', payload: {} });
    } else if (event === 'broadcast') {
      broadcast(client, topic, payload.event, payload.payload);
      if (client.rooms.get(topic)?.config.broadcast?.ack) reply({});
    } else if (event !== 'access_token') {
      reply({}); // heartbeat, presence
    }
  }

  // kind, then the lengths of join_ref, ref, topic, event and metadata, the encoding, then those fields and the payload
  function userPush(client, data) {
    if (data[0] !== USER_PUSH) return;
    const lengths = [...data.subarray(1, 6)];
    let at = 7;
    const [, ref, topic, event] = lengths.map((length) => data.toString('utf8', at, (at += length)));
    broadcast(client, topic, event, JSON.parse(data.toString('utf8', at)));
    const room = client.rooms.get(topic);
    if (room?.config.broadcast?.ack) send(client, { join_ref: room.join_ref, ref, topic, event: 'phx_reply', payload: { status: 'ok', response: {} } });
  }

  function broadcast(from, topic, event, payload) {
    for (const client of sockets) {
      const room = client.rooms.get(topic);
      if (room && (client !== from || room.config.broadcast?.self)) deliver(client, topic, event, payload);
    }
  }

  function deliver(client, topic, event, payload) {
    if (client.vsn.startsWith('1.')) {
      send(client, { topic, event: 'broadcast', payload: { type: 'broadcast', event, payload }, ref: null, join_ref: null });
      return;
    }
    const [topicBytes, eventBytes, body] = [topic, event, JSON.stringify(payload)].map((text) => Buffer.from(text));
    const head = Buffer.from([USER_BROADCAST, topicBytes.length, eventBytes.length, 0, 1]);
    client.socket.send(Buffer.concat([head, topicBytes, eventBytes, body]));
  }

  return {
    upgrade: (request, socket, head) => server.handleUpgrade(request, socket, head, (ws) => connect(ws, request)),
  };
}

function decode(vsn, text) {
  const frame = JSON.parse(text);
  if (vsn.startsWith('1.')) return frame;
  const [join_ref, ref, topic, event, payload] = frame;
  return { join_ref, ref, topic, event, payload };
}

function send(client, { join_ref, ref, topic, event, payload }) {
  const frame = client.vsn.startsWith('1.') ? { topic, event, payload, ref, join_ref } : [join_ref, ref, topic, event, payload];
  client.socket.send(JSON.stringify(frame));
}
