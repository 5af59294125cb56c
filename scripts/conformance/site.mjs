// The pages that a worker is tried with, on loopback.
import { once } from "node:events";
import { createServer } from "node:http";

const BIG_BYTES = 24 * 1024 * 1024;
const SLOW_MS = 3_000;

const html = (body, type = "text/html") => ({ headers: { "content-type": type }, body });

/** What each path answers; what is not here is a 404. */
const PAGES = {
  "/dir/page": html(
    '<title>Page</title><a href="http://other.test/absolute">a</a> <a href="sibling">b</a> ' +
      '<a href="/rooted?x=1&amp;y=2">c</a> <a href="../up">d</a> <a rel="nofollow" href="/not-followed">e</a>',
  ),
  "/based": html('<base href="/elsewhere/"><title>Based</title><a href="inside">a</a>'),
  "/empty": html(""),
  "/broken": html("<html><p><a href='/first'>x<table><a href=/second>y</b><a href=\"/third\"<div"),
  "/strange-charset": html('<a href="/after-charset">a</a>', "text/html; charset=no-such-charset"),
  "/not-utf8": html(Buffer.from('<title>caf\xe9</title><a href="/after-latin1">a</a>', "latin1")),
  "/image": html(Buffer.from([0x89, 0x50, 0x4e, 0x47, 0, 1, 2, 3, 255, 254]), "image/png"),
  "/no-type": { headers: {}, body: "<a href='/maybe'>x</a>" },
  "/moved": { status: 302, headers: { location: "/dir/page" }, body: "" },
  "/busy": { status: 503, headers: { "retry-after": "7" }, body: "busy" },
};

/** @returns {Promise<{ origin: string, requests: { method: string, path: string, headers: object, body: string }[], stop(): Promise<void> }>} */
export async function startSite() {
  const requests = [];
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url: path, headers } = request;
    requests.push({ method, path, headers, body: Buffer.concat(chunks).toString("utf8") });
    if (path === "/hanging") return;
    if (path === "/slow") await new Promise((resolve) => setTimeout(resolve, SLOW_MS));
    if (path === "/big") {
      response.writeHead(200, { "content-type": "text/html" });
      response.write('<a href="/in-big">a</a>');
      response.end(Buffer.alloc(BIG_BYTES, " "));
      return;
    }
    const plain =
      path === "/slow" || path === "/posted" || path.startsWith("/task/") ? html("<p>x") : undefined;
    const {
      status = 200,
      headers: sent,
      body,
    } = PAGES[path] ?? plain ?? { status: 404, headers: {}, body: "" };
    response.writeHead(status, sent).end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    requests,
    async stop() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}
