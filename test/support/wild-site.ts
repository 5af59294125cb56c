import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync } from "node:zlib";

/** One request as the site saw it. Instants in milliseconds on the clock of `performance.now()`. */
export type SeenRequest = {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** The `host` header. */
  readonly host: string;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly at: number;
  /** When the response was sent, or its connection closed. */
  endedAt?: number;
};

export type SitePage = {
  readonly body: string | Buffer;
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
};

export type SiteHandler = (request: IncomingMessage, response: ServerResponse, url: URL) => void;

export type WildSiteOptions = {
  /** Loopback address to listen on; each 127.x.y.z is a host of its own. @default "127.0.0.1" */
  readonly address?: string;
  /** Addresses to listen on besides, on the same port. */
  readonly alsoOn?: readonly string[];
  /** How many generated pages there are: `/site/0` to `/site/<pages - 1>`. @default 0 */
  readonly pages?: number;
  /** Links on each generated page. @default 5 */
  readonly linksPerPage?: number;
  /** How long a generated page takes, in milliseconds. @default 0 */
  readonly pageDelayMs?: number;
  /** robots.txt. @default 404 */
  readonly robots?: string | SitePage;
};

/** What every PDF of the site holds. */
export const PDF_BYTES = Buffer.from(
  "%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\ntrailer\n<< /Root 1 0 R >>\n%%EOF\n",
);

const MiB = 1_048_576;

/**
 * A web server with bad manners, for tests: each behaviour has a route (see ROUTES), pages can be added under
 * any path, and every request is on record, so that a test can tell how often a URL was fetched, how many
 * requests were under way at once, and how long a host was left alone.
 */
export class WildSite {
  readonly requests: SeenRequest[] = [];
  readonly address: string;
  readonly port: number;
  readonly #options: WildSiteOptions;
  readonly #servers: readonly Server[];
  readonly #pages = new Map<string, SitePage | SiteHandler>();
  readonly #watchers = new Set<() => void>();
  robots: string | SitePage | undefined;

