// The project's edge functions, on Deno: one folder of small functions behind /functions/v1/<name>.
//   hello   greets in JSON              echo     says what it received, body byte for byte
//   where   names the project           socket   a WebSocket that sends every frame back
//   stream  server-sent events: one at once, the rest when POST /functions/v1/release?id=… says so (or at once without an id),
//           so that a reader can prove it got the first before the second existed

const project = Deno.env.get("PROJECT");
const waiting = new Map<string, () => void>();

Deno.serve({ port: Number(Deno.env.get("PORT")), hostname: "127.0.0.1", onListen() {} }, async (request) => {
  const url = new URL(request.url);
  const name = url.pathname.replace(/^\/functions\/v1\//, "");
  const id = url.searchParams.get("id");
  switch (name) {
    case "hello": {
      const body = request.method === "POST" ? await request.json().catch(() => ({})) : {};
      return Response.json({ message: `hello ${body.name ?? "world"}` });
    }
    case "where":
      return Response.json({ project });
    case "echo":
      return new Response(request.body, { headers: { "content-type": request.headers.get("content-type") ?? "text/plain", "x-method": request.method } });
    case "release":
      waiting.get(id!)?.();
      return Response.json({ released: waiting.delete(id!) });
    case "stream":
      return new Response(events(id), { headers: { "content-type": "text/event-stream", "cache-control": "no-cache" } });
    case "socket": {
      const { socket, response } = Deno.upgradeWebSocket(request);
      socket.onmessage = (event) => socket.send(event.data);
      return response;
    }
    default:
      return Response.json({ code: "NOT_FOUND", message: "Requested function was not found" }, { status: 404 });
  }
});

function events(id: string | null): ReadableStream {
  return new ReadableStream({
    async start(controller) {
      const say = (text: string) => controller.enqueue(new TextEncoder().encode(`data: ${text}\n\n`));
      say("first");
      if (id) await new Promise<void>((release) => waiting.set(id, release));
      say("second");
      say("third");
      controller.close();
    },
  });
}
