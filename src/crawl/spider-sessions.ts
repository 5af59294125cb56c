import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Service } from "../lib/service.js";
import { untilAborted } from "../lib/until-aborted.js";
import type { Crawl } from "./crawl.js";
import type { CrawlStates } from "./crawl-state.js";
import { SpiderError, SpiderUnavailableError } from "./errors.js";
import type { Spider, SpiderContext } from "./spider.js";

export type SpiderSessionsDeps = {
  readonly states: CrawlStates;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Where hooks log to. @default the logger */
  readonly hookLog?: (crawl: Crawl, spider: Spider) => Logger;
  /** The node's id. */
  readonly node: string;
};

export type SpiderSessionsOptions = {
  /** Time for `open`, in milliseconds. @default 30_000 */
  readonly openTimeoutMs: number;
  /** Time for `close`, and for the pages that run to end before it, in milliseconds. @default 5_000 */
  readonly closeTimeoutMs: number;
  /** Time for `error`, in milliseconds. @default 5_000 */
  readonly errorTimeoutMs: number;
  /** Time without a page after which a crawl is taken to be over here, in milliseconds. @default 300_000 */
  readonly idleMs: number;
};

const DEFAULTS: SpiderSessionsOptions = {
  openTimeoutMs: 30_000,
  closeTimeoutMs: 5_000,
  errorTimeoutMs: 5_000,
  idleMs: 300_000,
};

/** A spider with hooks at work for a crawl in this process. */
export type SpiderSession = {
  readonly crawl: string;
  readonly generation: number;
  readonly spider: Spider;
  readonly context: SpiderContext;
  isOpen: boolean;
  /** While `open` runs. */
  opening?: Promise<void>;
  /** From when it is being closed on. */
  closing?: Promise<void>;
  /** Pages that run. */
  pages: number;
  usedAtMs: number;
  /** Called when no page runs any more. */
  onQuiet: () => void;
};

/**
 * Calls the hooks of spiders: `open` once before the first page of a crawl, `close` once when the crawl is over here,
 * has been closed, or has brought nothing for some time, and `error` for each page that a spider failed on.
 *
 *   (none) ──first page──▶ opening ──▶ open ──over, idle, or a later generation──▶ closing ──▶ (none)
 *     ▲                       │
 *     └────── `open` failed ──┘  the pages that waited fail; the next one tries again
 *
 * A crawl that goes on after it was closed is of another generation, and opened anew; not before `close` of the one
 * before has ended. Of a spider without hooks nothing is kept.
 */
export class SpiderSessions implements Service {
  readonly name = "spider sessions";
  readonly #deps: SpiderSessionsDeps;
  readonly #options: SpiderSessionsOptions;
  readonly #sessions = new Map<string, Map<Spider, SpiderSession>>();
  readonly #closing = new Set<Promise<void>>();
  #isWatching = false;

