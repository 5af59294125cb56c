import { LRUCache } from "lru-cache";
import type { TaskArchive } from "./archive/archive.js";
import type { HostNote } from "./dispatch/host-state.js";
import type { FetchedBody } from "./fetch/fetcher.js";
import type { Ending, NewUrl } from "./frontier.js";
import type { Outcome } from "./outcome.js";
import type { ArchiveRecord, FileRecord, InvalidItemRecord, ItemRecord, PageRecord } from "./records.js";
import type { NextVisit, Visit } from "./revisit.js";
import type { Task, TaskEnd } from "./task.js";

/** Everything that one task brought, to be stored together. */
export type TaskResult = {
  readonly ending: Ending;
  readonly end: TaskEnd;
  readonly pages: readonly PageRecord[];
  readonly items: readonly ItemRecord[];
  /** Those that their spider's schema refused; absent when there are none. */
  readonly invalidItems?: readonly InvalidItemRecord[];
  readonly files: readonly FileRecord[];
  readonly links: readonly NewUrl[];
  /** What went over the wire, of a crawl that is archived. */
  readonly archive?: readonly ArchiveRecord[];
  /** What is to be remembered of the host. */
  readonly hostState?: HostNote;
};

/** What a task gathers on its way. */
export type Findings = {
  pages: PageRecord[];
  items: ItemRecord[];
  invalidItems: InvalidItemRecord[];
  files: FileRecord[];
  links: Map<string, NewUrl>;
  /** Of a URL that is done, in a crawl that fetches it again. */
  visit?: Visit;
  crawlDelayMs?: number;
  /** When its last fetch began, in milliseconds since the epoch, and the body that this brought. */
  fetchBeganAt?: number;
  body?: Pick<FetchedBody, "receivedBytes">;
  /** Of a crawl that is archived. */
  archive?: TaskArchive;
};

export function nothingFound(): Findings {
  return { pages: [], items: [], invalidItems: [], files: [], links: new Map() };
}

/** What of a task its end is made of. Of one that was fetched elsewhere nobody knows what its lane asks. */
export type EndedTask = Pick<Task, "id" | "crawl" | "host" | "token" | "attempts"> &
  Partial<Pick<Task, "delayMs" | "maxBytesPerSecond">>;

export type TaskResultsOptions = {
  /** The id of the node that ran the tasks. @default nobody did */
  readonly node?: string;
  /** Whether an end stays known by its task, for results that may be handed in twice. @default false */
  readonly areRemembered?: boolean;
};

/** Puts what tasks came to into records. */
export class TaskResults {
  readonly #options: TaskResultsOptions;
  /** Crawl delays that were told lately, so that each host's is not told with every page. */
  readonly #notedDelays = new LRUCache<string, number>({ max: 50_000 });

  constructor(options: TaskResultsOptions) {
    this.#options = options;
  }

  /** @param nextVisit when the URL has ended and is to be fetched again */
  of(task: EndedTask, findings: Findings, outcome: Outcome, nextVisit?: NextVisit): TaskResult {
    const { pages, items, invalidItems, files, links } = findings;
    const { node, areRemembered = false } = this.#options;
    const end = endOf(task, outcome, findings, nextVisit);
    const hostState = this.#hostStateOf(task, end);
    return {
      ending: {
        ...endingOf(task, outcome, findings, nextVisit),
        ...(outcome.state !== "done" && node !== undefined && { node }),
        ...(areRemembered && { isRemembered: true as const }),
      },
      end,
      pages,
      items,
      ...(invalidItems.length > 0 && { invalidItems }),
      files,
      links: [...links.values()],
      ...(hostState !== undefined && { hostState }),
    };
  }

  /** What is new about the host and must outlive the dispatcher that hears of it. */
  #hostStateOf(task: EndedTask, end: TaskEnd): HostNote | undefined {
    const { backoffUntil, crawlDelayMs, endedAt, fetchMs, owedMs } = end;
    const isNewDelay = crawlDelayMs !== undefined && this.#notedDelays.get(task.host) !== crawlDelayMs;
    // Where nobody knows the delay there may be one.
    const { delayMs = 1 } = task;
    const hasDelay = (delayMs > 0 || (crawlDelayMs ?? 0) > 0) && end.untouched !== true;
    const debt =
      owedMs === undefined || fetchMs === undefined ? undefined : { from: endedAt - fetchMs, ms: owedMs };
    if (!isNewDelay && !hasDelay && debt === undefined && backoffUntil === undefined) return undefined;
    if (isNewDelay) this.#notedDelays.set(task.host, crawlDelayMs);
    return {
      host: task.host,
      ...(hasDelay && { lastEndedAt: endedAt }),
      ...(hasDelay && fetchMs !== undefined && { lastFetchMs: fetchMs }),
      ...(debt !== undefined && { debt }),
      ...(backoffUntil !== undefined && { backoffUntil }),
      ...(isNewDelay && { crawlDelayMs }),
    };
  }
}

function endingOf(
  task: EndedTask,
  outcome: Outcome,
  { items, invalidItems, files }: Findings,
  nextVisit: NextVisit | undefined,
): Ending {
  const { statusCode } = outcome;
  const common = {
    ...identityOf(task),
    attempts: task.attempts + (outcome.counts ? 1 : 0),
    ...(statusCode !== undefined && { statusCode }),
  };
  if (outcome.state === "queued") {
    return {
      ...common,
      state: "queued",
      reason: outcome.reason,
      readyAt: outcome.readyAt,
      ...(outcome.host !== undefined && { host: outcome.host }),
      ...(outcome.target !== undefined && { target: outcome.target }),
    };
  }
  return {
    ...common,
    state: outcome.state,
    ...(outcome.state !== "done" && { reason: outcome.reason }),
    ...(outcome.state !== "done" && outcome.error !== undefined && { error: outcome.error }),
    items: items.length,
    ...(invalidItems.length > 0 && { invalidItems: invalidItems.length }),
    files: files.length,
    ...(outcome.state === "done" && outcome.isUnchanged === true && { isUnchanged: true }),
    ...(nextVisit !== undefined && { nextVisit }),
  };
}

function endOf(
  task: EndedTask,
  outcome: Outcome,
  findings: Findings,
  nextVisit: NextVisit | undefined,
): TaskEnd {
  const { endedAt, backoffUntil, trouble, statusCode } = outcome;
  const { crawlDelayMs, fetchBeganAt, body } = findings;
  return {
    ...identityOf(task),
    host: task.host,
    endedAt,
    ...(outcome.untouched === true && { untouched: true }),
    ...(statusCode !== undefined && { answered: true }),
    ...(trouble !== undefined && { trouble }),
    ...(fetchBeganAt !== undefined && { fetchMs: Math.max(0, endedAt - fetchBeganAt) }),
    ...(task.maxBytesPerSecond !== undefined && {
      owedMs: Math.ceil(((body?.receivedBytes ?? 0) * 1_000) / task.maxBytesPerSecond),
    }),
    ...(outcome.state === "queued" && {
      queuedAgain: { readyAt: outcome.readyAt, host: outcome.host ?? task.host },
    }),
    ...(nextVisit !== undefined && { nextVisitAt: nextVisit.at }),
    ...(backoffUntil !== undefined && { backoffUntil }),
    ...(crawlDelayMs !== undefined && { crawlDelayMs }),
  };
}

function identityOf({ id, crawl, token }: EndedTask): Pick<Task, "id" | "crawl" | "token"> {
  return { id, crawl, token };
}
