import type { ServerResponse } from "node:http";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { CrawlLogQuery, CrawlLogs, StoredLogLine } from "../../store/index.js";

export type CrawlLogStreamsOptions = {
  /** How often it looks whether crawls that someone follows have new lines, in milliseconds. @default 300 */
  readonly everyMs: number;
  /** A comment goes out this often, in milliseconds, so that proxies keep the connection and the dead are noticed. @default 15_000 */
  readonly heartbeatMs: number;
  /** A client that has not read anything for so long is dropped, in milliseconds. @default 60_000 */
  readonly patienceMs: number;
};

const DEFAULTS: CrawlLogStreamsOptions = { everyMs: 300, heartbeatMs: 15_000, patienceMs: 60_000 };
const RETRY_MS = 2_000;
/** Lines read for a client at once. */
const LINES_AT_ONCE = 500;

export type FollowedLog = Pick<CrawlLogQuery, "level" | "text" | "node"> & {
  readonly crawl: string;
  /** Number of the line after which it begins. */
  readonly after: number;
};

type Follower = {
  readonly response: ServerResponse;
  readonly query: FollowedLog;
  /** Number of the last line that was read for it. */
  after: number;
  isReading: boolean;
};

/**
 * Logs of crawls as server-sent events. Each client is given what there is after its place, as fast as it reads; how
 * far a log has come is asked of the database, once for all clients of this master. So nothing is kept here for a
 * client, a slow one takes no more than a fast one, and any master can go on where another one ended: the id of an
 * event is the number of its line.
 */
export class CrawlLogStreams {
  readonly #logs: Pick<CrawlLogs, "read" | "lasts">;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #options: CrawlLogStreamsOptions;
  readonly #followers = new Set<Follower>();
  #stopTimer: StopTimer | undefined;
  #stopHeartbeat: StopTimer | undefined;
  #isClosed = false;

  constructor(
    parts: {
      readonly logs: Pick<CrawlLogs, "read" | "lasts">;
      readonly clock: Clock;
      readonly logger: Logger;
    },
    options: Partial<CrawlLogStreamsOptions> = {},
  ) {
    this.#logs = parts.logs;
    this.#clock = parts.clock;
    this.#logger = parts.logger;
    this.#options = { ...DEFAULTS, ...options };
  }

  get clients(): number {
    return this.#followers.size;
  }

  /** Sends these lines, and then those that come after, until the client leaves. */
  add(response: ServerResponse, query: FollowedLog, first: readonly StoredLogLine[]): void {
    if (this.#isClosed) {
      response.end();
      return;
    }
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
      "x-content-type-options": "nosniff",
    });
    const follower: Follower = { response, query, after: query.after, isReading: false };
    response.on("close", () => this.#followers.delete(follower));
    response.on("error", () => this.#followers.delete(follower));
    response.write(`retry: ${RETRY_MS}\n\n${first.map(eventOf).join("")}`);
    this.#followers.add(follower);
    this.#beginHeartbeat();
    this.#arm(0);
  }

  /** Ends every stream. */
  close(): void {
    this.#isClosed = true;
    this.#stopTimer?.();
    this.#stopHeartbeat?.();
    for (const { response } of this.#followers) response.end();
    this.#followers.clear();
  }

  #arm(delayMs: number): void {
    if (this.#isClosed || this.#stopTimer !== undefined || this.#followers.size === 0) return;
    this.#stopTimer = this.#clock.after(delayMs, () => {
      void this.#look().finally(() => {
        this.#stopTimer = undefined;
        this.#arm(this.#options.everyMs);
      });
    });
  }

  async #look(): Promise<void> {
    const waiting = [...this.#followers].filter(({ isReading }) => !isReading);
    if (waiting.length === 0) return;
    try {
      const lasts = await this.#logs.lasts([...new Set(waiting.map(({ query }) => query.crawl))]);
      for (const follower of waiting) {
        if ((lasts.get(follower.query.crawl) ?? 0) > follower.after) void this.#bring(follower);
      }
    } catch (error) {
      this.#logger.debug({ error: messageOf(error) }, "cannot look how far logs of crawls have come");
    }
  }

  /** Reads on for a client until it has everything. */
  async #bring(follower: Follower): Promise<void> {
    const { response, query } = follower;
    const { crawl, after: _after, ...wanted } = query;
    follower.isReading = true;
    try {
      while (this.#followers.has(follower)) {
        const { lines, next } = await this.#logs.read(crawl, {
          ...wanted,
          lines: LINES_AT_ONCE,
          after: follower.after,
        });
        if (next === follower.after || !this.#followers.has(follower)) return;
        follower.after = next;
        // An id by itself is no event, but where to go on: behind lines that were not wanted, too.
        const isBeyond = lines.at(-1)?.number !== next;
        const text = lines.map(eventOf).join("") + (isBeyond ? `id: ${next}\n\n` : "");
        if (!response.write(text)) await this.#drained(follower);
      }
    } catch (error) {
      // It is tried again, from where it was.
      this.#logger.debug({ crawl, error: messageOf(error) }, "cannot read the log of a crawl");
    } finally {
      follower.isReading = false;
    }
  }

  #drained(follower: Follower): Promise<void> {
    const { response } = follower;
    return new Promise((resolve) => {
      const stopTimer = this.#clock.after(this.#options.patienceMs, () => {
        // It comes back by itself, and names the last id that it saw.
        this.#followers.delete(follower);
        response.destroy();
      });
      const end = () => {
        stopTimer();
        response.off("drain", end);
        response.off("close", end);
        resolve();
      };
      response.on("drain", end);
      response.on("close", end);
    });
  }

  #beginHeartbeat(): void {
    if (this.#stopHeartbeat !== undefined) return;
    this.#stopHeartbeat = this.#clock.after(this.#options.heartbeatMs, () => {
      this.#stopHeartbeat = undefined;
      for (const { response } of this.#followers) {
        if (!response.writableNeedDrain) response.write(": alive\n\n");
      }
      if (this.#followers.size > 0) this.#beginHeartbeat();
    });
  }
}

function eventOf(line: StoredLogLine): string {
  return `id: ${line.number}\ndata: ${textOf(line)}\n\n`;
}

/** A line for the outside, as JSON. */
export function textOf({ number, at, ...line }: StoredLogLine): string {
  return JSON.stringify({ number, at: new Date(at).toISOString(), ...line });
}
