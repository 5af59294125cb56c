import { LRUCache } from "lru-cache";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import { traceFields } from "../lib/trace-context.js";
import { type Crawl, INBOX } from "./crawl.js";
import { FetchError, SpiderError, StorageError } from "./errors.js";
import type { Fetched, Fetcher } from "./fetcher.js";
import { fileNameOf, SNIFFED_BYTES, wantedType } from "./file-types.js";
import type { Ending, FailReason, Frontier, NewUrl, RedirectTarget, SkipReason } from "./frontier.js";
import {
  DEFAULT_TASK_LIMITS,
  isRetriedStatus,
  retryAfterMs,
  retryDelayMs,
  type TaskLimits,
} from "./limits.js";
import { LinkAdmission } from "./link-admission.js";
import { PageView } from "./page-view.js";
import type { FileRecord, FileStore, ItemRecord, PageRecord } from "./records.js";
import type { Robots } from "./robots.js";
import type { Spider, SpiderFile, SpiderOutput, SpiderRequest } from "./spider.js";
import type { HostState, Task, TaskEnd } from "./task.js";
import { canonicalUrl } from "./url.js";

/** Everything that one task brought, to be stored together. */
export type TaskResult = {
  readonly ending: Ending;
  readonly end: TaskEnd;
  readonly pages: readonly PageRecord[];
  readonly items: readonly ItemRecord[];
  readonly files: readonly FileRecord[];
  readonly links: readonly NewUrl[];
  /** What is to be remembered of the host. */
  readonly hostState?: HostState;
};

export interface SpiderCatalog {
  get(name: string): Spider | undefined;
}

export type EngineDeps = {
  readonly fetcher: Fetcher;
  readonly robots: Robots;
  readonly files: FileStore;
  readonly spiders: SpiderCatalog;
  readonly claims: Pick<Frontier, "claim">;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics?: Metrics;
  /** Told now and then how much of a file has come, while that takes long. */
  readonly onProgress?: (task: Task, bytes: number) => void;
  /** The node's id, on every record. */
  readonly node: string;
};

/** What a task came to, before it is put into records. */
type Outcome = {
  /** When the last fetch of it ended. */
  endedAt: number;
  /** Nothing was asked of the host. */
  untouched?: boolean;
  statusCode?: number;
  /** The attempt counts. */
  counts: boolean;
  backoffUntil?: number;
} & (
  | { state: "done" }
  | { state: "failed"; reason: FailReason; error: string }
  | { state: "skipped"; reason: SkipReason; error?: string }
  | { state: "queued"; reason: string; readyAt: number; host?: string; target?: RedirectTarget }
);

type CrawlContext = {
  readonly crawl: Crawl;
  readonly spider: Spider;
  readonly admission: LinkAdmission;
};

/** What a task gathers on its way. */
type Findings = {
  pages: PageRecord[];
  items: ItemRecord[];
  files: FileRecord[];
  links: Map<string, NewUrl>;
  crawlDelayMs?: number;
};

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
/** How often is told how much of a file has come, in milliseconds. */
const PROGRESS_MS = 1_000;
const NO_BYTES = Buffer.alloc(0);

/**
 * The way of a URL inside one process: robots, fetch (each redirect checked anew), parse, spider. It stores
 * nothing: what a task brought is returned, to be committed in groups by whoever runs the engine.
 */
export class Engine {
  readonly #deps: EngineDeps;
  readonly #limits: TaskLimits;
  readonly #admissions = new LRUCache<string, LinkAdmission>({ max: 16 });
  readonly #notedDelays = new LRUCache<string, number>({ max: 50_000 });

  constructor(deps: EngineDeps, limits: Partial<TaskLimits> = {}) {
    this.#deps = deps;
    this.#limits = { ...DEFAULT_TASK_LIMITS, ...limits };
  }

