import { createHash } from "node:crypto";
import type { BusEvent } from "../bus/index.js";
import type { CrawlSpec, CrawlStatus } from "../crawl/crawl.js";
import { type CrawlRequest, crawlRequest, spiderOf } from "../crawl/crawl-request.js";
import { withoutSecrets } from "../crawl/fetch/fetch-options.js";
import type { NewUrl, OpenedUrl, SkipReason, Wanted } from "../crawl/frontier.js";
import { withoutWebhookSecrets } from "../crawl/item-options.js";
import { ANY_NODE, takesPart } from "../crawl/node-selection.js";
import { asRun } from "../crawl/run.js";
import { withSettings } from "../crawl/spider-settings.js";
import { compileScope } from "../crawl/urls/scope.js";
import { type CanonicalUrl, canonicalUrl } from "../crawl/urls/url.js";
import { UrlIdentity } from "../crawl/urls/url-identity.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { FieldError } from "../lib/field-errors.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenBus } from "../protocol/index.js";
import { ConflictError, type CrawlOrigin, type CrawlRecord, type Store } from "../store/index.js";
import {
  parseAddUrlsRequest,
  parseCrawlChanges,
  parseCrawlRequest,
  parseRecrawlRequest,
  type ResourceRequest,
} from "./crawl-request.js";
import { invalid, notFound, RequestError } from "./errors.js";
import type { SpiderCatalog } from "./spider-catalog.js";

/** A crawl as it is shown outside. Instants are ISO 8601; what is not there yet is null. */
export type CrawlView = Omit<
  CrawlSpec & CrawlRecord,
  "name" | "createdAt" | "startedAt" | "finishedAt" | "finishReason" | "additions" | "cut" | "nodes"
> & {
  readonly name: string | null;
  readonly nodes: CrawlRequest["nodes"];
  readonly createdAt: string;
  readonly startedAt: string;
  readonly finishedAt: string | null;
  readonly finishReason: string | null;
};

export type CrawlPage = { readonly items: readonly CrawlView[]; readonly next: string | null };

export type AddedUrls = {
  /** URLs that were not known before. */
  readonly accepted: number;
  readonly known: number;
};

export type Reopened = {
  /** URLs that are queued again. */
  readonly opened: number;
};

/** What the nodes made of it when a crawl was closed. */
export type Cancelled = {
  readonly nodes: readonly { readonly node: string; readonly aborted: number; readonly dropped: number }[];
  /** Nodes that did not answer in time, or failed to. */
  readonly silent: readonly string[];
};