  constructor(deps: SpiderSessionsDeps, options: Partial<SpiderSessionsOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...options };
  }

  async start(): Promise<void> {}

  /** Closes everything that is open. */
  async stop(): Promise<void> {
    for (const crawl of [...this.#sessions.keys()]) this.over(crawl);
    await Promise.all(this.#closing);
  }

  /**
   * A page is about to run: counts until `leave`. undefined when its spider has no hooks.
   * @param signal ends the wait for a spider that is being opened
   * @returns at once when the spider is open
   * @throws SpiderError when it cannot be opened @throws SpiderUnavailableError as it came
   * @throws the signal's reason
   */
  enter(
    crawl: Crawl,
    spider: Spider,
    signal: AbortSignal,
  ): SpiderSession | Promise<SpiderSession> | undefined {
    if (spider.open === undefined && spider.close === undefined && spider.error === undefined) {
      return undefined;
    }
    const session = this.#sessionOf(crawl, spider);
    session.pages += 1;
    return session.isOpen ? session : this.#whenOpen(session, signal);
  }

  leave(session: SpiderSession): void {
    session.pages -= 1;
    session.usedAtMs = this.#deps.clock.monotonic();
    if (session.pages === 0) session.onQuiet();
  }

  /** Tells a spider of a page that it failed on; resolves when it was told, whatever it made of that. */
  async failed({ spider, context }: SpiderSession, error: SpiderError, url: string): Promise<void> {
    const { error: hook } = spider;
    if (hook === undefined) return;
    const thrown = error.cause instanceof Error ? error.cause : error;
    await this.#attempt("error", context, () =>
      this.#inTime(this.#options.errorTimeoutMs, () => hook.call(spider, thrown, { url }, context)),
    );
  }

  /** A crawl is over here: its spiders are closed as soon as none of its pages runs. */
  over(crawl: string): void {
    for (const session of this.#sessions.get(crawl)?.values() ?? []) this.#close(session);
  }

  #sessionOf(crawl: Crawl, spider: Spider): SpiderSession {
    let ofCrawl = this.#sessions.get(crawl.id);
    if (ofCrawl === undefined) {
      ofCrawl = new Map();
      this.#sessions.set(crawl.id, ofCrawl);
    }
    const known = ofCrawl.get(spider);
    if (known !== undefined && known.closing === undefined) {
      if (known.generation >= crawl.generation) return known;
      this.#close(known);
    }
    const session = this.#begun(crawl, spider, known?.closing);
    ofCrawl.set(spider, session);
    this.#watch();
    return session;
  }

  /** @param former the end of the one before */
  #begun(crawl: Crawl, spider: Spider, former: Promise<void> | undefined): SpiderSession {
    const { states, node, clock, logger, hookLog } = this.#deps;
    const { id, params, generation } = crawl;
    const log =
      hookLog?.(crawl, spider) ?? logger.child({ crawl: id, spider: spider.name, version: spider.version });
    return {
      crawl: id,
      generation,
      spider,
      context: { crawl: { id, params, state: states.of(id) }, node, log },
      isOpen: spider.open === undefined && former === undefined,
      ...(former !== undefined && { opening: former }),
      pages: 0,
      usedAtMs: clock.monotonic(),
      onQuiet: () => {},
    };
  }

  async #whenOpen(session: SpiderSession, signal: AbortSignal): Promise<SpiderSession> {
    try {
      // The end of the session before, or an `open` that another page waits for.
      while (!session.isOpen) {
        session.opening ??= this.#open(session);
        const { opening } = session;
        await untilAborted(opening, signal);
        if (session.opening === opening) delete session.opening;
      }
      return session;
    } catch (error) {
      this.leave(session);
      throw error;
    }
  }

  async #open(session: SpiderSession): Promise<void> {
    const { spider, context } = session;
    try {
      await this.#inTime(this.#options.openTimeoutMs, () => spider.open?.(context));
      session.isOpen = true;
    } catch (error) {
      if (error instanceof SpiderUnavailableError) throw error;
      const message = `spider "${spider.name}" could not be opened for crawl "${session.crawl}": ${messageOf(error)}`;
      throw new SpiderError(message, { cause: error });
    } finally {
      delete session.opening;
    }
  }

  #close(session: SpiderSession): void {
    if (session.closing !== undefined) return;
    const closing = this.#closed(session).finally(() => {
      this.#closing.delete(closing);
      const ofCrawl = this.#sessions.get(session.crawl);
      if (ofCrawl?.get(session.spider) === session) ofCrawl.delete(session.spider);
      if (ofCrawl?.size === 0) this.#sessions.delete(session.crawl);
    });
    session.closing = closing;
    this.#closing.add(closing);
  }

  async #closed(session: SpiderSession): Promise<void> {
    const { spider, context } = session;
    const { closeTimeoutMs } = this.#options;
    // An `open` that is still under way may succeed without a page that waits for it.
    await this.#inTime(closeTimeoutMs, () => this.#quiet(session)).catch(() => {});
    if (!session.isOpen || spider.close === undefined) return;
    await this.#attempt("close", context, () => this.#inTime(closeTimeoutMs, () => spider.close?.(context)));
  }

  async #quiet(session: SpiderSession): Promise<void> {
    while (session.pages > 0) {
      await new Promise<void>((resolve) => {
        session.onQuiet = resolve;
      });
    }
    await session.opening;
  }

  /** What a hook throws here is told to the spider's author, and to nobody else. */
  async #attempt(hook: string, { log }: SpiderContext, call: () => Promise<void>): Promise<void> {
    try {
      await call();
    } catch (error) {
      log.warn({ err: error }, `the spider's hook "${hook}" failed`);
    }
  }

  /** @throws what the hook throws, or that it took too long */
  async #inTime(timeoutMs: number, hook: () => Promise<void> | void | undefined): Promise<void> {
    const running = hook();
    if (running === undefined) return;
    let stopTimer = () => {};
    const tooLong = new Promise<never>((_, reject) => {
      stopTimer = this.#deps.clock.after(timeoutMs, () =>
        reject(new Error(`did not finish within ${timeoutMs} ms`)),
      );
    });
    try {
      await Promise.race([running, tooLong]);
    } finally {
      stopTimer();
    }
  }

  /** Looks now and then, while there is something to look at, for crawls of which nothing came any more. */
  #watch(): void {
    if (this.#isWatching) return;
    this.#isWatching = true;
    const { idleMs } = this.#options;
    this.#deps.clock.after(idleMs / 4, () => {
      this.#isWatching = false;
      const nowMs = this.#deps.clock.monotonic();
      for (const ofCrawl of this.#sessions.values()) {
        for (const session of ofCrawl.values()) {
          if (session.pages === 0 && nowMs - session.usedAtMs >= idleMs) this.#close(session);
        }
      }
      if (this.#sessions.size > 0) this.#watch();
    });
  }
}