  private constructor(servers: readonly Server[], address: string, port: number, options: WildSiteOptions) {
    this.#servers = servers;
    this.#options = options;
    this.address = address;
    this.port = port;
    this.robots = options.robots;
    for (const server of servers) {
      server.on("request", (request, response) => this.#serve(request, response));
      // What a client sends or cuts off is no concern of the site.
      server.on("clientError", (_error, socket) => socket.destroy());
    }
  }

  static async start(options: WildSiteOptions = {}): Promise<WildSite> {
    const address = options.address ?? "127.0.0.1";
    const first = await listen(address, 0);
    const { port } = first.address() as AddressInfo;
    const others = await Promise.all((options.alsoOn ?? []).map((other) => listen(other, port)));
    return new WildSite([first, ...others], address, port, options);
  }

  /** Scheme, address and port, without a slash. */
  get origin(): string {
    return `http://${this.address}:${this.port}`;
  }

  /** Its front page. */
  get url(): string {
    return `${this.origin}/`;
  }

  /** The origin of another of its addresses. */
  originOn(address: string): string {
    return `http://${address}:${this.port}`;
  }

  /** Serves this under a path (with its query, if it has one), before any route. */
  page(path: string, page: string | SitePage | SiteHandler): void {
    this.#pages.set(path, typeof page === "string" ? { body: page } : page);
  }

  /** How often each path was asked for, robots.txt aside. */
  counts(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>();
    for (const { path, host } of this.requests) {
      if (path === "/robots.txt") continue;
      const key = host === `${this.address}:${this.port}` ? path : `${host}${path}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return counts;
  }

  requestsOf(path: string): readonly SeenRequest[] {
    return this.requests.filter((request) => request.path === path);
  }

  /** The most requests that were under way at once, on one host or in all; robots.txt counts. */
  maxInFlight(host?: string): number {
    const edges = this.requests
      .filter((request) => host === undefined || request.host === host)
      .flatMap(({ at, endedAt = Number.POSITIVE_INFINITY }): [number, number][] => [
        [at, 1],
        [endedAt, -1],
      ])
      // An end and a start at the same instant do not overlap.
      .sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    let inFlight = 0;
    let most = 0;
    for (const [, change] of edges) {
      inFlight += change;
      most = Math.max(most, inFlight);
    }
    return most;
  }

  /** Milliseconds from the end of each request to the start of the next on that host, robots.txt aside. */
  gaps(host?: string): readonly number[] {
    const ordered = this.requests
      .filter((request) => request.path !== "/robots.txt" && (host === undefined || request.host === host))
      .sort((a, b) => a.at - b.at);
    return ordered
      .slice(1)
      .map(({ at }, index) => at - (ordered[index]?.endedAt ?? Number.POSITIVE_INFINITY));
  }

  /** Resolves when as many requests (for this path) came in, however long that takes. */
  async arrived(count: number, path?: string): Promise<void> {
    const isThere = () => (path === undefined ? this.requests : this.requestsOf(path)).length >= count;
    while (!isThere()) {
      await new Promise<void>((resolve) => {
        this.#watchers.add(resolve);
      });
    }
  }

  /** How many connections are open. */
  async connections(): Promise<number> {
    const counts = this.#servers.map(
      (server) =>
        new Promise<number>((resolve, reject) => {
          server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)));
        }),
    );
    return (await Promise.all(counts)).reduce((sum, count) => sum + count, 0);
  }

  async close(): Promise<void> {
    await Promise.all(
      this.#servers.map(
        (server) =>
          new Promise<void>((resolve) => {
            server.close(() => resolve());
            server.closeAllConnections();
          }),
      ),
    );
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? "/";
    const seen: SeenRequest = {
      method: request.method ?? "",
      path,
      host: request.headers.host ?? "",
      headers: request.headers,
      at: performance.now(),
    };
    this.requests.push(seen);
    const onEnd = () => {
      seen.endedAt ??= performance.now();
    };
    response.on("close", onEnd);
    request.socket.on("close", onEnd);
    request.socket.setMaxListeners(0);
    const watchers = [...this.#watchers];
    this.#watchers.clear();
    for (const wake of watchers) wake();
    this.#answer(request, response, new URL(path, this.origin));
  }

  #answer(request: IncomingMessage, response: ServerResponse, url: URL): void {
    const page = this.#pages.get(url.pathname + url.search) ?? this.#pages.get(url.pathname);
    if (typeof page === "function") page(request, response, url);
    else if (page !== undefined) send(response, page);
    else if (url.pathname === "/robots.txt") this.#robotsTxt(response);
    else if (url.pathname.startsWith("/site/")) this.#generated(response, url);
    else {
      const [, name = "", ...rest] = url.pathname.split("/");
      const route = ROUTES[name];
      if (route === undefined) send(response, { status: 404, body: "not found" });
      else route({ request, response, url, rest: rest.join("/"), socket: request.socket });
    }
  }

  #robotsTxt(response: ServerResponse): void {
    const { robots } = this;
    if (robots === undefined) send(response, { status: 404, body: "none" });
    else if (typeof robots === "string") send(response, textOf(robots));
    else send(response, robots);
  }

  #generated(response: ServerResponse, url: URL): void {
    const { pages = 0, linksPerPage = 5, pageDelayMs = 0 } = this.#options;
    const number = Number(url.pathname.slice("/site/".length));
    if (!Number.isInteger(number) || number < 0 || number >= pages) {
      send(response, { status: 404, body: "not found" });
      return;
    }
    // Each page leads to its children in a tree, so that all are reached, and on to others.
    const links = Array.from(
      { length: linksPerPage },
      (_, index) => (number * linksPerPage + index + 1) % pages,
    );
    const list = links.map((target) => `<li><a href="/site/${target}">page ${target}</a></li>`).join("");
    const body = `<!doctype html><title>Page ${number}</title><h1>Page ${number}</h1><ul>${list}</ul>`;
    const answer = () => send(response, { body });
    if (pageDelayMs > 0) later(response, pageDelayMs, answer);
    else answer();
  }
}

export function startWildSite(options: WildSiteOptions = {}): Promise<WildSite> {
  return WildSite.start(options);
}

function listen(address: string, port: number): Promise<Server> {
  // Limits off: it is the client that is put to the test.
  const server = createServer({ keepAliveTimeout: 5_000, requestTimeout: 0, headersTimeout: 0 });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, address, () => resolve(server));
  });
}

function send(response: ServerResponse, page: SitePage): void {
  const body = typeof page.body === "string" ? Buffer.from(page.body) : page.body;
  response.statusCode = page.status ?? 200;
  const headers = { "content-type": "text/html; charset=utf-8", ...page.headers };
  for (const [name, value] of Object.entries(headers)) {
    if (value !== "") response.setHeader(name, value as string | string[]);
  }
  response.setHeader("content-length", body.length);
  response.end(body);
}

function textOf(body: string): SitePage {
  return { body, headers: { "content-type": "text/plain" } };
}

/** Calls `act` after a while, unless the client has gone by then. */
function later(response: ServerResponse, ms: number, act: () => void): void {
  const timer = setTimeout(act, ms);
  response.on("close", () => clearTimeout(timer));
}

/** Writes as fast as the client takes it, until the client goes. */
function pour(response: ServerResponse, piece: Buffer): void {
  const go = () => {
    while (!response.destroyed && !response.socket?.destroyed) {
      if (!response.write(piece)) {
        response.once("drain", go);
        return;
      }
    }
  };
  go();
}

type Visit = {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  /** The path after the route's name and a slash. */
  readonly rest: string;
  readonly socket: Socket;
};

const HTML = { "content-type": "text/html; charset=utf-8" };
const PAGE = "<!doctype html><title>Fine</title><p>As it should be.</p>";

function encodedPage(encoding: string, body: Buffer): (visit: Visit) => void {
  return ({ response }) => send(response, { body, headers: { ...HTML, "content-encoding": encoding } });
}

function raw(text: string | Buffer, end = true): (visit: Visit) => void {
  return ({ socket }) => {
    if (end) socket.end(text);
    else socket.write(text);
  };
}

/** The word for "hello" of each language, and its bytes in the character set. */
export const CHARSETS: Readonly<Record<string, { readonly text: string; readonly bytes: Buffer }>> = {
  shift_jis: {
    text: "こんにちは",
    bytes: Buffer.from([0x82, 0xb1, 0x82, 0xf1, 0x82, 0xc9, 0x82, 0xbf, 0x82, 0xcd]),
  },
  "euc-jp": {
    text: "こんにちは",
    bytes: Buffer.from([0xa4, 0xb3, 0xa4, 0xf3, 0xa4, 0xcb, 0xa4, 0xc1, 0xa4, 0xcf]),
  },
  "windows-1251": { text: "Привет", bytes: Buffer.from([0xcf, 0xf0, 0xe8, 0xe2, 0xe5, 0xf2]) },
  "koi8-r": { text: "Привет", bytes: Buffer.from([0xf0, 0xd2, 0xc9, 0xd7, 0xc5, 0xd4]) },
  gb2312: { text: "你好", bytes: Buffer.from([0xc4, 0xe3, 0xba, 0xc3]) },
  big5: { text: "你好", bytes: Buffer.from([0xa7, 0x41, 0xa6, 0x6e]) },
  "euc-kr": { text: "안녕", bytes: Buffer.from([0xbe, 0xc8, 0xb3, 0xe7]) },
  "windows-1252": {
    text: "€5 – café",
    bytes: Buffer.from([0x80, 0x35, 0x20, 0x96, 0x20, 0x63, 0x61, 0x66, 0xe9]),
  },
  "iso-8859-2": { text: "Dzień", bytes: Buffer.from([0x44, 0x7a, 0x69, 0x65, 0xf1]) },
  "utf-8": { text: "Grüße", bytes: Buffer.from("Grüße") },
};

/** A page in a character set: named in the header, in a meta element, or nowhere. */
export function charsetPage(charset: string, named: "header" | "meta" | "nowhere"): SitePage {
  const sample = CHARSETS[charset];
  if (sample === undefined) throw new Error(`no sample in ${charset}`);
  const meta = named === "meta" ? `<meta charset="${charset}">` : "";
  const body = Buffer.concat([
    Buffer.from(`<!doctype html>${meta}<title>`),
    sample.bytes,
    Buffer.from("</title>"),
  ]);
  return {
    body,
    headers: { "content-type": named === "header" ? `text/html; charset=${charset}` : "text/html" },
  };
}

/** What the site does, by the first part of the path. */
const ROUTES: Readonly<Record<string, (visit: Visit) => void>> = {
  "": ({ response }) => send(response, { body: PAGE }),
  ok: ({ response }) => send(response, { body: PAGE }),
  /** `/status/503?retry-after=2` */
  status: ({ response, url, rest }) => {
    const after = url.searchParams.get("retry-after");
    const headers = after === null ? HTML : { ...HTML, "retry-after": after };
    const status = Number(rest);
    if (status === 204 || status === 304) response.writeHead(status, headers).end();
    else send(response, { status, headers, body: `status ${rest}` });
  },
  /** `/redirect/3?status=301` leads over `/redirect/2` and `/redirect/1` to `/ok`. */
  redirect: ({ response, url, rest }) => {
    const left = Number(rest);
    const status = Number(url.searchParams.get("status") ?? 302);
    const location = left > 1 ? `/redirect/${left - 1}${url.search}` : "/ok";
    send(response, { status, headers: { location }, body: "" });
  },
  "redirect-loop": ({ response, rest }) =>
    send(response, {
      status: 302,
      headers: { location: `/redirect-loop/${rest === "a" ? "b" : "a"}` },
      body: "",
    }),
  /** `/redirect-to?url=…&status=` */
  "redirect-to": ({ response, url }) =>
    send(response, {
      status: Number(url.searchParams.get("status") ?? 302),
      headers: { location: url.searchParams.get("url") ?? "" },
      body: "",
    }),
  "redirect-utf8": raw("HTTP/1.1 302 Found\r\nlocation: /café\r\ncontent-length: 0\r\n\r\n"),
  "redirect-nowhere": ({ response }) => send(response, { status: 302, body: "" }),
  /** Echoes method, headers and body as JSON. */
  echo: ({ request, response }) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const { method, headers, url } = request;
      const body = JSON.stringify({ method, url, headers, body: Buffer.concat(chunks).toString() });
      send(response, { body, headers: { "content-type": "application/json" } });
    });
  },

  // Slow ones.
  /** `/slow-headers?ms=500` */
  "slow-headers": ({ response, url }) =>
    later(response, Number(url.searchParams.get("ms") ?? 100), () => send(response, { body: PAGE })),
  "never-headers": () => {},
  /** Accepts, sends half a status line, and no more. */
  "half-status-line": raw("HTTP/1.1 20", false),
  /** `/slow-body?ms=20&pieces=5` */
  "slow-body": ({ response, url }) => {
    const ms = Number(url.searchParams.get("ms") ?? 10);
    let left = Number(url.searchParams.get("pieces") ?? 3);
    response.writeHead(200, HTML);
    const next = () => {
      response.write("<p>piece</p>");
      left -= 1;
      if (left > 0) later(response, ms, next);
      else response.end();
    };
    next();
  },
  /** A byte now and then, for ever. */
  drip: ({ response }) => {
    response.writeHead(200, HTML);
    const timer = setInterval(() => response.write("."), 10);
    response.on("close", () => clearInterval(timer));
  },
  /** A header now and then, for ever. */
  "drip-headers": ({ socket }) => {
    socket.write("HTTP/1.1 200 OK\r\n");
    const timer = setInterval(() => socket.write("x-more: y\r\n"), 10);
    socket.on("close", () => clearInterval(timer));
  },
  stalled: ({ response }) => {
    response.writeHead(200, { ...HTML, "content-length": "1000" });
    response.write("<p>only this");
  },

  // Too much.
  "endless-body": ({ response }) => {
    response.writeHead(200, HTML);
    pour(response, Buffer.alloc(65_536, "endless "));
  },
  "endless-headers": ({ socket }) => {
    socket.write("HTTP/1.1 200 OK\r\n");
    const line = `x-flood: ${"y".repeat(1_000)}\r\n`.repeat(64);
    const go = () => {
      while (!socket.destroyed && socket.write(line));
    };
    socket.on("drain", go);
    socket.on("error", () => {});
    go();
  },
  /** One header of a million bytes. */
  "huge-header": raw(`HTTP/1.1 200 OK\r\nx-huge: ${"z".repeat(1_000_000)}\r\ncontent-length: 2\r\n\r\nok`),
  "many-headers": raw(
    `HTTP/1.1 200 OK\r\n${Array.from({ length: 20_000 }, (_, n) => `x-${n}: ${n}\r\n`).join("")}content-length: 2\r\n\r\nok`,
  ),
  /** `/size/100000` */
  size: ({ response, rest }) => send(response, { body: Buffer.alloc(Number(rest), "s") }),
  /** The same without a content length. */
  "chunked-size": ({ response, rest }) => {
    response.writeHead(200, HTML);
    response.end(Buffer.alloc(Number(rest), "s"));
  },
  "claims-too-much": ({ response }) => {
    response.writeHead(200, { ...HTML, "content-length": String(1_024 * MiB) });
    response.write("beginning of what never comes");
  },
  "deep-html": ({ response, rest }) => send(response, { body: "<div>".repeat(Number(rest || 100_000)) }),
  interim: ({ socket }) => {
    const hint = "HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n";
    socket.write(
      `${hint.repeat(3)}HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain\r\n\r\nok`,
    );
  },
  "interim-flood": ({ socket }) => {
    const hints = "HTTP/1.1 103 Early Hints\r\nx-a: b\r\n\r\n".repeat(100);
    const go = () => {
      while (!socket.destroyed && socket.write(hints));
    };
    socket.on("drain", go);
    socket.on("error", () => {});
    go();
  },

  // Encoded ones.
  gzip: encodedPage("gzip", gzipSync(PAGE)),
  "x-gzip": encodedPage("x-gzip", gzipSync(PAGE)),
  deflate: encodedPage("deflate", deflateSync(PAGE)),
  "deflate-raw": encodedPage("deflate", deflateRawSync(PAGE)),
  br: encodedPage("br", brotliCompressSync(PAGE)),
  "br-gzip": encodedPage("br, gzip", gzipSync(brotliCompressSync(PAGE))),
  "gzip-big": encodedPage("gzip", gzipSync(Buffer.alloc(200_000, PAGE))),
  "gzip-no-trailer": encodedPage("gzip", gzipSync(PAGE).subarray(0, -8)),
  "gzip-not": encodedPage("gzip", Buffer.from(PAGE)),
  "gzip-broken": ({ response }) => {
    const body = gzipSync(Buffer.alloc(10_000, PAGE));
    body.fill(0xff, 40, 60);
    send(response, { body, headers: { ...HTML, "content-encoding": "gzip" } });
  },
  "odd-encoding": encodedPage("utf-8", Buffer.from(PAGE)),
  "unknown-encoding": encodedPage("compress", Buffer.from(PAGE)),
  "many-encodings": encodedPage("gzip, gzip, gzip, gzip, gzip", gzipSync(PAGE)),
  "gzip-empty": encodedPage("gzip", Buffer.alloc(0)),
  /** 64 MiB of nothing in 64 KiB. */
  "gzip-bomb": ({ response }) =>
    send(response, { body: gzipBomb(), headers: { ...HTML, "content-encoding": "gzip" } }),
  "br-bomb": ({ response }) =>
    send(response, { body: brotliBomb(), headers: { ...HTML, "content-encoding": "br" } }),
  "double-bomb": ({ response }) =>
    send(response, { body: gzipSync(gzipBomb()), headers: { ...HTML, "content-encoding": "gzip, gzip" } }),

  // Broken ones.
  garbage: raw("\u0000\u0001\u0002 this is not HTTP at all \r\n\r\n"),
  "garbage-status": raw("HTTP/1.1 banana fine\r\ncontent-length: 2\r\n\r\nok"),
  "garbage-header": raw("HTTP/1.1 200 OK\r\nthis line has no colon\r\ncontent-length: 2\r\n\r\nok"),
  "null-header": raw("HTTP/1.1 200 OK\r\nx-null: a\u0000b\r\ncontent-length: 2\r\n\r\nok"),
  "no-answer": ({ socket }) => socket.destroy(),
  reset: ({ socket }) => socket.resetAndDestroy(),
  "reset-in-body": ({ response, socket }) => {
    response.writeHead(200, { ...HTML, "content-length": "1000" });
    response.write("<p>half a page", () => socket.resetAndDestroy());
  },
  "short-body": raw("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nonly this"),
  "long-body": raw(
    "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-type: text/plain\r\n\r\nhello and much more",
  ),
  "cut-chunks": raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"),
  "bad-chunk": raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\nhello\r\n"),
  "two-lengths": raw("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 7\r\n\r\nok"),
  "length-and-chunks": raw(
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
  ),
  "until-close": raw("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end"),
  "http-0.9": raw("<html>no status line at all</html>"),
  switching: raw("HTTP/1.1 101 Switching Protocols\r\nupgrade: banana\r\nconnection: upgrade\r\n\r\nbananas"),
  "two-answers": raw(
    "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged",
  ),

  // Types and character sets.
  /** `/charset/shift_jis?named=meta` */
  charset: ({ response, url, rest }) => {
    const named = url.searchParams.get("named");
    send(response, charsetPage(rest, named === "meta" || named === "nowhere" ? named : "header"));
  },
  pdf: ({ response }) => send(response, { body: PDF_BYTES, headers: { "content-type": "application/pdf" } }),
  "pdf-untyped": ({ response }) => send(response, { body: PDF_BYTES, headers: { "content-type": "" } }),
  "pdf-as-html": ({ response }) => send(response, { body: PDF_BYTES }),
  "html-as-pdf": ({ response }) =>
    send(response, { body: PAGE, headers: { "content-type": "application/pdf" } }),
  "pdf-gzip": ({ response }) =>
    send(response, {
      body: gzipSync(PDF_BYTES),
      headers: { "content-type": "application/pdf", "content-encoding": "gzip" },
    }),
  type: ({ response, url }) =>
    send(response, { body: PAGE, headers: { "content-type": url.searchParams.get("is") ?? "" } }),
  cookies: ({ response }) => send(response, { body: PAGE, headers: { "set-cookie": ["a=1", "b=2"] } }),
};

let gzipBombBytes: Buffer | undefined;
function gzipBomb(): Buffer {
  gzipBombBytes ??= gzipSync(Buffer.alloc(64 * MiB), { level: 9 });
  return gzipBombBytes;
}

let brotliBombBytes: Buffer | undefined;
function brotliBomb(): Buffer {
  brotliBombBytes ??= brotliCompressSync(Buffer.alloc(64 * MiB), {
    params: { [constants.BROTLI_PARAM_QUALITY]: 5 },
  });
  return brotliBombBytes;
}
