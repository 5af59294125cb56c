import { LRUCache } from "lru-cache";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import { traceFields } from "../lib/trace-context.js";
import { untilAborted } from "../lib/until-aborted.js";
import { TaskArchive } from "./archive/archive.js";
import { type ContentIndex, contentHash, contentHashOf, type KnownContent } from "./content-index.js";
import { type Crawl, INBOX } from "./crawl.js";
import type { CrawlStates } from "./crawl-state.js";
import type { HostNews } from "./dispatch/host-state.js";
import { FetchError, SpiderError, SpiderUnavailableError } from "./errors.js";
import { type FetchProfile, FetchProfiles } from "./fetch/fetch-profile.js";
import type { Fetched, Fetcher } from "./fetch/fetcher.js";
import { BodyRestartedError } from "./fetch/resumed-body.js";
import { FileKeeper, fileTypeOf } from "./file-keeper.js";
import { fileNameOf } from "./file-types.js";
import type { Frontier } from "./frontier.js";
import { keptAs } from "./item-keeping.js";
import { DEFAULT_TASK_LIMITS, type TaskLimits } from "./limits.js";
import { LinkAdmission } from "./link-admission.js";
import { AttemptJudge, type Outcome } from "./outcome.js";
import { Documents } from "./pages/documents.js";
import { FileView } from "./pages/file-view.js";
import { PageView } from "./pages/page-view.js";
import { simhashOf } from "./pages/simhash.js";
import type { FileRecord, FileStore, PageRecord, StoredContent } from "./records.js";
import { type PageContent, PageRendering } from "./render/page-rendering.js";
import type { PageRenderer } from "./render/renderer.js";
import { conditionsOf, type NextVisit, nextVisit, validatorsOf } from "./revisit.js";
import type { Robots } from "./robots/robots.js";
import type { RobotsDirectives } from "./robots/robots-directives.js";
import { RobotsGate } from "./robots/robots-gate.js";
import type { ListingForm } from "./sitemaps/listing.js";
import { ListingRun, listingFormOf } from "./sitemaps/listing-run.js";
import { SitemapDiscovery } from "./sitemaps/sitemap-discovery.js";
import type { Spider } from "./spider.js";
import type { SpiderCatalog } from "./spider-catalog.js";
import { SpiderRun } from "./spider-run.js";
import { type SpiderSession, SpiderSessions } from "./spider-sessions.js";
import type { Task } from "./task.js";
import { requestAt } from "./task-request.js";
import { type Findings, nothingFound, type TaskResult, TaskResults } from "./task-result.js";
import { canonicalUrl } from "./urls/url.js";

export type EngineDeps = {
  readonly fetcher: Fetcher;
  readonly robots: Robots;
  readonly files: FileStore;
  /** Asked for crawls with `duplicates` only. */
  readonly contents: ContentIndex;
  readonly spiders: SpiderCatalog;
  /** What spiders keep for their crawls. */
  readonly states: CrawlStates;
  readonly claims: Pick<Frontier, "claim">;
  /** Without one, no page can be rendered. */
  readonly renderer?: PageRenderer;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Reads articles and PDFs for spiders that want them. @default a thread of its own, when it is needed */
  readonly documents?: Documents;
  readonly metrics?: Metrics;
  /** Told now and then how much of a file has come, while that takes long. */
  readonly onProgress?: (task: Task, bytes: number) => void;
  /**
   * Told at once, before the end of a task tells it, what a host's robots.txt says of its pace when other URLs wait for
   * that, and until when a host asked to be left alone.
   */
  readonly onHostLearnt?: (state: HostNews) => void;
  /** What a spider logs about a page goes there. @default the logger */
  readonly pageLog?: (task: Task, crawl: Crawl, spider: Spider) => Logger;
  /** What the hooks of a spider log goes there. @default the logger */
  readonly hookLog?: (crawl: Crawl, spider: Spider) => Logger;
  /** A promise to wait for before anything is asked of a host; undefined when nothing need be waited for. */
  readonly whenAwake?: () => Promise<void> | undefined;
  /** The node's id, on every record. */
  readonly node: string;
  /** From 0 to 1. @default Math.random */
  readonly random?: () => number;
};

