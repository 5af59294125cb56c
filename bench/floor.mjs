/**
 * The floor: what a crawl cannot do without, and nothing else. Fetch with undici's Pool, scan with the crawler's
 * own parser, bring each link into canonical form, keep it if it is new. No politeness, robots.txt, checks,
 * records, retries. In one process, or in two that own half of the hosts each and hand each other, in batches
 * over IPC, the links to the other's.
 *
 * usage: floor.mjs DIST [with-peer]; started with an IPC channel.
 * In: `{ hosts, seeds, concurrency }`. Out: `{ type: "listening", peer }` with the pid of the second process and,
 * when no page is left, `{ type: "finished", pages, at }`.
 */
import { fork } from "node:child_process";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Pool } from "undici";

/** Links for the other process go out together when there are so many, or when the loop comes round. */
const BATCH = 256;

const [dist, role] = process.argv.slice(2);
const load = (file) => import(pathToFileURL(path.join(dist, file)).href);
const { parseHtml } = await load("crawl/pages/parser.js");
const { canonicalUrl } = await load("crawl/urls/url.js");
/** Connections to a host: as many as the crawler opens. Fewer handshakes, and faster than one a request. */
const { maxConcurrencyPerHost } = (await load("crawl/crawl.js")).DEFAULT_POLITENESS;

class Floor {
  pages = 0;
  sent = 0;
  received = 0;
  #queue = [];
  #next = 0;
  #active = 0;
  #concurrency;
  #seen = new Set();
  #pools = new Map();
  #outbox = [];
  #isFlushing = false;
  #ownsHost;
  #forward;
  #onIdle;

  constructor({ concurrency, ownsHost, forward, onIdle }) {
    this.#concurrency = concurrency;
    this.#ownsHost = ownsHost;
    this.#forward = forward;
    this.#onIdle = onIdle;
  }

  get isIdle() {
    return this.#active === 0 && this.#next === this.#queue.length && this.#outbox.length === 0;
  }

  begin(seeds) {
    for (const seed of seeds) this.#offer(canonicalUrl(seed));
    this.#fill();
    this.#checkIdle();
  }

  receive(urls) {
    this.received += urls.length;
    for (const url of urls) {
      if (this.#seen.has(url)) continue;
      this.#seen.add(url);
      this.#queue.push(url);
    }
    this.#fill();
    this.#checkIdle();
  }

  async close() {
    await Promise.all([...this.#pools.values()].map((pool) => pool.close()));
  }

  #fill() {
    while (this.#active < this.#concurrency && this.#next < this.#queue.length) {
      const url = this.#queue[this.#next];
      this.#next += 1;
      this.#active += 1;
      this.#visit(url).catch(fail);
    }
  }

  async #visit(url) {
    const pathStart = url.indexOf("/", 8);
    const origin = url.slice(0, pathStart);
    let pool = this.#pools.get(origin);
    if (pool === undefined) {
      pool = new Pool(origin, { connections: maxConcurrencyPerHost });
      this.#pools.set(origin, pool);
    }
    const { statusCode, headers, body } = await pool.request({ path: url.slice(pathStart), method: "GET" });
    const bytes = Buffer.from(await body.arrayBuffer());
    if (statusCode !== 200) throw new Error(`${url}: status ${statusCode}`);
    const contentType = headers["content-type"];
    const { title, links } = parseHtml(bytes, { url, contentType }).scan();
    if (title === "") throw new Error(`${url}: no title`);
    for (const { href, nofollow } of links) if (!nofollow) this.#offer(canonicalUrl(href, url));
    this.pages += 1;
    this.#active -= 1;
    this.#fill();
    this.#checkIdle();
  }

  #offer(target) {
    if (target === undefined || this.#seen.has(target.key)) return;
    this.#seen.add(target.key);
    if (this.#ownsHost(target.hostname)) this.#queue.push(target.url);
    else this.#send(target.url);
  }

  #send(url) {
    this.#outbox.push(url);
    if (this.#outbox.length >= BATCH) this.#flush();
    else if (!this.#isFlushing) {
      this.#isFlushing = true;
      setImmediate(() => {
        this.#isFlushing = false;
        this.#flush();
        this.#checkIdle();
      });
    }
  }

  #flush() {
    if (this.#outbox.length === 0) return;
    this.sent += this.#outbox.length;
    this.#forward(this.#outbox);
    this.#outbox = [];
  }

  #checkIdle() {
    if (this.isIdle) this.#onIdle();
  }
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

function ownHalf(hosts, half) {
  const own = new Set(hosts.filter((_, index) => index % 2 === half));
  return (hostname) => own.has(hostname);
}

/** The second process: told by the first what to do. */
function runPeer() {
  let floor;
  process.on("message", (message) => {
    if (Array.isArray(message)) floor.receive(message);
    else {
      floor = new Floor({
        concurrency: message.concurrency,
        ownsHost: ownHalf(message.hosts, 1),
        forward: (urls) => process.send(urls),
        onIdle: () => {
          const { pages, sent, received } = floor;
          process.send({ type: "idle", pages, sent, received });
        },
      });
    }
  });
  process.send({ type: "listening" });
}

/** The first process: knows when both are done, since messages keep their order and both count links. */
function runFirst() {
  // Profiles, if they are written, must not have one name.
  const execArgv = process.execArgv.map((flag) => flag.replace(/\.cpuprofile$/, "-peer.cpuprofile"));
  const peer =
    role === "with-peer" ? fork(fileURLToPath(import.meta.url), [dist, "peer"], { execArgv }) : undefined;
  let peerState = { pages: 0, sent: 0, received: 0 };
  let floor;
  const finishIfOver = () => {
    const isOver =
      floor.isIdle &&
      (peer === undefined || (peerState.received === floor.sent && peerState.sent === floor.received));
    if (!isOver) return;
    process.send({
      type: "finished",
      pages: floor.pages + peerState.pages,
      at: Number(process.hrtime.bigint()),
    });
  };
  process.on("message", ({ hosts, seeds, concurrency }) => {
    peer?.send({ hosts, concurrency });
    floor = new Floor({
      concurrency,
      ownsHost: peer === undefined ? () => true : ownHalf(hosts, 0),
      forward: (urls) => peer.send(urls),
      onIdle: finishIfOver,
    });
    floor.begin(seeds);
  });
  const listening = () => process.send({ type: "listening", peer: peer?.pid });
  if (peer === undefined) listening();
  peer?.on("message", (message) => {
    if (Array.isArray(message)) floor.receive(message);
    else if (message.type === "listening") listening();
    else {
      peerState = message;
      finishIfOver();
    }
  });
  peer?.on("exit", (code, signal) => fail(new Error(`the second process ended (${code ?? signal})`)));
}

// Whoever started it is done with it, or gone.
process.on("disconnect", () => process.exit(0));
if (role === "peer") runPeer();
else runFirst();
