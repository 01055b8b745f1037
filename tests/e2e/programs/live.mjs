// What an application of OLD's keeps open: database changes of a table, of a table with a filter, of a renamed table, of any table and
// of any schema, and a room with broadcast and presence.

const SECONDS = 20;
const PROBE_EVERY_MS = 250;

export class Live {
  heard = { topics: [], wanted: [], vendors: [], widgets: [], anything: [], gone: [] };
  words = []; // what the client said of the channels
  probed = false;

  constructor(client, document, user) {
    Object.assign(this, { client, document, user });
  }

  /** Subscribes, and waits until changes really arrive: a client hears of its subscription only when it is in force. */
  async open() {
    const { heard } = this;
    const mine = new Set(); // whose deletion is told to everybody: who could see the row cannot be asked any more
    const keep = (where) => ({ eventType, schema, table, new: after, old: before, errors }) => {
      if (eventType === 'INSERT') mine.add(after.id);
      const probe = table === 'smart_recall_notes';
      if (!probe && (eventType !== 'DELETE' || mine.has(before.id))) heard[where].push({ eventType, schema, table, new: after, old: before, errors });
    };
    const wanted = (event, table, filter, schema = 'public') => ({ event, schema, ...(table && { table }), ...(filter && { filter }) });
    this.changes = this.client.channel('changes')
      .on('postgres_changes', wanted('*', 'topics'), keep('topics'))
      .on('postgres_changes', wanted('INSERT', 'topics', 'name=eq.proxies'), keep('wanted'))
      .on('postgres_changes', wanted('INSERT', 'vendor_organizations', `user_id=eq.${this.user.id}`), keep('vendors'))
      .on('postgres_changes', wanted('*', 'widgets', undefined, 'app_demo'), keep('widgets'))
      .on('postgres_changes', wanted('INSERT'), keep('anything'))
      .on('postgres_changes', wanted('DELETE', undefined, undefined, '*'), keep('gone'))
      .on('postgres_changes', wanted('INSERT', 'smart_recall_notes'), () => (this.probed = true));
    this.document.add('live: subscribe', { status: await this.subscribe(this.changes) });
    const end = performance.now() + SECONDS * 1000;
    while (!this.probed && performance.now() < end) {
      await this.client.from('smart_recall_notes').insert({ note: 'is anybody there?' });
      await this.until(() => this.probed, PROBE_EVERY_MS);
    }
    this.document.add('live: in force', { probed: this.probed });
  }

  subscribe(channel) {
    return new Promise((resolve) => {
      channel.subscribe((status, error) => {
        this.words.push(error ? `${status}: ${error.message}` : status);
        resolve(status);
      });
    });
  }

  /** Waits until each subscription has heard as often as said, and notes what it was. */
  async heardAll(when, counts) {
    const enough = () => Object.entries(counts).every(([where, count]) => this.heard[where].length >= count);
    await this.until(enough);
    this.document.add(`live: heard ${when}`, { data: this.heard });
  }

  /** A room: what one says comes back to oneself, one is seen there, and one can leave. */
  async useRooms() {
    const said = [];
    const room = this.client.channel('lobby-' + this.user.id, { config: { broadcast: { self: true, ack: true }, presence: { key: this.user.id } } })
      .on('broadcast', { event: 'ping' }, ({ payload }) => said.push(payload))
      .on('presence', { event: 'sync' }, () => {});
    this.document.add('room: subscribe', { status: await this.subscribe(room) });
    this.document.add('room: broadcast', { sent: await room.send({ type: 'broadcast', event: 'ping', payload: { text: 'grüße' } }) });
    this.document.add('room: track', { sent: await room.track({ mood: 'fine' }) });
    const here = () => room.presenceState()[this.user.id]?.map(({ mood }) => mood);
    await this.until(() => said.length && here());
    this.document.add('room: seen', { said, here: here() ?? null });
    this.document.add('room: untrack', { sent: await room.untrack() });
    await this.until(() => !here());
    this.document.add('room: left', { here: here() ?? null });
    this.room = room;
  }

  /** The room last, because supabase-js 2.49 forgets every channel when it removes one. */
  async close() {
    this.document.add('room: removed', { removed: await this.client.removeChannel(this.room) });
    this.document.add('live: said', { words: this.words });
    await this.client.removeAllChannels();
    await this.client.realtime.disconnect();
  }

  /** Waits for `probe`, no longer than `ms`: what is missing then is missing in the document. */
  async until(probe, ms = SECONDS * 1000) {
    const end = performance.now() + ms;
    while (!probe() && performance.now() < end) await new Promise((over) => setTimeout(over, 10));
  }
}
