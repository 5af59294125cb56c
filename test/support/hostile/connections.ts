import {
  drip,
  FINE,
  type HostileBehaviour,
  HTML,
  head,
  network,
  PAGE,
  pour,
  raw,
  rawAndSilence,
  reply,
  timeout,
  tooLarge,
} from "./behaviour.js";

/** The preface of an HTTP/2 server (RFC 9113, 3.4): a SETTINGS frame. */
const HTTP2_SETTINGS = Buffer.from("000006040000000000000400ffffff", "hex");
/** A fatal TLS alert: unexpected message. */
const TLS_ALERT = Buffer.from("1503030002020a", "hex");

/** How often that is tried is left open: the next attempt would meet the same certificate. */
function badCertificate(error: RegExp): HostileBehaviour["ends"] {
  return { state: "failed", reason: "network", error };
}

/** Servers that do not speak when they should, stop in the middle, or speak something else. */
export const CONNECTIONS: readonly HostileBehaviour[] = [
  { name: "nobody listens", listens: "nothing", ends: network(/ECONNREFUSED/) },
  { name: "resets each connection at once", meets: (socket) => socket.resetAndDestroy(), ends: network(/./) },
  { name: "closes each connection at once", meets: (socket) => socket.end(), ends: network(/./) },
  { name: "accepts and says nothing", meets: () => {}, ends: timeout() },
  {
    name: "speaks before it is asked",
    meets: (socket) => socket.write("220 mail.example ESMTP ready\r\n"),
    ends: network(/./),
  },
  { name: "reads the request and says nothing", answer: () => {}, ends: timeout() },
  { name: "closes without an answer", answer: ({ socket }) => socket.end(), ends: network(/./) },
  { name: "resets without an answer", answer: ({ socket }) => socket.resetAndDestroy(), ends: network(/./) },
  { name: "half a status line and silence", answer: rawAndSilence("HTTP/1.1 20"), ends: timeout() },
  { name: "half a status line and the end", answer: raw("HTTP/1.1 20"), ends: network(/./) },
  {
    name: "the status line byte by byte",
    answer: ({ socket }) => {
      const bytes = [...`HTTP/1.1 200 OK\r\ncontent-length: 2\r\n${"x-more: y\r\n".repeat(100)}\r\nok`];
      const timer = setInterval(() => {
        if (socket.writable) socket.write(bytes.shift() ?? "");
      }, 200);
      socket.on("close", () => clearInterval(timer));
    },
    ends: timeout(),
  },
  {
    name: "a header now and then for ever",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 200 OK\r\n");
      drip(socket, "x-more: y\r\n");
    },
    ends: timeout(),
  },
  {
    name: "headers and silence",
    answer: rawAndSilence(head(200, { "content-type": HTML, "content-length": 1_000 }).toString()),
    ends: timeout(200),
  },
  {
    name: "a byte of body now and then for ever",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML }));
      drip(socket, ".");
    },
    ends: timeout(200),
  },
  {
    name: "a chunk now and then for ever",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "transfer-encoding": "chunked" }));
      drip(socket, "1\r\n.\r\n");
    },
    ends: timeout(200),
  },
  {
    name: "a slow page that comes in time",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "content-length": PAGE.length, connection: "close" }));
      const pieces = PAGE.match(/.{1,12}/g) ?? [];
      const timer = setInterval(() => {
        const piece = pieces.shift();
        if (piece === undefined) socket.end();
        else socket.write(piece);
      }, 20);
      socket.on("close", () => clearInterval(timer));
    },
    ends: FINE,
  },
  {
    name: "a body without end",
    host: "large",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML }));
      pour(socket, Buffer.alloc(65_536, "endless "));
    },
    ends: tooLarge(200),
  },
  {
    name: "chunks without end",
    host: "large",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "transfer-encoding": "chunked" }));
      pour(socket, Buffer.from(`10000\r\n${"endless ".repeat(8_192)}\r\n`));
    },
    ends: tooLarge(200),
  },
  {
    name: "an extension of a chunk without end",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "transfer-encoding": "chunked" }));
      socket.write("5;");
      drip(socket, "x".repeat(1_000), 5);
    },
    ends: { state: "failed", statusCode: 200 },
    lasts: true,
  },
  {
    name: "trailers without end",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "transfer-encoding": "chunked" }));
      socket.write("2\r\nok\r\n0\r\n");
      pour(socket, Buffer.from(`x-flood: ${"y".repeat(1_000)}\r\n`.repeat(16)));
    },
    ends: tooLarge(200),
  },
  {
    name: "reset in the headers",
    answer: ({ socket }) => {
      socket.write("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n", () => socket.resetAndDestroy());
    },
    ends: network(/./),
  },
  {
    name: "reset in the body",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "content-length": 1_000 }));
      socket.write("<p>half a page", () => socket.resetAndDestroy());
    },
    ends: network(/./, 200),
  },
  {
    name: "reset in a chunk",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "transfer-encoding": "chunked" }));
      socket.write("ff\r\n<p>half a chunk", () => socket.resetAndDestroy());
    },
    ends: network(/./, 200),
  },
  {
    name: "cut twice and then whole",
    answer: ({ socket, count }) => {
      if (count > 2) reply(socket);
      else socket.end(Buffer.concat([head(200, { "content-length": 1_000 }), Buffer.from("half a page")]));
    },
    ends: { ...FINE, attempts: 3 },
  },
  { name: "HTTP/0.9", answer: raw("<html><title>No status line at all</title></html>"), ends: network(/./) },
  { name: "HTTP/2 frames on a plain port", answer: raw(HTTP2_SETTINGS), ends: network(/./) },
  { name: "a TLS alert on a plain port", answer: raw(TLS_ALERT), ends: network(/./) },
  { name: "a TLS server on a plain port", listens: "tls", ends: network(/./) },
  { name: "a plain server on a TLS port", scheme: "https", ends: network(/./) },
  {
    name: "a TLS handshake that never begins",
    scheme: "https",
    meets: () => {},
    ends: timeout(),
  },
  {
    name: "a certificate as it should be",
    scheme: "https",
    listens: "tls",
    ends: FINE,
  },
  {
    name: "a certificate of an unknown authority",
    scheme: "https",
    listens: "unknown",
    ends: badCertificate(/nobody who is trusted/),
  },
  {
    name: "an expired certificate",
    scheme: "https",
    listens: "expired",
    ends: badCertificate(/certificate has expired/),
  },
  {
    name: "a certificate of another host",
    scheme: "https",
    listens: "wrong-host",
    ends: badCertificate(/certificate is for another name/),
  },
];