export type CrawlServiceParts = {
  readonly store: Pick<Store, "crawls" | "frontier" | "nodes" | "purge" | "rounds" | "runs">;
  readonly bus: Pick<WarrenBus, "events" | "calls">;
  readonly spiders: Pick<SpiderCatalog, "forCrawl" | "list">;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** How often, and how far apart, a crawl that was closed is looked at for late dispatches. */
const MOST_LOOKS_AT_CLOSE = 10;
const CLOSE_LOOK_MS = 100;
const ADD_BATCH = 1_000;
/** Longest wait for nodes to say what they have stopped of a crawl, in milliseconds. */
const CANCEL_WAIT_MS = 2_000;
const MAX_SEED_CHARACTERS = 1_048_576;

/**
 * All that can be asked of crawls, by HTTP and by AMQP alike. It keeps nothing between requests: any number
 * of masters may do the same at once.
 *
 * What it answers is stored. What it announces is a courtesy: if an event or a broadcast is lost, dispatchers
 * and workers find out from the store, a little later.
 */
export class CrawlService {
  readonly #parts: CrawlServiceParts;

  constructor(parts: CrawlServiceParts) {
    this.#parts = parts;
  }

  /**
   * Starts a crawl. With an idempotency key, the same request again returns the same crawl.
   * @param origin the tick of a schedule that it is made for
   * @throws RequestError `invalid`, naming members; KeyReusedError
   */
  async create(
    input: unknown,
    idempotencyKey?: string,
    origin?: CrawlOrigin,
  ): Promise<{ readonly crawl: CrawlView; readonly isNew: boolean }> {
    const { spec, request } = await this.#specOf(input);
    const { crawl, isNew } = await this.#parts.store.crawls.create(spec, {
      ...(idempotencyKey === undefined
        ? {}
        : { idempotency: { key: idempotencyKey, digest: digestOf(input, request) } }),
      ...(origin !== undefined && { origin }),
    });
    // Not new, and without seeds: who created it did not live to add them.
    if (!isNew && crawl.additions > 0) return { crawl: viewOf(crawl), isNew };
    return { crawl: viewOf(await this.#seed(crawl)), isNew };
  }

  /** Looks at what `create` would be given, and makes nothing. @throws RequestError `invalid`, naming members */
  async check(input: unknown): Promise<void> {
    await this.#specOf(input);
  }

  /** @throws RequestError `not-found` */
  async get(id: string): Promise<CrawlView> {
    return viewOf(await this.#find(id));
  }

  /** As it is stored. @throws RequestError `not-found` */
  record(id: string): Promise<CrawlRecord> {
    return this.#find(id);
  }

  /** Newest first. */
  async list(options: {
    readonly limit: number;
    readonly cursor?: string;
    readonly status?: CrawlStatus;
  }): Promise<CrawlPage> {
    const { items, next } = await this.#parts.store.crawls.list(options);
    return { items: items.map(viewOf), next };
  }

  /**
   * Changes it while it runs, or whatever it does. Masters and workers go by it from the next URL on.
   * @throws RequestError `invalid`, naming members; NotFoundError
   */
  async update(id: string, input: unknown): Promise<CrawlView> {
    const changes = parseCrawlChanges(input);
    const crawl = await this.#parts.store.crawls.update(id, changes);
    this.#publish("crawl.changed", id, { members: Object.keys(changes) });
    return viewOf(crawl);
  }

  /** @throws NotFoundError, ConflictError */
  pause(id: string): Promise<CrawlView> {
    return this.#change(id, "paused", () => this.#parts.store.crawls.pause(id));
  }

  /** Goes on where it was paused or closed. @throws NotFoundError, ConflictError */
  async resume(id: string): Promise<CrawlView> {
    const { crawls, runs } = this.#parts.store;
    const { runs: hasRuns, status } = await this.#find(id);
    if (hasRuns === true && (status === "closed" || status === "failed")) await runs.reopen(id);
    return this.#change(id, "running", () => crawls.resume(id));
  }

  /**
   * Stops it until someone resumes it. What workers have of it is aborted, and waits again. Nodes that say nothing
   * find out from the database, before they begin anything more of it.
   * @throws NotFoundError, ConflictError
   */
  async close(id: string): Promise<CrawlView & { readonly cancelled: Cancelled }> {
    const { generation } = await this.#change(id, "closed", () => this.#parts.store.crawls.close(id));
    const [cancelled] = await Promise.all([this.#cancelOnNodes(id, generation), this.#takeBack(id)]);
    return { ...(await this.get(id)), cancelled };
  }

  /**
   * Adds URLs from outside; a finished crawl runs again.
   * @throws RequestError `invalid`, `not-found`; `conflict` when it is closed
   */
  async addUrls(id: string, input: unknown): Promise<AddedUrls> {
    const request = parseAddUrlsRequest(input);
    const urls = canonicalUrls(request.urls, "urls");
    const crawl = await this.#find(id);
    if (crawl.status === "closed" || crawl.status === "failed") {
      throw new RequestError("conflict", `crawl "${id}" is ${crawl.status}: resume it before URLs are added`);
    }
    const { accepted, known } = await this.#add(crawl, urls, request.depth, request.priority);
    return { accepted, known };
  }

  /**
   * Has URLs that have ended fetched once more, now; a finished crawl runs again.
   * @throws RequestError `invalid`, `not-found`; `conflict` when it is closed
   */
  async recrawl(id: string, input: unknown): Promise<Reopened> {
    const request = parseRecrawlRequest(input);
    const urls = canonicalUrls(request.urls ?? [], "urls");
    const crawl = await this.#find(id);
    const identity = new UrlIdentity(crawl);
    const wanted: Wanted =
      request.urls === undefined
        ? { endedBefore: this.#parts.clock.now() - (request.olderThanMs ?? 0) }
        : { ids: urls.map((url) => identity.idOf(url)) };
    if (crawl.status === "closed" || crawl.status === "failed") {
      throw new RequestError(
        "conflict",
        `crawl "${id}" is ${crawl.status}: resume it before its URLs are fetched again`,
      );
    }
    let opened = 0;
    for (let after: string | undefined; ; ) {
      const { urls: found, more } = await this.#parts.store.rounds.open(id, wanted, ADD_BATCH, after);
      if (found.length > 0) await this.#reopened(id, found);
      opened += found.length;
      if (more === undefined) return { opened };
      after = more;
    }
  }

  async #reopened(id: string, urls: readonly OpenedUrl[]): Promise<void> {
    const { crawls } = this.#parts.store;
    // After the frontier has them: the end of the crawl and this cannot pass each other unseen.
    const { reopened } = await crawls.added(id);
    for (const { was } of urls) crawls.count(id, { [was]: -1, queued: 1 });
    await crawls.flushCounts();
    if (reopened) this.#publish("crawl.resumed", id, {});
    this.#publish("frontier.added", id, { hosts: [...new Set(urls.map(({ host }) => host))] });
  }

  /** Closes it, and removes it with all that it left behind. @throws NotFoundError, ConflictError */
  async remove(id: string): Promise<void> {
    const crawl = await this.#find(id);
    if (crawl.status === "running" || crawl.status === "paused") await this.close(id);
    await this.#parts.store.purge(id);
    this.#publish("crawl.removed", id, {});
  }

  /**
   * Sees to it that what has this name is being crawled: a new crawl the first time, the same one ever after.
   * @throws RequestError `invalid` when it is neither a URL nor a spider with seeds
   */
  async resourceAdd({
    name,
  }: ResourceRequest): Promise<{ readonly crawl: CrawlView; readonly isNew: boolean }> {
    const resource = resourceKey(name);
    const found = await this.#parts.store.crawls.byResource(resource);
    if (found !== undefined) return { crawl: await this.#goOn(found), isNew: false };
    const spec = await this.#resourceSpec(resource, name);
    try {
      const { crawl } = await this.#parts.store.crawls.create(spec, { resource });
      return { crawl: viewOf(await this.#seed(crawl)), isNew: true };
    } catch (error) {
      if (!(error instanceof ConflictError)) throw error;
      // Someone else added it between our look and our insert.
      const theirs = await this.#parts.store.crawls.byResource(resource);
      if (theirs === undefined) throw error;
      return { crawl: await this.#goOn(theirs), isNew: false };
    }
  }

  /** Closes the crawl of what has this name. @throws RequestError `not-found` */
  async resourceDelete(name: string): Promise<CrawlView> {
    const crawl = await this.#parts.store.crawls.byResource(resourceKey(name));
    if (crawl === undefined) throw notFound("resource", name);
    return this.close(crawl.id);
  }

  /**
   * Adds the seeds of crawls whose creator died before it did. To be called now and then by every master.
   * @param olderThanMs leaves those alone that are younger: their creator is at it
   */
  async seedForgotten(olderThanMs = 10_000): Promise<number> {
    const forgotten = await this.#parts.store.crawls.unseeded(olderThanMs);
    for (const crawl of forgotten) await this.#seed(crawl);
    return forgotten.length;
  }

  /** Queues again what is dispatched of a closed crawl, until no master that had not heard of it sends more. */
  async #takeBack(id: string): Promise<void> {
    const { store, clock } = this.#parts;
    for (let looks = 0; looks < MOST_LOOKS_AT_CLOSE; looks += 1) {
      await store.frontier.releaseCrawl(id);
      const { active } = await store.crawls.recount(id);
      if (active === 0) return;
      await new Promise<void>((resolve) => clock.after(CLOSE_LOOK_MS, resolve));
    }
  }

  async #find(id: string): Promise<CrawlRecord> {
    const crawl = await this.#parts.store.crawls.get(id);
    if (crawl === undefined) throw notFound("crawl", id);
    return crawl;
  }

  async #change(id: string, to: CrawlStatus, change: () => Promise<CrawlRecord>): Promise<CrawlView> {
    const before = await this.#find(id);
    const crawl = await change();
    if (before.status !== to) this.#publish(`crawl.${to === "running" ? "resumed" : to}`, id, {});
    return viewOf(crawl);
  }

  async #goOn(crawl: CrawlRecord): Promise<CrawlView> {
    if (crawl.status === "closed" || crawl.status === "paused" || crawl.status === "failed") {
      const resumed = await this.resume(crawl.id);
      if (crawl.additions > 0) return resumed;
    }
    return viewOf(crawl.additions > 0 ? crawl : await this.#seed(crawl));
  }

  /** Adds the seeds, which is safe to do twice, and tells everyone of the new crawl. */
  async #seed(crawl: CrawlRecord): Promise<CrawlRecord> {
    this.#publish("crawl.created", crawl.id, { spider: crawl.spider, name: crawl.name ?? null });
    if (crawl.runs === true) return this.#planRuns(crawl);
    const { crawl: seeded } = await this.#add(crawl, canonicalUrls(crawl.seeds, "seeds"), 0, 5);
    return seeded;
  }

  /** One run of it on any node, or one on each of those that are there and take part. */
  async #planRuns(crawl: CrawlRecord): Promise<CrawlRecord> {
    const { runs, nodes, crawls } = this.#parts.store;
    const { nodes: selection = ANY_NODE } = crawl;
    if (selection.mode === "any") await runs.plan(crawl, [undefined]);
    else {
      const present = (await nodes.present()).filter((node) => takesPart(selection, node));
      // Those that are named and away are waited for.
      const ids = new Set([
        ...present.map(({ id }) => id),
        ...(selection.mode === "selected" ? selection.ids : []),
      ]);
      await runs.plan(crawl, [...ids].sort());
    }
    const { crawl: planned } = await crawls.added(crawl.id);
    return planned;
  }

  async #add(
    crawl: CrawlRecord,
    urls: readonly CanonicalUrl[],
    depth: number,
    priority: number,
  ): Promise<AddedUrls & { readonly crawl: CrawlRecord }> {
    const scope = compileScope(crawl.scope, crawl.seeds);
    const identity = new UrlIdentity(crawl);
    const { maxDepth } = crawl.limits;
    const skipReasonOf = (url: CanonicalUrl): SkipReason | undefined => {
      if (!scope.includes(url)) return "scope";
      return maxDepth !== undefined && depth > maxDepth ? "depth" : undefined;
    };
    const hosts = new Set<string>();
    let queued = 0;
    let skipped = 0;
    let known = 0;
    for (let from = 0; from < urls.length; from += ADD_BATCH) {
      const batch = urls.slice(from, from + ADD_BATCH).map((url): NewUrl => {
        const skip = skipReasonOf(url);
        return {
          id: identity.idOf(url),
          crawl: crawl.id,
          url: url.url,
          host: url.host,
          kind: "page",
          depth,
          priority,
          ...(skip === undefined ? {} : { skip }),
        };
      });
      const added = await this.#parts.store.frontier.add(batch);
      queued += added.queued.length;
      skipped += added.skipped;
      known += added.known;
      for (const { host } of added.queued) hosts.add(host);
    }
    const { crawls } = this.#parts.store;
    // After the frontier has them: the end of the crawl and this cannot pass each other unseen.
    const { crawl: reached, reopened } = await crawls.added(crawl.id);
    crawls.count(crawl.id, { queued, skipped });
    // Whoever asked sees at once what became of it.
    await crawls.flushCounts();
    const now = (await crawls.get(crawl.id)) ?? reached;
    if (reopened) this.#publish("crawl.resumed", crawl.id, {});
    if (hosts.size > 0) this.#publish("frontier.added", crawl.id, { hosts: [...hosts] });
    return { accepted: queued + skipped, known, crawl: now };
  }

  /**
   * What is asked for, and where that says nothing, what its spider says; its code is the version that it is pinned to.
   * @throws RequestError `invalid`, naming members; `unavailable` when nothing is known of the spider's code yet
   */
  async #specOf(input: unknown): Promise<{ readonly spec: CrawlSpec; readonly request: CrawlRequest }> {
    const named = spiderOf(input);
    const spider = named && (await this.#parts.spiders.forCrawl(named.spider, named.spiderVersion));
    const request = parseCrawlRequest(withSettings(input, spider?.settings));
    if (spider === undefined && request.spiderVersion !== undefined) {
      const message = `there is no version ${request.spiderVersion} of spider "${request.spider}"`;
      throw invalid("spiderVersion", message);
    }
    if (spider === undefined) {
      const known = (await this.#parts.spiders.list()).map(({ name }) => name);
      throw invalid("spider", `there is no spider "${request.spider}"; there are ${known.join(", ")}`);
    }
    if (spider.external && request.nodes.mode === "selected") {
      throw invalid("nodes.mode", `the spider "${spider.name}" is external: its workers are no nodes`);
    }
    const given = request.seeds.length > 0;
    const seeds = given ? request.seeds : (spider.seeds ?? []);
    if (seeds.length === 0 && !spider.runs) {
      throw invalid(
        "seeds",
        `must hold at least one URL: the spider "${request.spider}" has no seeds of its own`,
      );
    }
    const urls = canonicalUrls(seeds, "seeds").map(({ url }) => url);
    if (urls.reduce((sum, url) => sum + url.length, 0) > MAX_SEED_CHARACTERS) {
      throw invalid(
        "seeds",
        `must have at most ${MAX_SEED_CHARACTERS} characters in all; add the rest as URLs`,
      );
    }
    const pinned = spider.sha256 !== undefined && { spiderVersion: spider.version };
    const spec = { ...request, seeds: urls, ...pinned };
    return { spec: spider.runs ? asRun(spec) : spec, request };
  }

  async #resourceSpec(resource: string, name: string): Promise<CrawlSpec> {
    if (isUrl(name)) return (await this.#specOf({ seeds: [resource], name: shortened(name) })).spec;
    const spider = await this.#parts.spiders.forCrawl(name);
    if (spider === undefined)
      throw invalid("name", `is neither an absolute http(s) URL nor a spider: "${name}"`);
    if ((spider.seeds ?? []).length === 0) {
      throw invalid("name", `the spider "${name}" has no seeds of its own, so it does not say what to crawl`);
    }
    return (await this.#specOf({ spider: name, name })).spec;
  }

  /** Has every node stop what it has of a crawl, and tells what each has made of it. */
  async #cancelOnNodes(crawl: string, generation: number): Promise<Cancelled> {
    const { store, bus, logger } = this.#parts;
    const expected = (await store.nodes.present()).map(({ id: node }) => node);
    try {
      const options = { expected, timeoutMs: CANCEL_WAIT_MS };
      if (expected.length === 0) {
        await bus.calls.broadcast("cancel-crawl", { crawl, generation }, options);
        return { nodes: [], silent: [] };
      }
      const { answers, silent } = await bus.calls.broadcastCall(
        "cancel-crawl",
        { crawl, generation },
        options,
      );
      const nodes = answers.flatMap((answer) =>
        answer.ok
          ? [{ node: answer.node, aborted: answer.result.aborted, dropped: answer.result.dropped }]
          : [],
      );
      const failed = answers.flatMap((answer) => (answer.ok ? [] : [answer.node]));
      return { nodes, silent: [...silent, ...failed] };
    } catch (error) {
      logger.warn({ crawl, error: messageOf(error) }, "could not tell the nodes that a crawl is closed");
      return { nodes: [], silent: expected };
    }
  }

  #publish(type: string, crawl: string, data: Readonly<Record<string, unknown>>): void {
    const event: BusEvent = { type, at: new Date(this.#parts.clock.now()).toISOString(), crawl, data };
    this.#parts.bus.events.publish(type, [event]);
  }
}

export function viewOf(record: CrawlRecord): CrawlView {
  const {
    additions: _additions,
    cut: _cut,
    name,
    nodes,
    createdAt,
    startedAt,
    finishedAt,
    finishReason,
    fetch,
    items,
    ...rest
  } = record;
  return {
    ...rest,
    ...(fetch !== undefined && { fetch: withoutSecrets(fetch) }),
    ...(items !== undefined && { items: withoutWebhookSecrets(items) }),
    name: name ?? null,
    nodes: nodes ?? ANY_NODE,
    createdAt: new Date(createdAt).toISOString(),
    startedAt: new Date(startedAt).toISOString(),
    finishedAt: finishedAt === undefined ? null : new Date(finishedAt).toISOString(),
    finishReason: finishReason ?? null,
  };
}

/**
 * Absolute http(s) URLs in canonical form, each once.
 * @throws RequestError `invalid`, naming each that is not one
 */
function canonicalUrls(texts: readonly string[], member: string): readonly CanonicalUrl[] {
  const byKey = new Map<string, CanonicalUrl>();
  const faults: FieldError[] = [];
  for (const [index, text] of texts.entries()) {
    const url = canonicalUrl(text.trim());
    if (url !== undefined) {
      if (!byKey.has(url.key)) byKey.set(url.key, url);
    } else if (faults.length < 100) {
      faults.push({
        field: `${member}.${index}`,
        message: "must be an absolute http or https URL, without user name or password",
      });
    }
  }
  const [first] = faults;
  if (first !== undefined)
    throw new RequestError("invalid", `${first.field}: ${first.message}`, { fields: faults });
  return [...byKey.values()];
}

function isUrl(name: string): boolean {
  return /^https?:/i.test(name);
}

/** What makes two names mean the same resource. */
function resourceKey(name: string): string {
  if (!isUrl(name)) return name;
  const url = canonicalUrl(name);
  if (url === undefined) throw invalid("name", "must be an absolute http or https URL");
  return url.url;
}

function shortened(text: string): string {
  return text.length <= 200 ? text : `${text.slice(0, 199)}…`;
}

/** Of what was asked, with defaults filled in: to leave one out and to give it is the same request. */
/** Of what was asked for by itself, if that is a whole request: the settings of its spider may be others the next time. */
function digestOf(input: unknown, request: CrawlRequest): string {
  const own = crawlRequest.safeParse(input).data ?? request;
  return createHash("sha256").update(JSON.stringify(own)).digest("base64url");
}