  /**
   * Runs one task.
   * @returns undefined when the signal ended it: nothing may be concluded about the URL then
   */
  async run(task: Task, crawl: Crawl, signal: AbortSignal): Promise<TaskResult | undefined> {
    const name = task.request?.spider ?? crawl.spider;
    const spider = this.#deps.spiders.get(name);
    const findings: Findings = { pages: [], items: [], files: [], links: new Map() };
    if (spider === undefined) {
      const error = `no spider named "${name}" here`;
      return this.#toResult(task, findings, {
        state: "failed",
        reason: "spider-error",
        error,
        endedAt: this.#deps.clock.now(),
        untouched: true,
        counts: false,
      });
    }
    const context = { crawl, spider, admission: this.#admissionOf(crawl) };
    let outcome: Outcome;
    try {
      outcome = await this.#followUrl(task, context, findings, signal);
    } catch (error) {
      await this.#drop(crawl, findings);
      throw error;
    }
    if (signal.aborted) {
      await this.#drop(crawl, findings);
      return undefined;
    }
    return this.#toResult(task, findings, outcome);
  }

  /** What was found will not be stored: files go, and links must be let through again. */
  async #drop(crawl: Crawl, findings: Findings): Promise<void> {
    this.forget(crawl);
    for (const file of findings.files) {
      // What cannot be discarded now is found later, as something that nothing refers to.
      await this.#deps.files.discard(file.contentId).catch(() => {});
    }
  }

  /** Links that came out of this crawl were not stored: they must be let through again. */
  forget(crawl: Pick<Crawl, "id" | "generation">): void {
    this.#admissions.get(admissionKey(crawl))?.forget();
  }

  /** Asks robots.txt, fetches, and follows redirects as far as they stay in the lane. */
  async #followUrl(
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<Outcome> {
    const { clock } = this.#deps;
    let url = task.target?.url ?? task.url;
    let hops = task.target?.hops ?? 0;
    let asGet = task.target?.asGet === true;
    let untouched = true;
    for (;;) {
      const refusal = await this.#askRobots(url, task, context.crawl, findings, signal);
      if (refusal !== undefined) return { ...refusal, untouched };
      untouched = false;
      let fetched: Fetched;
      try {
        fetched = await this.#fetch(url, task, asGet, signal);
      } catch (error) {
        return this.#fetchFailed(error, task);
      }
      const location = REDIRECTS.has(fetched.statusCode) ? fetched.headers.location : undefined;
      if (location === undefined) return this.#digest(fetched, url, task, context, findings, signal);

      fetched.body.discard();
      const endedAt = clock.now();
      const { statusCode } = fetched;
      const facts = { endedAt, statusCode, counts: true };
      hops += 1;
      if (hops > this.#limits.maxRedirects) {
        const error = `more than ${this.#limits.maxRedirects} redirects, the last to ${location}`;
        return { ...facts, state: "failed", reason: "too-many-redirects", error };
      }
      const target = canonicalUrl(location, url);
      if (target === undefined) {
        const error = `redirect to something that is no http(s) URL: ${location.slice(0, 200)}`;
        return { ...facts, state: "failed", reason: "http-status", error };
      }
      if (!context.admission.includes(target)) {
        return { ...facts, state: "skipped", reason: "scope", error: `redirect to ${target.url}` };
      }
      const asUrl = context.admission.targetOf(target, task.depth, task.url);
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

  /** What robots.txt has against it; undefined if nothing. */
  async #askRobots(
    url: string,
    task: Task,
    crawl: Crawl,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<Outcome | undefined> {
    if (!crawl.politeness.obeyRobots) return undefined;
    const { clock, robots } = this.#deps;
    try {
      const answer = await robots.check(url, signal);
      findings.crawlDelayMs = answer.crawlDelayMs;
      if (answer.allowed) return undefined;
      const endedAt = clock.now();
      if (answer.verdict !== "disallow") {
        return { state: "skipped", reason: "robots", endedAt, counts: false };
      }
      const error = answer.error ?? "robots.txt could not be had";
      return this.#tryAgain(task, endedAt, { state: "skipped", reason: "robots", error }, answer.failure);
    } catch (error) {
      return this.#fetchFailed(error, task);
    }
  }

  async #fetch(url: string, task: Task, asGet: boolean, signal: AbortSignal): Promise<Fetched> {
    const { request } = task;
    const startedAt = this.#deps.clock.monotonic();
    const mayCarry = task.target === undefined || new URL(url).host === new URL(task.url).host;
    const fetched = await this.#deps.fetcher.fetch({
      url,
      signal,
      ...(request?.method !== undefined && !asGet && { method: request.method }),
      // Headers may hold credentials: they are for the host they were meant for.
      ...(request?.headers !== undefined && mayCarry && { headers: request.headers }),
      ...(request?.body !== undefined && !asGet && mayCarry && { body: request.body }),
    });
    this.#deps.metrics?.fetchDuration.observe((this.#deps.clock.monotonic() - startedAt) / 1_000);
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
  ): Promise<Outcome> {
    const { clock } = this.#deps;
    const { statusCode } = fetched;
    if (statusCode !== 304 && (statusCode < 200 || statusCode > 299)) {
      fetched.body.discard();
      return this.#badStatus(fetched, task);
    }
    let bytes = 0;
    let endedAt = clock.now();
    const facts = () => ({ endedAt, statusCode, counts: true });
    try {
      const type = await this.#fileTypeOf(fetched, task, context.spider);
      if (type === undefined && task.kind === "file") {
        fetched.body.discard();
        endedAt = clock.now();
        const error = `is ${fetched.contentType ?? "of no stated type"}`;
        return { ...facts(), state: "skipped", reason: "type", error };
      }
      if (type !== undefined) {
        bytes = await this.#keepFile(fetched, url, type, task, context, findings, signal);
        endedAt = clock.now();
      } else {
        const body = await fetched.body.read(this.#limits.maxPageBytes);
        endedAt = clock.now();
        bytes = body.length;
        await this.#runSpider(fetched, url, body, task, context, findings, signal);
      }
    } catch (error) {
      if (error instanceof SpiderError) {
        for (const file of findings.files) await this.#deps.files.discard(file.contentId);
        findings.items = [];
        findings.files = [];
        findings.links.clear();
        context.admission.forget();
        return { ...facts(), state: "failed", reason: "spider-error", error: error.message };
      }
      return this.#fetchFailed(error, task, statusCode);
    }
    findings.pages.push({
      id: `${task.id}.${task.round}`,
      crawl: task.crawl,
      url: task.url,
      ...(url !== task.url && { finalUrl: url }),
      statusCode,
      ...(fetched.contentType !== undefined && { contentType: fetched.contentType }),
      bytes,
      depth: task.depth,
      at: endedAt,
      node: this.#deps.node,
    });
    return { ...facts(), state: "done" };
  }

  /** The type under which the body is to be stored as a file, or undefined if it is not to be. */
  async #fileTypeOf(fetched: Fetched, task: Task, spider: Spider): Promise<string | undefined> {
    if (spider.fileTypes === undefined) {
      return task.kind === "file" ? (fetched.contentType ?? "application/octet-stream") : undefined;
    }
    const firstBytes = fetched.statusCode === 304 ? NO_BYTES : await fetched.body.peek(SNIFFED_BYTES);
    return wantedType(spider.fileTypes, fetched.contentType, firstBytes);
  }

  async #keepFile(
    fetched: Fetched,
    url: string,
    contentType: string,
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<number> {
    const { files, clock } = this.#deps;
    const name = fileNameOf(url);
    const content = await files
      .save(this.#watched(fetched.body.stream(this.#limits.maxFileBytes), task), { name, contentType })
      .catch((error: unknown) => {
        if (error instanceof FetchError) throw error;
        throw new StorageError(`${url} could not be stored: ${messageOf(error)}`, { cause: error });
      });
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
    const { spider } = context;
    if (spider.file !== undefined) {
      const { id, sha256, bytes } = record;
      const foundOn = task.parent ?? task.url;
      const meta = task.request?.meta ?? {};
      const file: SpiderFile = { url, id, name, bytes, sha256, contentType, foundOn, meta };
      const on = { url, depth: task.depth };
      await this.#gather(() => spider.file?.(file) ?? [], on, undefined, task, context, findings, signal);
    }
    return content.bytes;
  }

  /** The same bytes, of which is told when there are many or they come slowly. */
  async *#watched(bytes: AsyncIterable<Buffer>, task: Task): AsyncGenerator<Buffer, void> {
    const { clock, onProgress } = this.#deps;
    if (onProgress === undefined) {
      yield* bytes;
      return;
    }
    let received = 0;
    let toldAt = clock.monotonic();
    for await (const chunk of bytes) {
      received += chunk.length;
      yield chunk;
      if (clock.monotonic() - toldAt < PROGRESS_MS) continue;
      toldAt = clock.monotonic();
      onProgress(task, received);
    }
  }

  async #runSpider(
    fetched: Fetched,
    url: string,
    body: Buffer,
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<void> {
    const { crawl, spider } = context;
    const page = new PageView({
      task,
      crawl,
      url,
      status: fetched.statusCode,
      headers: fetched.headers,
      contentType: fetched.contentType,
      body,
      log: loggerOf(task, this.#deps.logger),
      signal,
    });
    const on = { url, depth: task.depth };
    await this.#gather(() => spider.parse(page), on, page, task, context, findings, signal);
  }

  /** Takes in what a spider yields. @throws SpiderError whatever the spider throws, or if it takes too long */
  async #gather(
    begin: () => AsyncIterable<SpiderOutput> | Iterable<SpiderOutput>,
    on: { url: string; depth: number },
    page: PageView | undefined,
    task: Task,
    context: CrawlContext,
    findings: Findings,
    signal: AbortSignal,
  ): Promise<void> {
    const { spider } = context;
    let outputs = 0;
    const take = (output: SpiderOutput) => {
      outputs += 1;
      if (outputs > this.#limits.maxOutputs) {
        throw new Error(`more than ${this.#limits.maxOutputs} outputs from one page`);
      }
      this.#take(output, on, page, task, context, findings);
    };
    try {
      const yielded = begin();
      // A spider that is a plain generator costs no promise an output.
      if (Symbol.iterator in yielded) for (const output of yielded) take(output);
      else await this.#inTime(yielded, take, signal);
    } catch (error) {
      throw new SpiderError(`spider "${spider.name}" on ${on.url}: ${messageOf(error)}`, { cause: error });
    }
  }

  async #inTime(
    yielded: AsyncIterable<SpiderOutput>,
    take: (output: SpiderOutput) => void,
    signal: AbortSignal,
  ): Promise<void> {
    const iterator = yielded[Symbol.asyncIterator]();
    let giveUp: (error: Error) => void = () => {};
    const tooLong = new Promise<never>((_, reject) => {
      giveUp = reject;
    });
    tooLong.catch(() => {});
    const { spiderTimeoutMs } = this.#limits;
    const onAbort = () => giveUp(new Error("the task was stopped"));
    signal.addEventListener("abort", onAbort, { once: true });
    const stopTimer = this.#deps.clock.after(spiderTimeoutMs, () =>
      giveUp(new Error(`did not finish within ${spiderTimeoutMs} ms`)),
    );
    try {
      for (;;) {
        const step = await Promise.race([iterator.next(), tooLong]);
        if (step.done === true) return;
        take(step.value);
      }
    } catch (error) {
      // Not awaited: a generator that hangs cannot be made to return.
      void Promise.resolve(iterator.return?.()).catch(() => {});
      throw error;
    } finally {
      stopTimer();
      signal.removeEventListener("abort", onAbort);
    }
  }

  #take(
    output: SpiderOutput,
    on: { url: string; depth: number },
    page: PageView | undefined,
    task: Task,
    context: CrawlContext,
    findings: Findings,
  ): void {
    if ("item" in output) {
      const { spider } = context;
      findings.items.push({
        id: `${task.id}.${task.round}.${findings.items.length}`,
        crawl: task.crawl,
        url: on.url,
        at: this.#deps.clock.now(),
        spider: spider.name,
        version: spider.version ?? "1",
        node: this.#deps.node,
        data: output.item,
      });
      return;
    }
    const kind = "request" in output ? "page" : "file";
    const wanted = "request" in output ? output.request : output.file;
    const resolved = typeof wanted === "string" ? page?.resolved(wanted) : undefined;
    checkRequest(wanted);
    const link = context.admission.admit(wanted, kind, on, resolved);
    if (link !== undefined) findings.links.set(link.id, link);
  }

  #badStatus(fetched: Fetched, task: Task): Outcome {
    const now = this.#deps.clock.now();
    const { statusCode } = fetched;
    const failure = { state: "failed", reason: "http-status", error: `status ${statusCode}` } as const;
    if (!isRetriedStatus(statusCode)) {
      return { ...failure, endedAt: now, statusCode, counts: true };
    }
    const asked =
      statusCode === 429 || statusCode === 503
        ? Math.min(
            retryAfterMs(fetched.headers["retry-after"], now) ??
              retryDelayMs(task.attempts + 1, this.#limits),
            this.#limits.maxRetryDelayMs,
          )
        : undefined;
    const outcome = this.#tryAgain(task, now, failure, undefined, statusCode);
    if (asked === undefined) return outcome;
    const backoffUntil = now + asked;
    if (outcome.state !== "queued") return { ...outcome, backoffUntil };
    return { ...outcome, backoffUntil, readyAt: Math.max(outcome.readyAt, backoffUntil) };
  }

  #fetchFailed(error: unknown, task: Task, statusCode?: number): Outcome {
    const endedAt = this.#deps.clock.now();
    if (!(error instanceof FetchError)) throw error;
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    if (error.reason === "address") {
      return { ...facts, state: "skipped", reason: "address", error: error.message, untouched: true };
    }
    const failure = { state: "failed", reason: error.reason as FailReason, error: error.message } as const;
    if (!error.retryable) return { ...facts, ...failure };
    return this.#tryAgain(task, endedAt, failure, undefined, statusCode);
  }

  /** Another attempt after a wait, or this end if there were enough. */
  #tryAgain(
    task: Task,
    endedAt: number,
    otherwise:
      | { state: "failed"; reason: FailReason; error: string }
      | { state: "skipped"; reason: SkipReason; error: string },
    failReason?: FailReason,
    statusCode?: number,
  ): Outcome {
    const attempts = task.attempts + 1;
    const facts = { endedAt, counts: true, ...(statusCode !== undefined && { statusCode }) };
    if (attempts >= this.#limits.maxAttempts) {
      if (failReason === undefined) return { ...facts, ...otherwise };
      return { ...facts, state: "failed", reason: failReason, error: otherwise.error };
    }
    const readyAt = endedAt + retryDelayMs(attempts, this.#limits);
    return { ...facts, state: "queued", reason: otherwise.error, readyAt };
  }

  #admissionOf(crawl: Crawl): LinkAdmission {
    const key = admissionKey(crawl);
    let admission = this.#admissions.get(key);
    if (admission === undefined) {
      // In the inbox each URL from outside is a crawl of its own, whose links are wanted whole.
      const remembered = crawl.id === INBOX ? 0 : this.#limits.rememberedUrls;
      admission = new LinkAdmission(crawl, remembered);
      this.#admissions.set(key, admission);
    }
    return admission;
  }

  #toResult(task: Task, findings: Findings, outcome: Outcome): TaskResult {
    const { pages, items, files, links } = findings;
    const attempts = task.attempts + (outcome.counts ? 1 : 0);
    const { statusCode, endedAt, backoffUntil } = outcome;
    const identity = { id: task.id, crawl: task.crawl, token: task.token };
    const common = { ...identity, attempts, ...(statusCode !== undefined && { statusCode }) };
    const ending: Ending =
      outcome.state === "queued"
        ? {
            ...common,
            state: "queued",
            reason: outcome.reason,
            readyAt: outcome.readyAt,
            ...(outcome.host !== undefined && { host: outcome.host }),
            ...(outcome.target !== undefined && { target: outcome.target }),
          }
        : {
            ...common,
            state: outcome.state,
            ...(outcome.state !== "done" && { reason: outcome.reason }),
            ...(outcome.state !== "done" && outcome.error !== undefined && { error: outcome.error }),
            items: items.length,
            files: files.length,
          };
    const { crawlDelayMs } = findings;
    const end: TaskEnd = {
      ...identity,
      host: task.host,
      endedAt,
      ...(outcome.untouched === true && { untouched: true }),
      ...(outcome.state === "queued" && {
        queuedAgain: { readyAt: outcome.readyAt, host: outcome.host ?? task.host },
      }),
      ...(backoffUntil !== undefined && { backoffUntil }),
      ...(crawlDelayMs !== undefined && { crawlDelayMs }),
    };
    const hostState = this.#hostStateOf(task, end);
    return {
      ending,
      end,
      pages,
      items,
      files,
      links: [...links.values()],
      ...(hostState !== undefined && { hostState }),
    };
  }

  /** What is new about the host and must outlive the dispatcher that hears of it. */
  #hostStateOf(task: Task, end: TaskEnd): HostState | undefined {
    const { backoffUntil, crawlDelayMs, endedAt } = end;
    const isNewDelay = crawlDelayMs !== undefined && this.#notedDelays.get(task.host) !== crawlDelayMs;
    const hasDelay = (task.delayMs > 0 || (crawlDelayMs ?? 0) > 0) && end.untouched !== true;
    if (!isNewDelay && !hasDelay && backoffUntil === undefined) return undefined;
    if (isNewDelay) this.#notedDelays.set(task.host, crawlDelayMs);
    return {
      host: task.host,
      ...(hasDelay && { lastEndedAt: endedAt }),
      ...(backoffUntil !== undefined && { backoffUntil }),
      ...(isNewDelay && { crawlDelayMs }),
    };
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

const METHODS = new Set(["GET", "HEAD", "POST"]);

/** @throws Error saying what a spider got wrong about a request */
function checkRequest(wanted: SpiderRequest): void {
  if (typeof wanted === "string") return;
  if (typeof wanted !== "object" || wanted === null || typeof wanted.url !== "string") {
    throw new Error("a request must be a URL or an object with a `url`");
  }
  if (wanted.method !== undefined && !METHODS.has(wanted.method)) {
    throw new Error(`a request's method must be GET, HEAD or POST, not ${String(wanted.method)}`);
  }
  const { priority } = wanted;
  if (priority !== undefined && !(Number.isInteger(priority) && priority >= 0 && priority <= 9)) {
    throw new Error(`a request's priority must be a whole number from 0 to 9, not ${String(priority)}`);
  }
}
