import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import { untilAborted } from "../lib/until-aborted.js";
import type { ContentIndex } from "./content-index.js";
import { ContentRecogniser } from "./content-recogniser.js";
import type { Crawl } from "./crawl.js";
import type { CrawlStates } from "./crawl-state.js";
import type { HostNews } from "./dispatch/host-state.js";
import { SpiderError, SpiderUnavailableError } from "./errors.js";
import { FetchProfiles } from "./fetch/fetch-profile.js";
import type { Fetcher } from "./fetch/fetcher.js";
import { FileKeeper } from "./file-keeper.js";
import type { Frontier } from "./frontier.js";
import { keptAs } from "./item-keeping.js";
import { DEFAULT_TASK_LIMITS, type TaskLimits } from "./limits.js";
import { LinkAdmissions } from "./link-admissions.js";
import { AttemptJudge, type Outcome } from "./outcome.js";
import { Documents } from "./pages/documents.js";
import type { FileStore } from "./records.js";
import { PageRendering } from "./render/page-rendering.js";
import type { PageRenderer } from "./render/renderer.js";
import { RestedHosts } from "./rested-hosts.js";
import { type NextVisit, nextVisit } from "./revisit.js";
import type { Robots } from "./robots/robots.js";
import { RobotsGate } from "./robots/robots-gate.js";
import type { Spider } from "./spider.js";
import type { SpiderCatalog } from "./spider-catalog.js";
import { type SpiderSession, SpiderSessions } from "./spider-sessions.js";
import type { Task } from "./task.js";
import { type Findings, nothingFound, type TaskResult, TaskResults } from "./task-result.js";
import { TaskRun, type TaskRunParts } from "./task-run.js";

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

/** A spider that is ready for a task; with a session when it has hooks. */
type ReadySpider = { readonly spider: Spider; readonly session: SpiderSession | undefined };

/**
 * The way of a URL inside one process: its spider is made ready, its page fetched (each redirect checked anew), parsed
 * and shown to the spider. It stores nothing: what a task brought is returned, to be committed in groups by whoever runs
 * the engine.
 */
export class Engine {
  readonly #deps: EngineDeps;
  readonly #limits: TaskLimits;
  readonly #judge: AttemptJudge;
  readonly #admissions: LinkAdmissions;
  readonly #hosts: RestedHosts;
  readonly #profiles: FetchProfiles;
  readonly #sessions: SpiderSessions;
  readonly #results: TaskResults;
  readonly #parts: TaskRunParts;

  constructor(deps: EngineDeps, limits: Partial<TaskLimits> = {}) {
    const { clock } = deps;
    this.#deps = deps;
    this.#limits = { ...DEFAULT_TASK_LIMITS, ...limits };
    this.#judge = new AttemptJudge(clock, this.#limits);
    this.#admissions = new LinkAdmissions(deps, this.#limits.rememberedUrls);
    this.#hosts = new RestedHosts(clock);
    this.#profiles = new FetchProfiles(clock, this.#limits);
    this.#sessions = new SpiderSessions(deps, { openTimeoutMs: this.#limits.spiderTimeoutMs });
    this.#results = new TaskResults({ node: deps.node });
    this.#parts = {
      ...deps,
      documents: deps.documents ?? new Documents(),
      gate: new RobotsGate(deps),
      keeper: new FileKeeper(deps, this.#limits),
      recogniser: new ContentRecogniser(deps.contents),
      sessions: this.#sessions,
      hosts: this.#hosts,
    };
  }

  /**
   * Runs one task.
   * @returns undefined when the signal ended it: nothing may be concluded about the URL then
   */
  async run(task: Task, crawl: Crawl, signal: AbortSignal): Promise<TaskResult | undefined> {
    let ready: ReadySpider | Outcome;
    try {
      ready = await this.#ready(task, crawl, signal);
    } catch (error) {
      if (signal.aborted) return undefined;
      ready = this.#withoutSpider(error, task);
    }
    if ("state" in ready) return this.#results.of(task, nothingFound(), ready);
    try {
      return await this.#visit(task, crawl, ready, signal);
    } finally {
      if (ready.session !== undefined) this.#sessions.leave(ready.session);
    }
  }

  /** A host asked to be left alone until an instant, in ms since the epoch: no fetch of it is begun before. */
  leaveAlone(host: string, until: number): void {
    this.#hosts.leaveAlone(host, until);
  }

  /** A crawl is over here, or was closed: its spiders are told. What comes of it later is begun anew. */
  over(crawl: string): void {
    this.#sessions.over(crawl);
  }

  /** Resolves when all spiders were told that it is over. */
  async stop(): Promise<void> {
    await this.#sessions.stop();
  }

  /**
   * The task's spider, or what becomes of a task that is not to begin now.
   * @throws SpiderError when there is none, or it cannot be opened @throws SpiderUnavailableError
   */
  async #ready(task: Task, crawl: Crawl, signal: AbortSignal): Promise<ReadySpider | Outcome> {
    const found = this.#spiderOf(task, crawl);
    const spider = found instanceof Promise ? await untilAborted(found, signal) : found;
    const reprieve = this.#hosts.reprieveOf(task);
    if (reprieve !== undefined) return reprieve;
    const entered = this.#sessions.enter(crawl, spider, signal);
    return { spider, session: entered instanceof Promise ? await entered : entered };
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
    ready: ReadySpider,
    signal: AbortSignal,
  ): Promise<TaskResult | undefined> {
    const rendering = PageRendering.of(task, crawl, this.#deps);
    const { links: admission, sitemaps } = this.#admissions.of(crawl);
    const profile = this.#profiles.of(crawl);
    const run = new TaskRun(this.#parts, {
      task,
      crawl,
      ...ready,
      admission,
      rendering,
      profile,
      limits: profile?.limits ?? this.#limits,
      judge: profile?.judge ?? this.#judge,
      signal,
    });
    const { findings } = run;
    let outcome: Outcome;
    try {
      outcome =
        rendering === undefined ? await run.follow() : await rendering.hold(signal, () => run.follow());
      if (crawl.links?.sitemaps === "all" && task.request?.sitemap === undefined) {
        const found = await sitemaps.of(task.target?.url ?? task.url, signal, profile?.route);
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
    return this.#concluded(task, crawl, findings, outcome);
  }

  async #concluded(task: Task, crawl: Crawl, findings: Findings, outcome: Outcome): Promise<TaskResult> {
    const { backoffUntil } = outcome;
    if (backoffUntil !== undefined) {
      this.leaveAlone(task.host, backoffUntil);
      this.#deps.onHostLearnt?.({ host: task.host, backoffUntil });
    }
    const next = this.#nextVisitOf(task, crawl, findings, outcome);
    const result = this.#results.of(task, keptAs(findings, crawl), outcome, next);
    return findings.archive === undefined ? result : { ...result, archive: await findings.archive.records() };
  }

  #nextVisitOf(task: Task, { recrawl }: Crawl, { visit }: Findings, outcome: Outcome): NextVisit | undefined {
    if (recrawl === undefined || outcome.state === "queued") return undefined;
    const { random = Math.random } = this.#deps;
    return nextVisit(recrawl, task.revisit, outcome, visit, outcome.endedAt, task.url, random());
  }

  /** What was found will not be stored: files go, and links must be let through again. */
  async #drop(crawl: Crawl, findings: Findings): Promise<void> {
    this.#admissions.forget(crawl);
    for (const file of findings.files) {
      // What cannot be discarded now is found later, as something that nothing refers to.
      await this.#deps.files.discard(file.contentId, file.hold).catch(() => {});
    }
  }
}
