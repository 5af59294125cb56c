import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import * as zlib from "node:zlib";
import { brotliCompressSync, constants, deflateSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { FetchError } from "../../../src/crawl/errors.js";
import { Fetcher, type FetcherOptions } from "../../../src/crawl/fetch/fetcher.js";

const MiB = 1_048_576;

/** A server that says whatever it is told to, to the byte. */
type Say = (socket: Socket) => void;
let server: Server;
let say: Say = () => {};
let sent = 0;
const sockets = new Set<Socket>();
const fetchers: Fetcher[] = [];

beforeEach(async () => {
  sent = 0;
  server = createServer((socket) => {
    sockets.add(socket);
    socket
      .on("error", () => {})
      .on("close", () => {
        sent += socket.bytesWritten;
        sockets.delete(socket);
      });
    socket.on("data", () => say(socket));
  });
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
});
afterEach(async () => {
  for (const fetcher of fetchers.splice(0)) await fetcher.close();
  for (const socket of sockets) socket.destroy();
  await new Promise((done) => server.close(done));
});

function setup(options: Partial<FetcherOptions> = {}): Fetcher {
  const fetcher = new Fetcher({ userAgent: "Warren/0.1", allowedNetworks: ["127.0.0.0/8"], ...options });
  fetchers.push(fetcher);
  return fetcher;
}

const url = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;

/** Writes for as long as somebody reads. */
function endlessly(socket: Socket, piece: Buffer | string): void {
  const write = () => {
    while (!socket.destroyed && socket.write(piece)) {}
  };
  socket.on("drain", write);
  write();
}

/** `200 body`, or `reason phase`. */
async function outcome(fetcher: Fetcher, maxBytes = MiB): Promise<string> {
  try {
    const fetched = await fetcher.fetch({ url: url() });
    const body = await fetched.body.read(maxBytes);
    const { location } = fetched.headers;
    return `${fetched.statusCode}${location === undefined ? "" : ` to ${location}`} ${body.toString()}`;
  } catch (error) {
    if (!(error instanceof FetchError)) throw error;
    return `${error.reason}${error.phase === undefined ? "" : ` ${error.phase}`}`;
  }
}

const head = (...lines: string[]) => `${lines.join("\r\n")}\r\n\r\n`;
const OK = "HTTP/1.1 200 OK";
const hello = (...headers: string[]) => `${head(OK, "Content-Length: 5", ...headers)}hello`;

/** What a server says, and what it comes to. */
const TABLE: readonly (readonly [what: string, says: string, comesTo: string])[] = [
  ["an answer", hello(), "200 hello"],
  ["no reason phrase", `${head("HTTP/1.1 200", "Content-Length: 5")}hello`, "200 hello"],
  ["HTTP/1.0, until the end", `${head("HTTP/1.0 200 OK")}until the end`, "200 until the end"],
  ["bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", "network headers"],
  ["HTTP/0.9", "<p>hello</p>", "network headers"],
  ["an empty answer", "", "network headers"],
  ["only part of a status line", "HTTP/1.1 20", "network headers"],
  ["a status of two digits", head("HTTP/1.1 20 OK"), "network headers"],
  ["a status of four digits", head("HTTP/1.1 2000 OK"), "network headers"],
  ["a status that is no number", head("HTTP/1.1 OK OK"), "network headers"],
  ["status 000", `${head("HTTP/1.1 000 OK", "Content-Length: 0")}`, "network headers"],
  ["status 099", `${head("HTTP/1.1 099 OK", "Content-Length: 0")}`, "network headers"],
  ["status 999", `${head("HTTP/1.1 999 Odd", "Content-Length: 0")}`, "999 "],
  ["another protocol", head("ICY 200 OK"), "network headers"],
  ["HTTP/2 without having been asked", head("HTTP/2.0 200 OK"), "200 "],
  ["HTTP/9.9", head("HTTP/9.9 200 OK"), "network headers"],
  [
    "an upgrade that nobody asked for",
    head("HTTP/1.1 101 Switching", "Upgrade: x", "Connection: upgrade"),
    "network headers",
  ],
  ["100 Continue, which nobody asked for", head("HTTP/1.1 100 Continue") + hello(), "network headers"],
  [
    "102 and 103, then an answer",
    head("HTTP/1.1 102 P") + head("HTTP/1.1 103 E", "Link: x") + hello(),
    "200 hello",
  ],
  ["20 interim answers, then one", head("HTTP/1.1 103 E").repeat(20) + hello(), "200 hello"],
  ["21 interim answers", head("HTTP/1.1 103 E").repeat(21) + hello(), "network headers"],
  ["a body that is shorter than it says", `${head(OK, "Content-Length: 9")}hello`, "network body"],
  ["a body that is longer than it says", `${hello()}, and more`, "200 hello"],
  ["two lengths that differ", hello("Content-Length: 6"), "network headers"],
  ["two lengths alike", hello("Content-Length: 5"), "network headers"],
  ["a list of lengths", `${head(OK, "Content-Length: 5, 5")}hello`, "network headers"],
  ["a negative length", `${head(OK, "Content-Length: -5")}hello`, "network headers"],
  ["a length in hexadecimal", `${head(OK, "Content-Length: 0x5")}hello`, "network headers"],
  [
    "a length beyond all numbers",
    `${head(OK, "Content-Length: 99999999999999999999")}hello`,
    "network headers",
  ],
  ["chunks and a length", hello("Transfer-Encoding: chunked"), "network headers"],
  [
    "a length and chunks",
    `${head(OK, "Transfer-Encoding: chunked", "Content-Length: 5")}5\r\nhello\r\n0\r\n\r\n`,
    "network headers",
  ],
  [
    "chunks",
    `${head(OK, "Transfer-Encoding: chunked")}5;x=y\r\nhello\r\n0\r\nTrailer: t\r\n\r\n`,
    "200 hello",
  ],
  ["a chunk without its end", `${head(OK, "Transfer-Encoding: chunked")}5\r\nhelloX`, "network body"],
  [
    "a chunk of no number",
    `${head(OK, "Transfer-Encoding: chunked")}zz\r\nhello\r\n0\r\n\r\n`,
    "network body",
  ],
  [
    "a chunk beyond all numbers",
    `${head(OK, "Transfer-Encoding: chunked")}${"f".repeat(40)}\r\nx`,
    "network body",
  ],
  ["chunks without the last one", `${head(OK, "Transfer-Encoding: chunked")}5\r\nhello\r\n`, "network body"],
  ["a transfer coding nobody knows", `${head(OK, "Transfer-Encoding: secret")}hello`, "200 hello"],
  ["chunked, and then something else", `${head(OK, "Transfer-Encoding: chunked, gzip")}hello`, "200 hello"],
  ["a fault in headers without a length", head(OK, "nonsense"), "network headers"],
  ["a fault in headers of a last answer", head(OK, "Connection: close", "nonsense"), "network headers"],
  [
    "cut chunks of a last answer",
    `${head(OK, "Connection: close", "Transfer-Encoding: chunked")}5\r\nhel`,
    "network body",
  ],
  [
    "cut chunks in HTTP/1.0",
    `${head("HTTP/1.0 200 OK", "Transfer-Encoding: chunked")}5\r\nhel`,
    "network body",
  ],
  [
    "a short body of a last answer",
    `${head(OK, "Connection: close", "Content-Length: 9")}hello`,
    "network body",
  ],
  ["headers that do not end", `${OK}\r\nX: y\r\n`, "network headers"],
  ["headers of a last answer that do not end", `${OK}\r\nConnection: close\r\nX: y\r\n`, "network headers"],
  ["a folded header", hello("X-Folded: a", " b"), "network headers"],
  ["a header without a colon", hello("nonsense"), "network headers"],
  ["a space before a colon", hello("X-Space : a"), "network headers"],
  ["a header without a name", hello(": a"), "network headers"],
  ["NUL in a header", hello("X-Nul: a\0b"), "network headers"],
  ["a carriage return in a header", hello("X-Cr: a\rb"), "network headers"],
  ["bytes beyond ASCII in a header", hello("X-Bytes: \xe9\xff"), "200 hello"],
  [
    "two locations",
    `${head("HTTP/1.1 302 F", "Location: /a", "Location: /b", "Content-Length: 0")}`,
    "302 to /a ",
  ],
  ["a redirect without a location", `${head("HTTP/1.1 302 F", "Content-Length: 0")}`, "302 "],
  ["204 with a body", `${head("HTTP/1.1 204 N", "Content-Length: 5")}hello`, "204 "],
  ["304 with a length", head("HTTP/1.1 304 N", "Content-Length: 5"), "304 "],
  ["256 headers", hello(...Array.from({ length: 255 }, (_, n) => `X-${n}: v`)), "200 hello"],
  ["257 headers", hello(...Array.from({ length: 256 }, (_, n) => `X-${n}: v`)), "too-large headers"],
  ["257 times the same header", hello(...Array<string>(256).fill("X-Same: v")), "too-large headers"],
  [
    "headers of 70 KB",
    hello(...Array.from({ length: 70 }, (_, n) => `X-${n}: ${"v".repeat(1_000)}`)),
    "too-large headers",
  ],
  ["one header of 70 KB", hello(`X-Long: ${"v".repeat(70_000)}`), "too-large headers"],
  [
    "trailers of 70 KB",
    `${head(OK, "Transfer-Encoding: chunked")}0\r\nT: ${"t".repeat(70_000)}\r\n\r\n`,
    "too-large headers",
  ],
];

describe("what a server says", () => {
  it.each(TABLE)("%s", async (_what, says, comesTo) => {
    say = (socket) => socket.end(Buffer.from(says, "latin1"));
    expect(await outcome(setup({ headersTimeoutMs: 2_000 }))).toBe(comesTo);
  });

  it.each<[string, string, string]>([
    ["blank lines", "", "\r\n".repeat(1_000)],
    ["a status line", "HTTP/1.1 200 ", "x".repeat(10_000)],
    ["one header's name", `${OK}\r\n`, "x".repeat(10_000)],
    ["one header's value", `${OK}\r\nX: `, "x".repeat(10_000)],
    ["headers", `${OK}\r\n`, "X: y\r\n".repeat(1_000)],
    ["interim answers", "", head("HTTP/1.1 103 E", "Link: x").repeat(100)],
    ["a chunk's extension", `${head(OK, "Transfer-Encoding: chunked")}5;`, "x".repeat(10_000)],
    ["trailers", `${head(OK, "Transfer-Encoding: chunked")}0\r\n`, "T: y\r\n".repeat(1_000)],
    ["a body", `${head(OK)}`, "x".repeat(10_000)],
    ["empty gzip members", head(OK, "Content-Encoding: gzip"), gzipSync("").toString("latin1").repeat(500)],
  ])("for ever ends, and takes no memory: %s", async (_what, start, rest) => {
    say = (socket) => {
      socket.write(Buffer.from(start, "latin1"));
      endlessly(socket, Buffer.from(rest, "latin1"));
    };
    const before = process.memoryUsage().rss;
    const fetcher = setup({ headersTimeoutMs: 300, bodyTimeoutMs: 300, minRateWindowMs: 300 });
    expect(await outcome(fetcher)).toMatch(/^(network|too-large|timeout)/);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * MiB);
    await expect.poll(() => sockets.size, { timeout: 5_000 }).toBe(0);
  });
});

