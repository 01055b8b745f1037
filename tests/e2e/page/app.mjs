// A small application as it runs in a browser: it knows an address, a key and a person, and nothing of Cutover. The test tells it what
// to do through `app`; whatever fails is in `app.faults`.

const { supabase, tus } = window; // supabase-js and tus-js-client as their packages ship them for pages
const CHUNK = 256 * 1024;

window.app = {
  faults: [],
  rounds: 0,
  rows: [], // inserted: { title, id }
  events: [], // titles, as the subscription told them
  statuses: [], // of the subscription

  async begin(url, key, { email, password }) {
    Object.assign(this, { url, key, client: supabase.createClient(url, key) });
    const up = await this.client.auth.signUp({ email, password });
    if (up.error) throw up.error;
    await this.client.auth.signOut();
    const { data, error } = await this.client.auth.signInWithPassword({ email, password });
    if (error) throw error;
    this.user = data.user;
    await this.subscribe();
    this.working = this.work();
    return this.user.id;
  },

  /** Resolves when the database itself is known to be watched, not only the room joined. */
  subscribe() {
    return new Promise((watched) => {
      this.client
        .channel('my memories')
        .on('postgres_changes', { event: 'INSERT', schema: 'public', table: 'memory_entries' }, ({ schema, table, new: row }) => {
          this.events.push(row.title);
          if (`${schema}.${table}` !== 'public.memory_entries') this.faults.push(`an event of ${schema}.${table}`);
        })
        .on('system', {}, ({ extension, status, message }) => {
          if (extension !== 'postgres_changes') return;
          if (status === 'ok') watched();
          else this.faults.push(`subscription: ${message}`);
        })
        .subscribe((status, error) => {
          this.statuses.push(status);
          // A socket that is moved to the other side tells CHANNEL_ERROR and comes back by itself; a binding that doesn't match never does.
          if (error && /mismatch/.test(error.message)) this.faults.push(error.message);
        });
    });
  },

  async work() {
    for (this.stopped = false; !this.stopped; this.rounds++) {
      try {
        await this.round();
      } catch (error) {
        this.faults.push(`round ${this.rounds}: ${error.message ?? JSON.stringify(error)}`);
      }
      await new Promise((over) => setTimeout(over, 100));
    }
  },

  /** Writes a row and reads it; uploads a file and reads it back, and the first of all files as well. */
  async round() {
    const title = `row ${this.rounds} ${crypto.randomUUID()}`;
    // Nothing replicates rows between these two projects: one written just before the user is moved is not there just after. Once.
    if (!(await this.writeAndRead(title)) && !(await this.writeAndRead(`${title} again`))) this.faults.push(`round ${this.rounds}: the row is not there`);

    const bucket = this.client.storage.from('artifacts');
    const path = `${this.user.id}/page/${this.rounds}.txt`;
    this.firstFile ??= { path, text: title };
    ok(await bucket.upload(path, new Blob([title], { type: 'text/plain' }), { cacheControl: '0' }));
    for (const { path: name, text } of [{ path, text: title }, this.firstFile]) {
      const found = await ok(await bucket.download(name)).text();
      if (found !== text) this.faults.push(`round ${this.rounds}: ${name} holds ${found}`);
    }
    this.signedUrl ??= ok(await bucket.createSignedUrl(this.firstFile.path, 3600)).signedUrl;
    const signed = await fetch(this.signedUrl);
    if ((await signed.text()) !== this.firstFile.text) this.faults.push(`round ${this.rounds}: the signed URL failed with ${signed.status}`);
  },

  async writeAndRead(title) {
    const inserted = ok(await this.client.from('memory_entries').insert({ title }).select('id,title').single());
    this.rows.push(inserted);
    const [read] = ok(await this.client.from('memory_entries').select('title').eq('id', inserted.id));
    return read?.title === title;
  },

  /** Sends the first chunk of a large file and pauses. */
  async beginLargeFile() {
    const { data } = await this.client.auth.getSession();
    this.largeBytes = crypto.getRandomValues(new Uint8Array(65_536));
    const file = new Blob(Array(12).fill(this.largeBytes));
    await new Promise((paused, failed) => {
      this.large = new tus.Upload(file, {
        endpoint: `${this.url}/storage/v1/upload/resumable`,
        headers: { apikey: this.key, authorization: `Bearer ${data.session.access_token}` },
        chunkSize: CHUNK,
        uploadDataDuringCreation: true,
        retryDelays: null,
        metadata: { bucketName: 'artifacts', objectName: `${this.user.id}/large.bin`, contentType: 'video/x-test', cacheControl: '0' },
        onChunkComplete: (size, accepted) => accepted === CHUNK && paused(this.large.abort()),
        onSuccess: () => this.largeSent(),
        onError: (error) => (failed(error), this.largeFailed?.(error)),
      });
      this.large.start();
    });
  },

  /** Sends the rest, and reads it all back. */
  async finishLargeFile() {
    await new Promise((sent, failed) => {
      Object.assign(this, { largeSent: sent, largeFailed: failed });
      this.large.start();
    });
    const found = new Uint8Array(await ok(await this.client.storage.from('artifacts').download(`${this.user.id}/large.bin`)).arrayBuffer());
    if (found.length !== 12 * 65_536 || found.some((byte, at) => byte !== this.largeBytes[at % 65_536])) this.faults.push('the large file arrived changed');
  },

  async end() {
    this.stopped = true;
    await this.working;
    await this.client.removeAllChannels();
    ok(await this.client.auth.signOut());
  },
};

function ok({ data, error }) {
  if (error) throw error;
  return data;
}
