// The project's edge functions, on Deno: one folder of small functions behind /functions/v1/<name>.
//   hello    greets in JSON              echo     gives the body back, as a stream, byte for byte
//   where    names the project           socket   a WebSocket that sends every frame back; ?hello makes it name the project first
//   stream   server-sent events: one at once, the rest when POST /functions/v1/release?id=… says so (or at once without an id),
//            so that a reader can prove it got the first before the second existed; gone?id=… answers once its reader has left
//   memory-create on OLD, memory/create on NEW: the same function under two names; says under which path and query it was called
//   stripe-webhook   a webhook that checks the signature of the exact bytes it was sent

const project = Deno.env.get("PROJECT");
const waiting = new Map<string, () => void>();
const gone = new Map<string, PromiseWithResolvers<void>>();
const memory = project === "new" ? "memory/create" : "memory-create";

Deno.serve({ port: Number(Deno.env.get("PORT")), hostname: "127.0.0.1", onListen() {} }, async (request) => {
  const url = new URL(request.url);
  const name = url.pathname.replace(/^\/functions\/v1\//, "");
  const id = url.searchParams.get("id");
  if (name === memory || name.startsWith(`${memory}/`)) {
    const { method, headers } = request;
    return Response.json({ project, path: url.pathname, query: url.search, method, region: headers.get("x-region"), body: await request.text() });
  }
  switch (name) {
    case "hello": {
      const body = request.method === "POST" ? await request.json().catch(() => ({})) : {};
      return Response.json({ message: `hello ${body.name ?? "world"}` });
    }
    case "where":
      return Response.json({ project });
    case "echo":
      return new Response(request.body, { headers: { "content-type": request.headers.get("content-type") ?? "text/plain", "x-method": request.method } });
    case "stripe-webhook":
      return Response.json({ project, verified: request.headers.get("stripe-signature") === await signature(await request.arrayBuffer()) });
    case "gone":
      await gone.get(id!)?.promise;
      return Response.json({ gone: gone.delete(id!) });
    case "release":
      waiting.get(id!)?.();
      return Response.json({ released: waiting.delete(id!) });
    case "stream":
      return new Response(events(id), { headers: { "content-type": "text/event-stream", "cache-control": "no-cache" } });
    case "socket": {
      const { socket, response } = Deno.upgradeWebSocket(request);
      if (url.searchParams.has("hello")) socket.onopen = () => socket.send(project!);
      socket.onmessage = (event) => socket.send(event.data);
      return response;
    }
    default:
      return Response.json({ code: "NOT_FOUND", message: "Requested function was not found" }, { status: 404 });
  }
});

async function signature(body: ArrayBuffer): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", body);
  return `v1=${[...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

function events(id: string | null): ReadableStream {
  const left = Promise.withResolvers<void>();
  if (id) gone.set(id, left);
  return new ReadableStream({
    async start(controller) {
      const say = (text: string) => controller.enqueue(new TextEncoder().encode(`data: ${text}\n\n`));
      say("first");
      if (id) await new Promise<void>((release) => waiting.set(id, release));
      say("second");
      say("third");
      controller.close();
    },
    cancel: () => left.resolve(),
  });
}
