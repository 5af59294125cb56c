import type { Metrics } from "../lib/metrics.js";
import { TaskArchive } from "./archive/archive.js";
import type { Crawl } from "./crawl.js";
import type { FetchProfile } from "./fetch/fetch-profile.js";
import type { Fetched, Fetcher } from "./fetch/fetcher.js";
import { Intake, type IntakeParts } from "./intake.js";
import type { TaskLimits } from "./limits.js";
import type { LinkAdmission } from "./link-admission.js";
import type { AttemptJudge, Outcome } from "./outcome.js";
import { isRedirect, nextHop, RedirectJudge } from "./redirect-judge.js";
import type { PageRendering } from "./render/page-rendering.js";
import type { RestedHosts } from "./rested-hosts.js";
import { conditionsOf } from "./revisit.js";
import type { Spider } from "./spider.js";
import type { SpiderSession } from "./spider-sessions.js";
import type { Task } from "./task.js";
import { requestAt } from "./task-request.js";
import { type Findings, nothingFound } from "./task-result.js";

export type TaskRunParts = IntakeParts & {
  readonly fetcher: Fetcher;
  readonly hosts: Pick<RestedHosts, "reprieveOf">;
  readonly metrics?: Metrics;
  /** A promise to wait for before anything is asked of a host; undefined when nothing need be waited for. */
  readonly whenAwake?: () => Promise<void> | undefined;
};

export type TaskRunInput = {
  readonly task: Task;
  readonly crawl: Crawl;
  readonly spider: Spider;
  /** Set when the spider has hooks. */
  readonly session: SpiderSession | undefined;
  readonly admission: LinkAdmission;
  /** Set when the page is to be rendered. */
  readonly rendering: PageRendering | undefined;
  /** What the crawl's `fetch` options make of requests; undefined when it has none. */
  readonly profile: FetchProfile | undefined;
  readonly limits: TaskLimits;
  readonly judge: AttemptJudge;
  readonly signal: AbortSignal;
};

/**
 * One task on its way: robots.txt, fetch, the next hop of a redirect and so on; then what came is read as what it is, a
 * sitemap, a file or a page. What it brings is among its findings, and what becomes of the URL is what `follow` returns.
 */
export class TaskRun {
  readonly task: Task;
  readonly crawl: Crawl;
  readonly spider: Spider;
  readonly admission: LinkAdmission;
  readonly profile: FetchProfile | undefined;
  readonly limits: TaskLimits;
  readonly judge: AttemptJudge;
  readonly session: SpiderSession | undefined;
  readonly rendering: PageRendering | undefined;
  readonly signal: AbortSignal;
  readonly findings: Findings = nothingFound();
  readonly #parts: TaskRunParts;
  #url: string;
  #hops: number;
  #asGet: boolean;

  constructor(parts: TaskRunParts, input: TaskRunInput) {
    const { task, crawl, limits } = input;
    this.#parts = parts;
    this.task = task;
    this.crawl = crawl;
    this.spider = input.spider;
    this.admission = input.admission;
    this.profile = input.profile;
    this.limits = limits;
    this.judge = input.judge;
    this.signal = input.signal;
    this.session = input.session;
    this.rendering = input.rendering;
    this.#url = task.target?.url ?? task.url;
    this.#hops = task.target?.hops ?? 0;
    this.#asGet = task.target?.asGet === true;
    if (crawl.archive === true) {
      this.findings.archive = new TaskArchive(task, parts.clock, limits.maxPageBytes);
    }
  }

  /** Where redirects have led so far. */
  get url(): string {
    return this.#url;
  }

  /** Whether they have turned its method into GET. */
  get asGet(): boolean {
    return this.#asGet;
  }

