// How a program tells what it saw: a list of named results, free of what differs from run to run (ids, times, tokens, addresses),
// printed as one JSON document. Ids keep their identity: the first one seen is <id 1> everywhere.

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
const TIME = /\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?/g;
const TOKEN = /eyJ[\w-]+\.[\w-]+\.[\w-]+/g;

export class Document {
  steps = [];
  ids = new Map();

  /** `known` maps strings that differ from run to run to what stands for them. */
  constructor(known) {
    this.known = known;
  }

  add(step, value) {
    this.steps.push({ step, ...this.normal(JSON.parse(JSON.stringify(value))) });
  }

  /** Notes what a call to the client answered. */
  async note(step, call) {
    const { data, error, count, status } = await call;
    this.add(step, { data, ...(error && { error: { ...error, message: error.message } }), ...(count != null && { count }), ...(status && { status }) });
    return data;
  }

  normal(value) {
    if (typeof value === 'string') return this.normalText(value);
    if (Array.isArray(value)) return value.map((item) => this.normal(item));
    if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, this.normal(item)]));
    return value;
  }

  normalText(text) {
    for (const [from, to] of Object.entries(this.known)) text = text.replaceAll(from, to);
    const id = (uuid) => {
      if (!this.ids.has(uuid)) this.ids.set(uuid, `<id ${this.ids.size + 1}>`);
      return this.ids.get(uuid);
    };
    return text.replace(TOKEN, '<token>').replace(TIME, '<time>').replace(UUID, id);
  }

  /** The program's last act: the client's timers would keep it alive for a while. */
  print(user) {
    process.stdout.write(`${JSON.stringify({ user, steps: this.steps }, null, 1)}\n`, () => process.exit(0));
  }
}
