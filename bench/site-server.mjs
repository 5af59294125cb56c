/**
 * Serves the synthetic site, as a process of its own that is told what to do over IPC, and counts what is
 * asked of it. It speaks just enough HTTP/1.1 for a well-behaved client (GET, keep-alive, one write a
 * response), so that it takes little of the machine that it shares with what is measured.
 *
 * In: `{ type: "open", pages }` → `{ type: "opened", port, seeds }`, all counts at zero, as often as one likes;
 * `{ type: "report" }` → `{ type: "report", … }`. On its own: `{ type: "begun" }` with the first request,
 * `{ type: "complete" }` once every page was asked for. Instants are nanoseconds of the machine's monotonic clock.
 */
import { once } from "node:events";
import { createServer } from "node:net";
import { addressOf, HOSTS, pageAt, SyntheticSite } from "./site.mjs";

const MAX_HEAD_BYTES = 65_536;
const NOT_FOUND = Buffer.from("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
const REFUSED = Buffer.from("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");

const sockets = new Set();
const port = await listen();
let site;
let visits = new Uint16Array(0);
let tally = newTally();

process.on("message", (message) => {
  if (message.type === "open") {
    site = new SyntheticSite({ pages: message.pages, port });
    visits = new Uint16Array(message.pages);
    tally = newTally();
    for (const socket of sockets) socket.destroy();
    process.send({ type: "opened", port, seeds: site.seeds });
  } else process.send({ type: "report", ...report() });
});
// Whoever started it is gone.
process.on("disconnect", () => process.exit(0));
process.send({ type: "listening" });

function newTally() {
  return { robots: 0, unknown: 0, firstUnknown: undefined, distinct: 0, beganAt: 0n, lastAt: 0n };
}

function report() {
  const duplicates = [];
  const missing = [];
  let fetches = 0;
  for (let page = 0; page < visits.length; page += 1) {
    fetches += visits[page];
    if (visits[page] === 0) missing.push(page);
    if (visits[page] > 1) duplicates.push(page);
  }
  const example = (pages) => (pages.length === 0 ? undefined : site.urlOf(pages[0]));
  return {
    pages: visits.length,
    fetches,
    robots: tally.robots,
    unknown: tally.unknown,
    firstUnknown: tally.firstUnknown,
    missing: missing.length,
    firstMissing: example(missing),
    duplicates: duplicates.length,
    firstDuplicate: example(duplicates),
    beganAt: Number(tally.beganAt),
    lastAt: Number(tally.lastAt),
  };
}

function serve(host, socket) {
  sockets.add(socket);
  socket.setNoDelay(true);
  let pending = "";
  socket.on("data", (chunk) => {
    pending = pending === "" ? chunk.latin1Slice() : pending + chunk.latin1Slice();
    for (;;) {
      const end = pending.indexOf("\r\n\r\n");
      if (end < 0) break;
      const line = pending.slice(0, pending.indexOf("\r\n"));
      pending = pending.slice(end + 4);
      if (!line.startsWith("GET ") || !line.endsWith(" HTTP/1.1")) {
        socket.end(REFUSED);
        return;
      }
      socket.write(answer(host, line.slice(4, -9)));
    }
    if (pending.length > MAX_HEAD_BYTES) socket.end(REFUSED);
  });
  socket.on("error", () => socket.destroy());
  socket.on("close", () => sockets.delete(socket));
}

function answer(host, path) {
  tally.lastAt = process.hrtime.bigint();
  if (tally.beganAt === 0n) {
    tally.beganAt = tally.lastAt;
    process.send({ type: "begun", at: Number(tally.beganAt) });
  }
  const page = pageAt(host, path, visits.length);
  if (page < 0) {
    if (path === "/robots.txt") tally.robots += 1;
    else {
      tally.unknown += 1;
      tally.firstUnknown ??= `http://${addressOf(host)}:${port}${path}`;
    }
    return NOT_FOUND;
  }
  visits[page] += 1;
  if (visits[page] === 1) {
    tally.distinct += 1;
    if (tally.distinct === visits.length) process.send({ type: "complete", at: Number(tally.lastAt) });
  }
  return site.render(page);
}

/** Listens on the address of every host, on one port that is free on all of them. */
async function listen() {
  for (let attempt = 0; ; attempt += 1) {
    const servers = [];
    try {
      let chosen = 0;
      for (let host = 0; host < HOSTS; host += 1) {
        const server = createServer((socket) => serve(host, socket));
        server.listen({ host: addressOf(host), port: chosen, backlog: 1_024 });
        await once(server, "listening");
        servers.push(server);
        chosen = server.address().port;
      }
      return chosen;
    } catch (error) {
      for (const server of servers) server.close();
      if (error.code !== "EADDRINUSE" || attempt === 20) throw error;
    }
  }
}
