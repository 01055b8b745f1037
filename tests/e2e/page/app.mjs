// A small application as it runs in a browser: it knows an address, a key and a person, and nothing of Cutover. The test tells it what
// to do through `app`; whatever fails is in `app.faults`.

const { supabase } = window; // supabase-js as its package ships it for pages

window.app = {
  faults: [],
  rounds: 0,
  rows: [], // inserted: { title, id }
  events: [], // titles, as the subscription told them
  statuses: [], // of the subscription

  async begin(url, key, { email, password }) {
    this.client = supabase.createClient(url, key);
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
    const inserted = ok(await this.client.from('memory_entries').insert({ title }).select('id,title').single());
    this.rows.push(inserted);
    const [read] = ok(await this.client.from('memory_entries').select('title').eq('id', inserted.id));
    if (read?.title !== title) this.faults.push(`round ${this.rounds}: the row is not there`);

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