/** What decides about the URLs that a crawl's tasks find. */
type Admission = { readonly links: LinkAdmission; readonly sitemaps: SitemapDiscovery };

type CrawlContext = {
  readonly crawl: Crawl;
  readonly spider: Spider;
  readonly admission: LinkAdmission;
  /** Set when the page is to be rendered. */
  readonly rendering?: PageRendering;
  /** What its `fetch` options make of requests; undefined when it has none. */
  readonly profile: FetchProfile | undefined;
  readonly limits: TaskLimits;
  readonly judge: AttemptJudge;
  /** Set when the spider has hooks. */
  readonly session?: SpiderSession;
};

/** The page, once a browser had it, leads to another. */
type Moved = { readonly state: "moved"; readonly to: string };

/** How often a file may come anew when its rest was asked for, within one attempt. */
const MAX_RESTARTS = 2;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** Hosts that asked to be left alone of which is known until when. */
const MAX_BACKOFFS = 10_000;

/** What is known of a body before the spider sees it; nothing, as a rule. */
type Known = {
  readonly contentHash?: string;
  readonly isNotModified?: boolean;
  readonly isUnchanged?: boolean;
  readonly duplicateOf?: KnownContent;
};

/**
 * The way of a URL inside one process: robots, fetch (each redirect checked anew), parse, spider. It stores
 * nothing: what a task brought is returned, to be committed in groups by whoever runs the engine.
 */
export class Engine {
  readonly #deps: EngineDeps;
  readonly #limits: TaskLimits;
  readonly #admissions = new LRUCache<string, Admission>({ max: 16 });
  readonly #judge: AttemptJudge;
  readonly #profiles: FetchProfiles;
  readonly #results: TaskResults;
  readonly #documents: Documents;
  readonly #files: FileKeeper;
  /** Hosts that asked to be left alone: what was dispatched before that was known is not begun. */
  readonly #backoffs = new LRUCache<string, number>({ max: MAX_BACKOFFS });
  readonly #gate: RobotsGate;
  readonly #sessions: SpiderSessions;

  constructor(deps: EngineDeps, limits: Partial<TaskLimits> = {}) {
    this.#deps = deps;
    this.#limits = { ...DEFAULT_TASK_LIMITS, ...limits };
    this.#results = new TaskResults(deps.node);
    this.#judge = new AttemptJudge(deps.clock, this.#limits);
    this.#gate = new RobotsGate(deps);
    this.#profiles = new FetchProfiles(deps.clock, this.#limits);
    this.#documents = deps.documents ?? new Documents();
    this.#files = new FileKeeper(deps, this.#limits);
    this.#sessions = new SpiderSessions(deps, { openTimeoutMs: this.#limits.spiderTimeoutMs });
  }

  /**
   * Runs one task.
   * @returns undefined when the signal ended it: nothing may be concluded about the URL then
   */
  async run(task: Task, crawl: Crawl, signal: AbortSignal): Promise<TaskResult | undefined> {
    const findings = nothingFound();
    let spider: Spider;
    let session: SpiderSession | undefined;
    try {
      const found = this.#spiderOf(task, crawl);
      spider = found instanceof Promise ? await untilAborted(found, signal) : found;
      const reprieve = this.#reprieveOf(task);
      if (reprieve !== undefined) return this.#results.of(task, findings, reprieve);
      const entered = this.#sessions.enter(crawl, spider, signal);
      session = entered instanceof Promise ? await entered : entered;
    } catch (error) {
      if (signal.aborted) return undefined;
      return this.#results.of(task, findings, this.#withoutSpider(error, task));
    }
    try {
      return await this.#visit(task, crawl, spider, session, findings, signal);
    } finally {
      if (session !== undefined) this.#sessions.leave(session);
    }
  }

