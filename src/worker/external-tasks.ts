import { randomUUID } from "node:crypto";
import {
  AGAIN_HEADER,
  type DeadLetterReason,
  type ExternalTask,
  parseExternalTask,
  type TaskDelivery,
} from "../bus/index.js";
import { type Crawl, INBOX } from "../crawl/crawl.js";
import type { NewUrl, SkipReason, UrlRequest } from "../crawl/frontier.js";
import { compileScope } from "../crawl/urls/scope.js";
import { type CanonicalUrl, canonicalUrl } from "../crawl/urls/url.js";
import { UrlIdentity } from "../crawl/urls/url-identity.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { type TraceContext, traceContextOf } from "../lib/trace-context.js";
import type { Replies, TaskEvents } from "../results/index.js";
import type { Store } from "../store/index.js";
import type { CrawlView } from "./crawl-view.js";

export type ExternalTasksDeps = {
  readonly store: Store;
  readonly crawls: CrawlView;
  /** Those that need not be looked up. */
  readonly spiders: { has(name: string): boolean };
  readonly replies: Replies;
  readonly events: TaskEvents;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly acknowledge: (deliveries: readonly TaskDelivery[]) => void;
  /** Gives a message up, with its reason; from then on it is no longer in these hands. */
  readonly giveUp: (delivery: TaskDelivery, reason: DeadLetterReason, error: string) => void;
};

/** Messages admitted together at most. */
const GROUP_SIZE = 500;

type Admissible = { readonly delivery: TaskDelivery; readonly url: NewUrl };
type Objection = { readonly reason: DeadLetterReason; readonly error: string };
type Refused = Objection & { readonly delivery: TaskDelivery };

/**
 * Admission of tasks that come from outside: into the frontier first, acknowledged then, fetched when the
 * dispatcher says so. Many that arrive together are admitted together.
 */
export class ExternalTasks {
  readonly #deps: ExternalTasksDeps;
  #waiting: TaskDelivery[] = [];
  #working: Promise<void> | undefined;

  constructor(deps: ExternalTasksDeps) {
    this.#deps = deps;
  }

