import { LRUCache } from "lru-cache";
import type { Crawl } from "../crawl/crawl.js";
import type { HostState, HostStates } from "../crawl/dispatch/host-state.js";
import { AddressRefusedError, FetchError } from "../crawl/errors.js";
import { Fetcher, type FetcherOptions } from "../crawl/fetch/fetcher.js";
import { NetworkGuard } from "../crawl/fetch/network-guard.js";
import type { Objection } from "../crawl/foreign-result.js";
import type { FailReason } from "../crawl/frontier.js";
import type { RobotsStore } from "../crawl/records.js";
import { Robots } from "../crawl/robots/robots.js";
import { obeysRobots } from "../crawl/robots/robots-options.js";
import type { Task } from "../crawl/task.js";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";

export type ForeignGateParts = {
  readonly fetcher: Partial<FetcherOptions> & Pick<FetcherOptions, "userAgent">;
  readonly robots: RobotsStore;
  readonly hosts: Pick<HostStates, "note">;
  readonly clock: Clock;
  readonly logger: Logger;
};

export type GateAnswer = {
  /** What speaks against fetching the page. */
  readonly objection?: Objection;
  /** What is new about its host. */
  readonly learnt?: HostState;
};

/**
 * Asks what our own workers ask before a fetch, for pages that workers of someone else's will fetch: whether
 * robots.txt allows it, at what pace, and whether its address is one that may be fetched at all.
 */
export class ForeignGate {
  readonly #parts: ForeignGateParts;
  readonly #fetcher: Fetcher;
  readonly #guard: NetworkGuard;
  readonly #robots: Robots;
  readonly #notedDelays = new LRUCache<string, number>({ max: 10_000 });

  constructor(parts: ForeignGateParts) {
    this.#parts = parts;
    const { fetcher, robots, clock, logger } = parts;
    this.#fetcher = new Fetcher(fetcher);
    this.#guard = new NetworkGuard({ allowed: fetcher.allowedNetworks ?? [] });
    this.#robots = new Robots({
      fetcher: this.#fetcher,
      store: robots,
      clock,
      userAgent: fetcher.userAgent,
      logger,
    });
  }

  close(): Promise<void> {
    return this.#fetcher.close();
  }

  async ask(task: Task, crawl: Crawl): Promise<GateAnswer> {
    const url = task.target?.url ?? task.url;
    if (task.givenUp !== undefined) return { objection: { reason: "network", error: task.givenUp } };
    try {
      await this.#checkAddress(new URL(url).hostname);
      if (!obeysRobots(crawl.politeness, task.host)) return {};
      const {
        allowed,
        verdict,
        crawlDelayMs,
        error,
        failure,
        line = "robots.txt forbids it",
      } = await this.#robots.check(url);
      const learnt = verdict === "disallow" ? undefined : await this.#note(task.host, crawlDelayMs);
      const news = learnt === undefined ? {} : { learnt };
      if (allowed) return news;
      if (verdict !== "disallow") {
        return { ...news, objection: { reason: "robots", error: line } };
      }
      const told = error ?? "robots.txt could not be had";
      return { ...news, objection: { reason: "robots", error: told, mayPass: failure ?? "robots" } };
    } catch (error) {
      if (error instanceof AddressRefusedError) {
        return { objection: { reason: "address", error: error.message } };
      }
      if (!(error instanceof FetchError)) throw error;
      const { reason, message } = error;
      if (reason === "address") return { objection: { reason, error: message } };
      return { objection: { reason: "robots", error: message, mayPass: reason as FailReason } };
    }
  }

  /** @throws AddressRefusedError */
  #checkAddress(hostname: string): Promise<void> {
    this.#guard.check(hostname);
    return new Promise((resolve, reject) => {
      this.#guard.lookup(hostname.replace(/^\[(.*)\]$/, "$1"), { all: true }, (error) => {
        // A name that does not resolve here may do so where the worker is.
        if (error instanceof AddressRefusedError) reject(error);
        else resolve();
      });
    });
  }

  async #note(host: string, crawlDelayMs: number): Promise<HostState | undefined> {
    if (this.#notedDelays.get(host) === crawlDelayMs) return undefined;
    const state = { host, crawlDelayMs };
    await this.#parts.hosts.note([state]);
    this.#notedDelays.set(host, crawlDelayMs);
    return state;
  }
}
