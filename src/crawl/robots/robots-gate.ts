import { LRUCache } from "lru-cache";
import type { Clock } from "../../lib/clock.js";
import type { Logger } from "../../lib/logger.js";
import type { Crawl } from "../crawl.js";
import type { HostNews } from "../dispatch/host-state.js";
import type { FetchProfile } from "../fetch/fetch-profile.js";
import type { Fetched } from "../fetch/fetcher.js";
import type { AttemptJudge, Outcome } from "../outcome.js";
import type { PageView } from "../pages/page-view.js";
import type { Task } from "../task.js";
import type { Findings } from "../task-result.js";
import type { Robots } from "./robots.js";
import { DirectiveReader, type RobotsDirectives } from "./robots-directives.js";
import { obeysRobots } from "./robots-options.js";

export type RobotsGateDeps = {
  readonly robots: Robots;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly onHostLearnt?: (state: HostNews) => void;
};

/** On whose behalf is asked. */
export type RobotsAsker = {
  readonly task: Task;
  readonly crawl: Crawl;
  /** Says what becomes of a URL while its robots.txt cannot be had. */
  readonly judge: AttemptJudge;
  readonly profile: Pick<FetchProfile, "route"> | undefined;
  /** Takes the delay that is asked for. */
  readonly findings: Findings;
  readonly signal: AbortSignal;
};

/** What sites say to robots, asked as far as a crawl obeys it: before a fetch, and of what was fetched. */
export class RobotsGate {
  readonly #deps: RobotsGateDeps;
  /** Crawls, and hosts of crawls, of which was said that their robots.txt is not asked. */
  readonly #unasked = new LRUCache<string, true>({ max: 10_000 });

  constructor(deps: RobotsGateDeps) {
    this.#deps = deps;
  }

  /** What robots.txt has against it; undefined if nothing. */
  async ask(url: string, asker: RobotsAsker): Promise<Outcome | undefined> {
    const { task, crawl, judge, profile, findings, signal } = asker;
    if (!obeysRobots(crawl.politeness, task.host)) {
      this.#noteUnasked(crawl, task.host);
      return undefined;
    }
    const { clock, robots } = this.#deps;
    try {
      const answer = await robots.check(url, signal, profile?.route);
      // Of a robots.txt that could not be had nothing was learnt: the host's lane stays as narrow as it is.
      if (answer.verdict !== "disallow") this.#learn(task, answer.crawlDelayMs, findings);
      if (answer.allowed) return undefined;
      const endedAt = clock.now();
      if (answer.verdict !== "disallow") {
        const { line = "robots.txt forbids it" } = answer;
        return { state: "skipped", reason: "robots", error: line, endedAt, counts: false };
      }
      const error = answer.error ?? "robots.txt could not be had";
      const outcome = judge.withoutRobots(task, endedAt, error, answer.failure);
      if (answer.failure !== undefined) {
        return { ...outcome, trouble: { kind: "silent", why: "no answer to robots.txt" } };
      }
      const { backoffUntil } = answer;
      if (backoffUntil === undefined) return outcome;
      const trouble = { kind: "asked", why: "no robots.txt for now" } as const;
      if (outcome.state !== "queued") return { ...outcome, backoffUntil, trouble };
      return { ...outcome, backoffUntil, trouble, readyAt: Math.max(outcome.readyAt, backoffUntil) };
    } catch (error) {
      return judge.fetchFailed(error, task);
    }
  }

  /** Someone may ask later why a site's wishes were not heeded. */
  #noteUnasked({ id, politeness }: Crawl, host: string): void {
    const key = politeness.obeyRobots ? `${id} ${host}` : id;
    if (this.#unasked.has(key)) return;
    this.#unasked.set(key, true);
    const where = politeness.obeyRobots ? { host } : {};
    this.#deps.logger.info({ crawl: id, ...where }, "robots.txt is not asked, as the crawl says");
  }

  #learn({ host, awaitsRobots, target }: Task, crawlDelayMs: number, findings: Findings): void {
    findings.crawlDelayMs = crawlDelayMs;
    if (awaitsRobots === true && target === undefined) this.#deps.onHostLearnt?.({ host, crawlDelayMs });
  }

  /** What a response says about what may be done with it; undefined when the crawl does not ask. */
  directivesOf(
    fetched: Pick<Fetched, "headers">,
    crawl: Crawl,
    page?: PageView,
  ): RobotsDirectives | undefined {
    if (crawl.politeness.obeyMetaRobots !== true) return undefined;
    const { robots, clock } = this.#deps;
    const reader = new DirectiveReader(robots.userAgent, clock.now());
    reader.header(fetched.headers["x-robots-tag"]);
    for (const { name, content } of page?.namedMetas() ?? []) reader.meta(name, content);
    return reader.directives;
  }
}