  admit(delivery: TaskDelivery): void {
    this.#waiting.push(delivery);
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
    });
  }

  /** Resolves when all that came in is admitted or given up. */
  async flush(): Promise<void> {
    await this.#working;
  }

  async #work(): Promise<void> {
    // What arrives in the same burst is taken together.
    await new Promise((resolve) => setImmediate(resolve));
    let failures = 0;
    while (this.#waiting.length > 0) {
      const group = this.#waiting.splice(0, GROUP_SIZE).filter((delivery) => !delivery.signal.aborted);
      try {
        await this.#admitGroup(group);
        failures = 0;
      } catch (error) {
        // Nothing was acknowledged: what the broker takes back meanwhile is left out the next time.
        failures += 1;
        const waitMs = Math.min(5_000, 100 * 2 ** Math.min(failures, 6));
        this.#deps.logger.warn(
          { error: messageOf(error), tasks: group.length, waitMs },
          "could not admit tasks; trying again",
        );
        this.#waiting.unshift(...group);
        await new Promise<void>((resolve) => this.#deps.clock.after(waitMs, resolve));
      }
    }
  }

  async #admitGroup(group: readonly TaskDelivery[]): Promise<void> {
    const admissible: Admissible[] = [];
    const refused: Refused[] = [];
    for (const delivery of group) {
      const parsed = parseExternalTask(delivery);
      const url = parsed.ok ? await this.#toUrl(parsed.task, traceContextOf(delivery.headers)) : parsed;
      if ("reason" in url) refused.push({ delivery, ...url });
      else admissible.push({ delivery, url });
    }
    if (admissible.length > 0) await this.#store(admissible);
    // Last, since all of the group is looked at again when something fails before.
    for (const { delivery, reason, error } of refused) this.#deps.giveUp(delivery, reason, error);
  }

  /** The task as a URL of its crawl, or why it cannot be taken. */
  async #toUrl(task: ExternalTask, trace: TraceContext | undefined): Promise<NewUrl | Objection> {
    const { crawls, spiders, store } = this.#deps;
    const crawl = await crawls.load(task.crawl ?? INBOX);
    if (crawl === undefined) {
      return { reason: "unknown-crawl", error: `crawl: there is no crawl "${task.crawl ?? INBOX}"` };
    }
    const isKnown =
      task.spider === undefined ||
      spiders.has(task.spider) ||
      (await store.spiders.get(task.spider)) !== undefined;
    if (!isKnown) {
      return { reason: "unknown-spider", error: `spider: there is no spider "${task.spider}"` };
    }
    const canonical = canonicalUrl(task.url);
    if (canonical === undefined) {
      return { reason: "invalid-message", error: "url: must be an absolute http(s) URL" };
    }
    const request = requestOf(task, trace);
    const depth = task.depth ?? 0;
    const skip = skipReason(crawl, canonical, depth);
    return {
      id: new UrlIdentity(crawl).idOf(canonical, request),
      crawl: crawl.id,
      url: canonical.url,
      host: canonical.host,
      kind: "page",
      depth,
      priority: task.priority ?? 5,
      ...(request !== undefined && { request }),
      ...(skip !== undefined && { skip }),
    };
  }

  async #store(admissible: readonly Admissible[]): Promise<void> {
    const { store, replies, events, acknowledge } = this.#deps;
    // The wish for a reply is on record before the URL can end.
    await replies.expect(
      admissible.flatMap(({ delivery, url }) =>
        delivery.replyTo === undefined
          ? []
          : [
              {
                id: randomUUID(),
                crawl: url.crawl,
                urlId: url.id,
                url: url.url,
                replyTo: delivery.replyTo,
                ...(url.request?.trace !== undefined && { trace: url.request.trace }),
                ...(delivery.correlationId !== undefined && { correlationId: delivery.correlationId }),
              },
            ],
      ),
    );
    const admitted = await store.frontier.admit(
      admissible.map(({ url, delivery }) => ({
        url,
        refetch: url.crawl === INBOX || delivery.headers[AGAIN_HEADER] === true,
      })),
    );
    const hostsByCrawl = new Map<string, Set<string>>();
    const ended: string[] = [];
    const touched = new Set<string>();
    admissible.forEach(({ url }, index) => {
      const outcome = admitted[index];
      if (outcome === undefined) return;
      const isEnded = url.skip !== undefined || (outcome.kind === "known" && isEnd(outcome.state));
      if (isEnded) ended.push(url.id);
      if (outcome.kind === "known" || url.skip !== undefined) return;
      touched.add(url.crawl);
      const hosts = hostsByCrawl.get(url.crawl);
      if (hosts === undefined) hostsByCrawl.set(url.crawl, new Set([url.host]));
      else hosts.add(url.host);
    });
    await Promise.all([...touched].map((crawl) => store.crawls.added(crawl)));
    acknowledge(admissible.map(({ delivery }) => delivery));
    events.added(hostsByCrawl);
    for (const [crawl, count] of countByCrawl(admissible, admitted)) {
      store.crawls.count(crawl, { queued: count });
    }
    if (ended.length > 0) await replies.ended(ended.map((id) => ({ id, children: [] })));
  }
}

function isEnd(state: string): boolean {
  return state === "done" || state === "failed" || state === "skipped";
}

function countByCrawl(
  admissible: readonly Admissible[],
  admitted: readonly { readonly kind: string }[],
): Map<string, number> {
  const counts = new Map<string, number>();
  admissible.forEach(({ url }, index) => {
    if (admitted[index]?.kind === "known" || url.skip !== undefined) return;
    counts.set(url.crawl, (counts.get(url.crawl) ?? 0) + 1);
  });
  return counts;
}

function skipReason(crawl: Crawl, url: CanonicalUrl, depth: number): SkipReason | undefined {
  if (crawl.status === "closed" || crawl.status === "failed") return "closed";
  const { maxDepth } = crawl.limits;
  if (maxDepth !== undefined && depth > maxDepth) return "depth";
  return compileScope(crawl.scope, crawl.seeds).includes(url) ? undefined : "scope";
}

function requestOf(task: ExternalTask, trace: TraceContext | undefined): UrlRequest | undefined {
  const { method, headers, body, meta, render, spider, callback } = task;
  const request = {
    ...(method !== undefined && method !== "GET" && { method }),
    ...(headers !== undefined && { headers }),
    ...(body !== undefined && { body }),
    ...(meta !== undefined && { meta }),
    ...(render !== undefined && { render }),
    ...(spider !== undefined && { spider }),
    ...(callback !== undefined && { callback }),
    ...(trace !== undefined && { trace }),
  };
  return Object.keys(request).length === 0 ? undefined : request;
}
