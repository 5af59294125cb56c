import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { SeededRandom } from "./seeded-random.js";

/** One host of the site: what it is like, and not how it wants to be treated. */
export type PoliteHost = {
  readonly address: string;
  /** How long a page takes, in milliseconds. */
  readonly pageMs: readonly [least: number, most: number];
  readonly bodyBytes: number;
  /** @default 404 */
  readonly robots?: string;
  /** Each page whose number is a multiple of it asks, the first time, to leave the host alone. */
  readonly stormEvery?: number;
  readonly retryAfterSeconds?: number;
};

/**
 * A request as the server saw it. Instants in milliseconds on the clock of `performance.now()`. It has begun when it
 * was read, which is never before it was sent; and it has ended just before the last of its answer was written, or when
 * its connection was closed. So what is found between two requests is never shorter than what their client left.
 */
export type LoggedRequest = {
  readonly host: string;
  readonly path: string;
  readonly at: number;
  endedAt: number;
  /** Bytes of the answer's body. */
  bytes: number;
  status: number;
  /** Set: for how long it asked to be left alone, in milliseconds. */
  retryAfterMs?: number;
  /** The client went away before it had its answer. */
  wasCut: boolean;
};

/** Many hosts on loopback that tell nothing of their manners, and keep a log of what visitors did. */
export class PoliteSite {
  readonly log: LoggedRequest[] = [];
  readonly #hosts: ReadonlyMap<string, PoliteHost>;
  readonly #stormed = new Set<string>();
  readonly #random: SeededRandom;
  readonly #server: Server;
  #port = 0;

  private constructor(hosts: readonly PoliteHost[], random: SeededRandom) {
    this.#hosts = new Map(hosts.map((host) => [host.address, host]));
    this.#random = random;
    this.#server = createServer((request, response) => this.#serve(request, response));
    this.#server.keepAliveTimeout = 60_000;
  }

  static async start(hosts: readonly PoliteHost[], random: SeededRandom): Promise<PoliteSite> {
    const site = new PoliteSite(hosts, random);
    site.#server.listen(0, "0.0.0.0");
    await once(site.#server, "listening");
    site.#port = (site.#server.address() as AddressInfo).port;
    return site;
  }

  url(address: string, path: string): string {
    return `http://${address}:${this.#port}${path}`;
  }

  /** What was asked of a host, by when it came; robots.txt aside unless it is wanted. */
  requestsOf(address: string, withRobots = false): readonly LoggedRequest[] {
    return this.log
      .filter(({ host, path }) => host === address && (withRobots || path !== "/robots.txt"))
      .sort((one, other) => one.at - other.at);
  }

  async stop(): Promise<void> {
    this.#server.close();
    this.#server.closeAllConnections();
    await once(this.#server, "close");
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    const at = performance.now();
    const address = (request.headers.host ?? "").replace(/:\d+$/, "");
    const path = request.url ?? "/";
    const entry: LoggedRequest = {
      host: address,
      path,
      at,
      endedAt: Number.POSITIVE_INFINITY,
      bytes: 0,
      status: 0,
      wasCut: false,
    };
    this.log.push(entry);
    const host = this.#hosts.get(address);
    const answer = (status: number, body: string, headers: Record<string, string> = {}) => {
      if (response.closed) return;
      entry.status = status;
      entry.bytes = body.length;
      entry.endedAt = performance.now();
      response.writeHead(status, { "content-type": "text/html", ...headers }).end(body);
    };
    response.on("close", () => {
      if (entry.endedAt !== Number.POSITIVE_INFINITY) return;
      entry.endedAt = performance.now();
      entry.wasCut = true;
    });
    if (host === undefined) return void answer(404, "");
    if (path === "/robots.txt") {
      if (host.robots === undefined) answer(404, "");
      else answer(200, host.robots, { "content-type": "text/plain" });
      return;
    }
    const [least, most] = host.pageMs;
    setTimeout(
      () => {
        const number = Number(/\d+$/.exec(path)?.[0] ?? 1);
        const { stormEvery, retryAfterSeconds = 1 } = host;
        const key = `${address}${path}`;
        if (stormEvery !== undefined && number % stormEvery === 0 && !this.#stormed.has(key)) {
          this.#stormed.add(key);
          entry.retryAfterMs = retryAfterSeconds * 1_000;
          const status = (number / stormEvery) % 2 === 0 ? 429 : 503;
          return void answer(status, "", { "retry-after": String(retryAfterSeconds) });
        }
        const title = `<!doctype html><title>${path}</title>`;
        answer(200, title.padEnd(host.bodyBytes, " "));
      },
      this.#random.between(least, most),
    );
  }
}

/** The most requests that were under way at once, given in the order of their arrival. */
export function mostAtOnce(requests: readonly LoggedRequest[]): number {
  const steps = requests
    .flatMap(({ at, endedAt }) => [
      { at, by: 1 },
      { at: endedAt, by: -1 },
    ])
    .sort((one, other) => one.at - other.at || one.by - other.by);
  let now = 0;
  let most = 0;
  for (const { by } of steps) {
    now += by;
    most = Math.max(most, now);
  }
  return most;
}

export type Gap = { readonly ms: number; readonly before: LoggedRequest; readonly after: LoggedRequest };

/** From the end of everything before it to the beginning of each request; negative where they overlap. */
export function gapsOf(requests: readonly LoggedRequest[]): readonly Gap[] {
  const gaps: Gap[] = [];
  let last: LoggedRequest | undefined;
  for (const request of requests) {
    if (last !== undefined) gaps.push({ ms: request.at - last.endedAt, before: last, after: request });
    if (last === undefined || request.endedAt > last.endedAt) last = request;
  }
  return gaps;
}

/** How many milliseconds too early a request came for what those before it had brought; 0 when none did. */
export function worstHaste(requests: readonly LoggedRequest[], bytesPerSecond: number): number {
  let worst = 0;
  // Paid for from when each began: the time until which all before it keep the host busy.
  let paidUntil = Number.NEGATIVE_INFINITY;
  for (const { at, bytes } of requests) {
    worst = Math.max(worst, paidUntil - at);
    paidUntil = Math.max(paidUntil, at) + (bytes * 1_000) / bytesPerSecond;
  }
  return Math.max(0, worst);
}