  /** A crawl is over here, or was closed: its spiders are told. What comes of it later is begun anew. */
  over(crawl: string): void {
    this.#sessions.over(crawl);
  }

  /** Resolves when all spiders were told that it is over. */
  async stop(): Promise<void> {
    await this.#sessions.stop();
  }

  /** @throws SpiderError when there is none @throws SpiderUnavailableError */
  #spiderOf(task: Task, crawl: Crawl): Spider | Promise<Spider> {
    const name = task.request?.spider ?? crawl.spider;
    // What another spider's version is, this crawl does not say.
    const version = name === crawl.spider ? crawl.spiderVersion : undefined;
    const known = (spider: Spider | undefined) => {
      if (spider !== undefined) return spider;
      const ofVersion = version === undefined ? "" : ` with a version "${version}"`;
      throw new SpiderError(`no spider named "${name}"${ofVersion} here`);
    };
    const found = this.#deps.spiders.get(name, version);
    return found instanceof Promise ? found.then(known) : known(found);
  }

  /** @throws what has nothing to do with the spider, as it came */
  #withoutSpider(error: unknown, task: Task): Outcome {
    if (error instanceof SpiderUnavailableError) return this.#judge.withoutSpider(error, task);
    if (!(error instanceof SpiderError)) throw error;
    const untried = { endedAt: this.#deps.clock.now(), untouched: true, counts: false };
    return { ...untried, state: "failed", reason: "spider-error", error: error.message };
  }

  async #visit(
    task: Task,
    crawl: Crawl,
    spider: Spider,
    session: SpiderSession | undefined,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<TaskResult | undefined> {
    const rendering = PageRendering.of(task, crawl, this.#deps);
    const { links: admission, sitemaps } = this.#admissionOf(crawl);
    const profile = this.#profiles.of(crawl);
    const context: CrawlContext = {
      crawl,
      spider,
      admission,
      ...(rendering !== undefined && { rendering }),
      profile,
      limits: profile?.limits ?? this.#limits,
      judge: profile?.judge ?? this.#judge,
      ...(session !== undefined && { session }),
    };
    if (crawl.archive === true) {
      findings.archive = new TaskArchive(task, this.#deps.clock, context.limits.maxPageBytes);
    }
    let outcome: Outcome;
    try {
      const follow = () => this.#followUrl(task, context, findings, signal);
      outcome = rendering === undefined ? await follow() : await rendering.hold(signal, follow);
      if (crawl.links?.sitemaps === "all" && task.request?.sitemap === undefined) {
        const found = await sitemaps.of(task.target?.url ?? task.url, signal);
        for (const sitemap of found) findings.links.set(sitemap.id, sitemap);
      }
    } catch (error) {
      await this.#drop(crawl, findings);
      throw error;
    }
    if (signal.aborted) {
      await this.#drop(crawl, findings);
      return undefined;
    }
    if (outcome.backoffUntil !== undefined) {
      this.leaveAlone(task.host, outcome.backoffUntil);
      this.#deps.onHostLearnt?.({ host: task.host, backoffUntil: outcome.backoffUntil });
    }
    const result = this.#results.of(
      task,
      keptAs(findings, crawl),
      outcome,
      this.#nextVisitOf(task, crawl, findings, outcome),
    );
    return findings.archive === undefined ? result : { ...result, archive: await findings.archive.records() };
  }

  #nextVisitOf(task: Task, { recrawl }: Crawl, { visit }: Findings, outcome: Outcome): NextVisit | undefined {
    if (recrawl === undefined || outcome.state === "queued") return undefined;
    const { random = Math.random } = this.#deps;
    return nextVisit(recrawl, task.revisit, outcome, visit, outcome.endedAt, task.url, random());
  }

  /** A host asked to be left alone until an instant, in ms since the epoch: no fetch of it is begun before. */
  leaveAlone(host: string, until: number): void {
    this.#backoffs.set(host, Math.max(until, this.#backoffs.get(host) ?? until));
  }

  /** What becomes of a task whose host is not to be asked, or not now; undefined of any other. */
  #reprieveOf(task: Task): Outcome | undefined {
    const { givenUp, host } = task;
    const now = this.#deps.clock.now();
    const untried = { endedAt: now, untouched: true, counts: false } as const;
    if (givenUp !== undefined) return { ...untried, state: "failed", reason: "network", error: givenUp };
    const until = this.#backoffs.get(host);
    if (until === undefined) return undefined;
    if (until > now)
      return { ...untried, state: "queued", reason: "its host asked to be left alone", readyAt: until };
    this.#backoffs.delete(host);
    return undefined;
  }

  /** What was found will not be stored: files go, and links must be let through again. */
  async #drop(crawl: Crawl, findings: Findings): Promise<void> {
    this.forget(crawl);
    for (const file of findings.files) {
      // What cannot be discarded now is found later, as something that nothing refers to.
      await this.#deps.files.discard(file.contentId, file.hold).catch(() => {});
    }
  }

  /** Links that came out of this crawl were not stored: they must be let through again. */
  forget(crawl: Pick<Crawl, "id" | "generation">): void {
    const admission = this.#admissions.get(admissionKey(crawl));
    admission?.links.forget();
    admission?.sitemaps.forget();
  }

  /** Asks robots.txt, fetches, and follows redirects as far as they stay in the lane. */
  async #followUrl(
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { clock } = this.#deps;
    const { judge, limits } = context;
    let url = task.target?.url ?? task.url;
    let hops = task.target?.hops ?? 0;
    let asGet = task.target?.asGet === true;
    let untouched = true;
    for (;;) {
      const waking = this.#deps.whenAwake?.();
      if (waking !== undefined) await waking;
      const refusal = await this.#gate.ask(url, task, context, findings, signal);
      if (refusal !== undefined) return { ...refusal, untouched };
      // It may have asked for that while its robots.txt was read.
      const reprieve = untouched ? this.#reprieveOf(task) : undefined;
      if (reprieve !== undefined) return reprieve;
      const wakingAgain = this.#deps.whenAwake?.();
      if (wakingAgain !== undefined) await wakingAgain;
      untouched = false;
      let fetched: Fetched;
      try {
        findings.fetchBeganAt = clock.now();
        // A page that scripts make may be another though its document is what it was.
        const conditions =
          context.rendering === undefined ? conditionsFor(task, url, context.crawl) : undefined;
        fetched = await this.#fetch(url, task, asGet, context.profile, findings, signal, conditions);
        findings.body = fetched.body;
      } catch (error) {
        return judge.fetchFailed(error, task);
      }
      let location = REDIRECTS.has(fetched.statusCode) ? fetched.headers.location : undefined;
      if (location === undefined) {
        const outcome = await this.#digest(fetched, url, task, context, findings, signal, asGet);
        if (outcome.state !== "moved") return outcome;
        location = outcome.to;
        asGet = true;
      }

      fetched.body.discard();
      const endedAt = clock.now();
      const { statusCode } = fetched;
      const facts = { endedAt, statusCode, counts: true };
      hops += 1;
      if (hops > limits.maxRedirects) {
        const error = `more than ${limits.maxRedirects} redirects, the last to ${location}`;
        return { ...facts, state: "failed", reason: "too-many-redirects", error };
      }
      const target = canonicalUrl(location, url);
      if (target === undefined) {
        const error = `redirect to something that is no http(s) URL: ${location.slice(0, 200)}`;
        return { ...facts, state: "failed", reason: "http-status", error };
      }
      // A sitemap need not be in the crawl's scope; it may move about its host.
      const isFree = task.request?.sitemap !== undefined && target.hostname === new URL(url).hostname;
      if (!isFree && !context.admission.includes(target)) {
        return { ...facts, state: "skipped", reason: "scope", error: `redirect to ${target.url}` };
      }
      const asUrl = context.admission.targetOf(target, task.depth, task.url, task.request?.render);
      if (asUrl.id !== task.id && !(await this.#deps.claims.claim(asUrl, task.id))) {
        return { ...facts, state: "skipped", reason: "duplicate", error: `redirect to ${target.url}` };
      }
      asGet ||= statusCode === 303 || ((statusCode === 301 || statusCode === 302) && isPost(task));
      if (target.host !== task.host || task.delayMs > 0) {
        // The next hop is a fetch like any other: it waits for its lane.
        return {
          ...facts,
          counts: false,
          state: "queued",
          reason: `redirected to ${target.url}`,
          readyAt: endedAt,
          host: target.host,
          target: { url: target.url, hops, ...(asGet && { asGet }) },
        };
      }
      url = target.url;
    }
  }

  /** @param own headers that are ours to choose, whatever was asked for */
  async #fetch(
    url: string,
    task: Task,
    asGet: boolean,
    profile: FetchProfile | undefined,
    { archive }: Findings,
    signal: AbortSignal,
    own?: Readonly<Record<string, string>>,
  ): Promise<Fetched> {
    const { fetcher, clock, metrics } = this.#deps;
    const startedAt = clock.monotonic();
    const plain = requestAt(url, task, asGet);
    const request = {
      ...plain,
      ...(own !== undefined && { headers: { ...plain.headers, ...own } }),
      signal,
      ...(archive !== undefined && { tap: archive.tap(url) }),
    };
    const fetched = await fetcher.fetch(profile === undefined ? request : await profile.dressed(request));
    if (profile !== undefined) await profile.took(fetched);
    metrics?.fetchDuration.observe((clock.monotonic() - startedAt) / 1_000);
    return fetched;
  }

  /** Asks for more of what was fetched; what comes counts with what came. */
  async #fetchAgain(
    url: string,
    task: Task,
    asGet: boolean,
    profile: FetchProfile | undefined,
    findings: Findings,
    signal: AbortSignal,
    headers: Readonly<Record<string, string>>,
  ): Promise<Fetched> {
    const bytesBefore = findings.body?.receivedBytes ?? 0;
    const fetched = await this.#fetch(url, task, asGet, profile, findings, signal, headers);
    findings.body = {
      get receivedBytes() {
        return bytesBefore + fetched.body.receivedBytes;
      },
    };
    return fetched;
  }

  /** A response that is no redirect: judged by its status, then stored as a file or read by the spider. */
  async #digest(
    fetched: Fetched,
    url: string,
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
    asGet: boolean,
    restarts = 0,
  ): Promise<Outcome | Moved> {
    const { clock } = this.#deps;
    const { statusCode } = fetched;
    const isNotModified = statusCode === 304 && wasAskedIfModified(task, url, context.crawl);
    if (!isNotModified && (statusCode < 200 || statusCode > 299)) {
      fetched.body.discard();
      return context.judge.badStatus(fetched, task);
    }
    let bytes = 0;
    let endedAt = clock.now();
    const facts = () => ({ endedAt, statusCode, counts: true });
    let known: Known = {};
    try {
      const form =
        isNotModified || context.crawl.links === undefined
          ? undefined
          : await listingFormOf(fetched, task, context.crawl);
      if (form !== undefined) {
        bytes = await this.#readListing(fetched, url, form, task, context, findings);
        endedAt = clock.now();
        findings.pages.push(this.#pageOf(fetched, url, bytes, task, endedAt, known));
        return { ...facts(), state: "done" };
      }
      if (!isNotModified && task.request?.sitemap !== undefined) {
        fetched.body.discard();
        endedAt = clock.now();
        return { ...facts(), state: "skipped", reason: "type", error: "is no sitemap" };
      }
      const isWanted = isNotModified || context.admission.acceptsType(fetched.contentType);
      const type = isWanted && !isNotModified ? await fileTypeOf(fetched, task, context.spider) : undefined;
      if (isNotModified) {
        fetched.body.discard();
        known = { isNotModified };
      } else if (!isWanted || (type === undefined && task.kind === "file")) {
        fetched.body.discard();
        endedAt = clock.now();
        const error = `is ${fetched.contentType ?? "of no stated type"}`;
        return { ...facts(), state: "skipped", reason: "type", error };
      } else if (type !== undefined) {
        if (this.#gate.directivesOf(fetched, context.crawl)?.noindex === true) {
          fetched.body.discard();
          endedAt = clock.now();
          const error = "its X-Robots-Tag says that it is not to be kept";
          return { ...facts(), state: "skipped", reason: "robots", error };
        }
        const content = await this.#files.save(fetched, url, type, task, {
          signal,
          mayResume: asGet || (task.request?.method ?? "GET") === "GET",
          askAgain: (headers) =>
            this.#fetchAgain(url, task, asGet, context.profile, findings, signal, headers),
        });
        endedAt = clock.now();
        bytes = content.bytes;
        known = await this.#recognise(() => contentHashOf(content.sha256), undefined, bytes, task, context);
        if (isNew(known)) await this.#keepFile(content, url, type, task, context, findings, signal);
        else await this.#deps.files.discard(content.contentId, content.hold).catch(() => {});
      } else {
        const body = await fetched.body.read(context.limits.maxPageBytes);
        endedAt = clock.now();
        bytes = body.length;
        let content: PageContent = { ...fetched, url, body };
        if (context.rendering !== undefined) {
          const page = await context.rendering.apply(content, findings, signal);
          endedAt = clock.now();
          bytes += page.bytes;
          if (page.kind === "left") return { state: "moved", to: page.to };
          content = page.content;
        }
        // What a browser made of it: the document of many a page is the same for all of a site.
        const { body: shown } = content;
        known = await this.#recognise(() => contentHash(shown), shown, bytes, task, context);
        const canonical = isNew(known)
          ? await this.#runSpider(content, task, context, findings, signal)
          : await this.#dropFiles(findings);
        if (canonical !== undefined) {
          return {
            ...facts(),
            state: "skipped",
            reason: "duplicate",
            error: `its canonical URL is ${canonical}`,
          };
        }
      }
    } catch (error) {
      if (error instanceof BodyRestartedError && restarts < MAX_RESTARTS) {
        return this.#digest(error.fetched, url, task, context, findings, signal, asGet, restarts + 1);
      }
      if (error instanceof BodyRestartedError) {
        error.fetched.body.discard();
        return this.#judge.fetchFailed(new FetchError("network", error.message), task, statusCode);
      }
      if (error instanceof SpiderError) {
        await this.#dropFiles(findings);
        findings.items = [];
        findings.invalidItems = [];
        findings.links.clear();
        context.admission.forget();
        if (context.session !== undefined) await this.#sessions.failed(context.session, error, url);
        return { ...facts(), state: "failed", reason: "spider-error", error: error.message };
      }
      return context.judge.fetchFailed(error, task, statusCode);
    }
    findings.pages.push(this.#pageOf(fetched, url, bytes, task, endedAt, known));
    const { duplicateOf, contentHash: hash } = known;
    if (duplicateOf !== undefined) {
      const error = `the same ${duplicateOf.isSame ? "body" : "text, nearly,"} as ${duplicateOf.url}`;
      return { ...facts(), state: "skipped", reason: "duplicate", error };
    }
    const isUnchanged = known.isUnchanged === true || known.isNotModified === true;
    if (context.crawl.recrawl !== undefined) {
      findings.visit = {
        url,
        isUnchanged,
        ...(hash !== undefined && { contentHash: hash }),
        ...validatorsOf(fetched.headers, endedAt),
      };
    }
    return { ...facts(), state: "done", ...(isUnchanged && { isUnchanged }) };
  }

  #pageOf(
    { statusCode, contentType }: Fetched,
    url: string,
    bytes: number,
    task: Task,
    at: number,
    known: Known,
  ): PageRecord {
    return {
      id: `${task.id}.${task.round}`,
      crawl: task.crawl,
      url: task.url,
      ...(url !== task.url && { finalUrl: url }),
      statusCode,
      ...(contentType !== undefined && { contentType }),
      bytes,
      ...(known.contentHash !== undefined && { contentHash: known.contentHash }),
      ...(known.isNotModified === true && { notModified: true }),
      ...(known.isUnchanged === true && { isUnchanged: true }),
      ...(known.duplicateOf !== undefined && { duplicateOf: known.duplicateOf.url }),
      depth: task.depth,
      at,
      node: this.#deps.node,
    };
  }

  async #readListing(
    fetched: Fetched,
    url: string,
    form: ListingForm,
    task: Task,
    { crawl, admission }: CrawlContext,
    findings: Findings,
  ): Promise<number> {
    const logger = loggerOf(task, this.#deps.logger);
    const input = { task, crawl, admission, findings, limits: this.#limits, logger };
    return await new ListingRun(input, url, form).read(fetched.body);
  }

  /** The page is not kept after all, nor what was stored of it. */
  async #dropFiles(findings: Findings): Promise<undefined> {
    for (const { contentId, hold } of findings.files) await this.#deps.files.discard(contentId, hold);
    findings.files = [];
  }

  /** Whether the crawl has had this body before: at this URL the last time, or at another. */
  async #recognise(
    hashOf: () => string,
    page: Buffer | undefined,
    bytes: number,
    task: Task,
    { crawl }: CrawlContext,
  ): Promise<Known> {
    const { recrawl, duplicates = "off" } = crawl;
    // That two have nothing says nothing about them.
    if ((recrawl === undefined && duplicates === "off") || bytes === 0) return {};
    const hash = hashOf();
    const former = task.revisit?.contentHash;
    if (former === hash) return { contentHash: hash, isUnchanged: true };
    if (duplicates === "off") return { contentHash: hash };
    const simhash =
      duplicates === "similar" && page !== undefined ? simhashOf(page.toString("utf8")) : undefined;
    const duplicateOf = await this.#deps.contents.claim({
      crawl: task.crawl,
      urlId: task.id,
      url: task.url,
      contentHash: hash,
      ...(simhash !== undefined && { simhash }),
      ...(former !== undefined && { formerHash: former }),
    });
    return { contentHash: hash, ...(duplicateOf !== undefined && { duplicateOf }) };
  }

  /** Puts a stored body on record, and shows it to the spider. */
  async #keepFile(
    content: StoredContent,
    url: string,
    contentType: string,
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, files } = this.#deps;
    const name = fileNameOf(url);
    const record: FileRecord = {
      id: `${task.id}.${task.round}`,
      crawl: task.crawl,
      url: task.url,
      ...content,
      name,
      contentType,
      at: clock.now(),
    };
    findings.files.push(record);
    findings.archive?.bodyIsStored(content);
    const { spider } = context;
    if (spider.file !== undefined) {
      const foundOn = task.parent ?? task.url;
      const meta = task.request?.meta ?? {};
      const parts = { record, url, foundOn, meta, files, documents: this.#documents, signal };
      const file = new FileView(parts);
      await this.#spiderRun(task, context, findings, signal).onFile(file);
    }
  }

  /** @returns the canonical URL of the page if that is another one, and the page is left to it */
  async #runSpider(
    { url, body, statusCode, headers, contentType, rendered }: PageContent,
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<string | undefined> {
    const { crawl } = context;
    const page = new PageView({
      task,
      crawl,
      url,
      status: statusCode,
      headers,
      contentType,
      body,
      ...(rendered !== undefined && { rendered }),
      documents: this.#documents,
      state: this.#deps.states.of(crawl.id),
      log: () => this.#pageLog(task, context, url),
      signal,
    });
    const isBig = body.length > this.#limits.bigPageBytes;
    if (isBig || context.spider.tree !== undefined) await page.prepare(context.spider.tree, isBig);
    if (crawl.links?.canonical === "duplicate") {
      const canonical = await this.#knownCanonical(page, task, context);
      if (canonical !== undefined) return canonical;
    }
    const directives = this.#gate.directivesOf({ headers }, crawl, page);
    await this.#spiderRun(task, context, findings, signal, directives).onPage(page);
    return undefined;
  }

  /** The page's canonical URL, if that is in scope and known as a URL of its own, or through another page. */
  async #knownCanonical(
    page: PageView,
    task: Task,
    { admission }: CrawlContext,
  ): Promise<string | undefined> {
    const canonical = page.canonical();
    if (canonical === undefined || !admission.includes(canonical)) return undefined;
    const asUrl = admission.targetOf(canonical, task.depth, task.url);
    if (asUrl.id === task.id || admission.isLeftTo(task.id)) return undefined;
    if (await this.#deps.claims.claim(asUrl, task.id)) return undefined;
    admission.leaveTo(asUrl.id);
    return canonical.url;
  }

  #pageLog(task: Task, { crawl, spider }: CrawlContext, url: string): Logger {
    const { pageLog, logger } = this.#deps;
    return pageLog?.(task, crawl, spider) ?? loggerOf(task, logger).child({ crawl: crawl.id, url });
  }

  #spiderRun(
    task: Task,
    { spider, admission }: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
    directives?: RobotsDirectives,
  ): SpiderRun {
    const { clock, node } = this.#deps;
    return new SpiderRun({
      spider,
      task,
      admission,
      findings,
      limits: this.#limits,
      clock,
      node,
      signal,
      ...(directives !== undefined && { directives }),
    });
  }

  #admissionOf(crawl: Crawl): Admission {
    const key = admissionKey(crawl);
    let admission = this.#admissions.get(key);
    if (admission === undefined || admission.links.maxDepth !== crawl.limits.maxDepth) {
      // In the inbox each URL from outside is a crawl of its own, whose links are wanted whole.
      const rememberedUrls = crawl.id === INBOX ? 0 : this.#limits.rememberedUrls;
      const { clock, logger } = this.#deps;
      const links = new LinkAdmission(crawl, {
        rememberedUrls,
        now: () => clock.now(),
        onTrap: (trap) =>
          logger.warn(
            { crawl: crawl.id, ...trap },
            "links of this kind on this host are a trap, and skipped",
          ),
      });
      admission = { links, sitemaps: new SitemapDiscovery(this.#deps.robots, links) };
      this.#admissions.set(key, admission);
    }
    return admission;
  }
}

function admissionKey(crawl: Pick<Crawl, "id" | "generation">): string {
  return `${crawl.id}:${crawl.generation}`;
}

/** What is logged for a task of a trace says so. */
function loggerOf({ request }: Task, logger: Logger): Logger {
  return request?.trace === undefined ? logger : logger.child(traceFields(request.trace));
}

function isPost(task: Task): boolean {
  return task.request?.method === "POST";
}

function isNew({ isUnchanged, duplicateOf }: Known): boolean {
  return isUnchanged !== true && duplicateOf === undefined;
}

/** By what the server can tell whether the URL is still what it was the last time, if we know. */
function conditionsFor(task: Task, url: string, { recrawl }: Crawl): Record<string, string> | undefined {
  return recrawl === undefined || isPost(task) ? undefined : conditionsOf(task.revisit, url, task.url);
}

/** Whether a 304 is an answer to what was asked: by us, or by whoever handed the URL in. */
function wasAskedIfModified(task: Task, url: string, crawl: Crawl): boolean {
  if (conditionsFor(task, url, crawl) !== undefined) return true;
  return Object.keys(task.request?.headers ?? {}).some((name) =>
    /^if-(none-match|modified-since)$/i.test(name),
  );
}