type Compress = (body: Buffer) => Buffer;
const zstd = (zlib as unknown as { zstdCompressSync?: Compress }).zstdCompressSync;
const COMPRESS: Readonly<Record<string, Compress>> = {
  gzip: (body) => gzipSync(body),
  deflate: (body) => deflateSync(body),
  br: (body) => brotliCompressSync(body, { params: { [constants.BROTLI_PARAM_QUALITY]: 3 } }),
  ...(zstd !== undefined && { zstd }),
};
const ZEROS = Buffer.alloc(128 * MiB);

describe("a bomb", () => {
  const codings = Object.keys(COMPRESS);
  const stacks = [
    ...codings.map((one) => [one]),
    ...codings.map((one) => ["gzip", one]),
    ["gzip", "gzip", "gzip"],
  ];

  it.each(stacks)("costs neither memory nor time: %s %s %s", async (...given) => {
    const stack = given.filter((one) => one !== undefined);
    let bomb: Buffer = ZEROS;
    for (const one of stack) bomb = COMPRESS[one]?.(bomb) ?? bomb;
    say = (socket) => {
      socket.write(head(OK, `Content-Encoding: ${stack.join(", ")}`, `Content-Length: ${bomb.length}`));
      socket.write(bomb);
    };
    const fetcher = setup();
    const before = process.memoryUsage();
    const cpu = process.cpuUsage();
    expect(await outcome(fetcher, MiB)).toBe("too-large");

    // As a stream, too, and when only its beginning is looked at.
    const streamed = await fetcher.fetch({ url: url() });
    let bytes = 0;
    const reading = (async () => {
      for await (const chunk of streamed.body.stream(MiB)) bytes += chunk.length;
    })();
    await expect(reading).rejects.toMatchObject({ reason: "too-large" });
    expect(bytes).toBeLessThanOrEqual(MiB);
    const peeked = await fetcher.fetch({ url: url() });
    expect((await peeked.body.peek(16)).length).toBeLessThanOrEqual(16);
    peeked.body.discard();

    const { user, system } = process.cpuUsage(cpu);
    // All of it would be 128 MiB, three times.
    expect(process.memoryUsage().rss - before.rss).toBeLessThan(64 * MiB);
    expect((user + system) / 1_000).toBeLessThan(1_500);
  });

  it("that is long on the wire is not read to its end", async () => {
    const piece = gzipSync(ZEROS.subarray(0, MiB));
    say = (socket) => {
      socket.write(head(OK, "Content-Encoding: gzip"));
      endlessly(socket, Buffer.concat(Array<Buffer>(100).fill(piece)));
    };
    expect(await outcome(setup(), MiB)).toBe("too-large");
    await expect.poll(() => sockets.size, { timeout: 5_000 }).toBe(0);
    // What was on its way when it was given up, and not more.
    expect(sent).toBeLessThan(16 * MiB);
  });
});