  /** Asks robots.txt, fetches, and follows redirects as far as they stay in the lane. */
  async follow(): Promise<Outcome> {
    const { gate, hosts, whenAwake } = this.#parts;
    let untouched = true;
    for (;;) {
      const waking = whenAwake?.();
      if (waking !== undefined) await waking;
      const refusal = await gate.ask(this.#url, this);
      if (refusal !== undefined) return { ...refusal, untouched };
      // It may have asked to be left alone while its robots.txt was read.
      const reprieve = untouched ? hosts.reprieveOf(this.task) : undefined;
      if (reprieve !== undefined) return reprieve;
      const wakingAgain = whenAwake?.();
      if (wakingAgain !== undefined) await wakingAgain;
      untouched = false;
      let fetched: Fetched;
      try {
        fetched = await this.#fetchFirst();
      } catch (error) {
        return this.judge.fetchFailed(error, this.task);
      }
      let location = isRedirect(fetched.statusCode) ? fetched.headers.location : undefined;
      if (location === undefined) {
        const outcome = await new Intake(this.#parts, this, fetched).take();
        if (outcome.state !== "moved") return outcome;
        location = outcome.to;
        this.#asGet = true;
      }
      fetched.body.discard();
      const outcome = await this.#goOn(location, fetched.statusCode);
      if (outcome !== undefined) return outcome;
    }
  }

  /** @returns how it ends by the redirect, or waits for another lane; undefined when the next hop is to be fetched now */
  async #goOn(location: string, statusCode: number): Promise<Outcome | undefined> {
    const { task, admission, limits } = this;
    const { clock, claims } = this.#parts;
    const facts = { endedAt: clock.now(), statusCode };
    const redirects = new RedirectJudge({ admission, claims, maxRedirects: limits.maxRedirects });
    const verdict = await redirects.judge(task, {
      statusCode,
      from: this.#url,
      location,
      hops: this.#hops,
      asGet: this.#asGet,
    });
    if (verdict.kind === "end") return { ...facts, counts: true, ...verdict.end };
    const { target, hops, asGet } = verdict;
    if (target.host === task.host && task.delayMs === 0) {
      this.#url = target.url;
      this.#hops = hops;
      this.#asGet = asGet;
      return undefined;
    }
    return nextHop(verdict, facts);
  }

  async #fetchFirst(): Promise<Fetched> {
    this.findings.fetchBeganAt = this.#parts.clock.now();
    // A page that scripts make may be another though its document is what it was.
    const conditions = this.rendering === undefined ? this.#conditions() : undefined;
    const fetched = await this.#fetch(conditions);
    this.findings.body = fetched.body;
    return fetched;
  }

  /** Asks for more of what was fetched; what comes counts with what came. */
  async fetchAgain(headers: Readonly<Record<string, string>>): Promise<Fetched> {
    const bytesBefore = this.findings.body?.receivedBytes ?? 0;
    const fetched = await this.#fetch(headers);
    this.findings.body = {
      get receivedBytes() {
        return bytesBefore + fetched.body.receivedBytes;
      },
    };
    return fetched;
  }

  /** @param own headers that are ours to choose, whatever was asked for */
  async #fetch(own: Readonly<Record<string, string>> | undefined): Promise<Fetched> {
    const { fetcher, clock, metrics } = this.#parts;
    const { profile, signal } = this;
    const { archive } = this.findings;
    const startedAt = clock.monotonic();
    const plain = requestAt(this.#url, this.task, this.#asGet);
    const request = {
      ...plain,
      ...(own !== undefined && { headers: { ...plain.headers, ...own } }),
      signal,
      ...(archive !== undefined && { tap: archive.tap(this.#url) }),
    };
    const fetched = await fetcher.fetch(profile === undefined ? request : await profile.dressed(request));
    if (profile !== undefined) await profile.took(fetched);
    metrics?.fetchDuration.observe((clock.monotonic() - startedAt) / 1_000);
    return fetched;
  }

  /** By what the server can tell whether the URL is still what it was the last time, if we know. */
  #conditions(): Record<string, string> | undefined {
    const { revisit, url, request } = this.task;
    if (this.crawl.recrawl === undefined || request?.method === "POST") return undefined;
    return conditionsOf(revisit, this.#url, url);
  }

  /** Whether a 304 is an answer to what was asked: by us, or by whoever handed the URL in. */
  wasAskedIfModified(): boolean {
    if (this.#conditions() !== undefined) return true;
    return Object.keys(this.task.request?.headers ?? {}).some((name) =>
      /^if-(none-match|modified-since)$/i.test(name),
    );
  }
}
