import { type HostStates, mergeHostNotes } from "../crawl/dispatch/host-state.js";
import type { AddResult, Frontier, NewUrl } from "../crawl/frontier.js";
import type { ResultSink, StoredResults } from "../crawl/records.js";
import type { TaskResult } from "../crawl/task-result.js";
import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";

export type CommitterOptions = {
  /** Results committed together at most. @default 200 */
  readonly groupSize: number;
  /** Longest wait of a result for others to join it, in milliseconds. @default 40 */
  readonly gatherMs: number;
  /** Groups under way at once at most. @default 2 */
  readonly groupsAtOnce: number;
};

const DEFAULTS: CommitterOptions = { groupSize: 200, gatherMs: 40, groupsAtOnce: 2 };

const GATHER_MS_PER_EXPECTED = 1;

const NOTHING_ADDED: AddResult = { queued: [], skipped: 0, known: 0 };
const NOTHING_STORED: StoredResults = {};

/** What of a group is stored already, should the rest of it have to be tried again. */
type Progress = { links?: AddResult; stored?: StoredResults };

/** A result, with whatever its giver wants back when it is stored. */
export type Commitment<Context> = { readonly result: TaskResult; readonly context: Context };

export type CommittedGroup<Context> = {
  readonly members: readonly Commitment<Context>[];
  /** Ids of URLs whose ending was applied; the others' dispatch was no longer the current one. */
  readonly applied: ReadonlySet<string>;
  readonly links: AddResult;
  /** Items, by crawl, whose keys were known: no more items than before. */
  readonly knownItems?: ReadonlyMap<string, number>;
};

export type CommitterDeps<Context> = {
  readonly frontier: Frontier;
  readonly results: ResultSink;
  readonly hosts: HostStates;
  readonly clock: Clock;
  readonly logger: Logger;
  /** How many further results are to be expected soon: with none, waiting for company is useless. */
  readonly expected: () => number;
  /** Called once a group is stored; what it throws is logged. */
  readonly onCommitted: (group: CommittedGroup<Context>) => Promise<void>;
};

/**
 * Stores what tasks brought, in groups.
 *
 * The order inside a group carries the promises: links, pages, items and files first, then the endings, so
 * that a URL is never done while something of it is missing, and a crawl is never over while links are on
 * their way. Every step may be repeated, so a group that fails (the database is away) is tried again until
 * it is stored or the committer is stopped; what is not stored was not acknowledged either.
 */
export class Committer<Context> {
  readonly #deps: CommitterDeps<Context>;
  readonly #options: CommitterOptions;
  #waiting: Commitment<Context>[] = [];
  #groups = 0;
  #stopGathering: StopTimer | undefined;
  #isScheduled = false;
  #isStopped = false;
  #onEmpty: (() => void)[] = [];

  constructor(deps: CommitterDeps<Context>, options: Partial<CommitterOptions> = {}) {
    this.#deps = deps;
    this.#options = { ...DEFAULTS, ...options };
  }

  /** Results not yet stored. */
  get size(): number {
    return this.#waiting.length;
  }

  add(commitment: Commitment<Context>): void {
    this.#waiting.push(commitment);
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    // Looked at once everything that happens together has happened.
    setImmediate(() => {
      this.#isScheduled = false;
      this.#consider();
    });
  }

  /** Stores what waits without waiting for company; resolves when nothing is under way any more. */
  async flush(): Promise<void> {
    while (this.#waiting.length > 0 || this.#groups > 0) {
      if (this.#groups < this.#options.groupsAtOnce && this.#waiting.length > 0) this.#begin();
      await new Promise<void>((resolve) => this.#onEmpty.push(resolve));
    }
  }

  /** Gives up on what cannot be stored now. */
  stop(): void {
    this.#isStopped = true;
    this.#stopGathering?.();
  }

  #consider(): void {
    if (this.#isStopped || this.#waiting.length === 0 || this.#groups >= this.#options.groupsAtOnce) return;
    const expected = this.#deps.expected();
    if (this.#waiting.length >= this.#options.groupSize || expected === 0) {
      this.#begin();
      return;
    }
    // Where little goes on a wait costs more than the round trips that it saves.
    const gatherMs = Math.min(this.#options.gatherMs, expected * GATHER_MS_PER_EXPECTED);
    this.#stopGathering ??= this.#deps.clock.after(gatherMs, () => {
      this.#stopGathering = undefined;
      if (this.#waiting.length > 0 && this.#groups < this.#options.groupsAtOnce) this.#begin();
    });
  }

  #begin(): void {
    this.#stopGathering?.();
    this.#stopGathering = undefined;
    const members = this.#waiting.splice(0, this.#options.groupSize);
    this.#groups += 1;
    void this.#commit(members).finally(() => {
      this.#groups -= 1;
      const waiting = this.#onEmpty;
      this.#onEmpty = [];
      for (const resolve of waiting) resolve();
      this.#consider();
    });
  }

  async #commit(members: readonly Commitment<Context>[]): Promise<void> {
    const { logger, clock, onCommitted } = this.#deps;
    const progress: Progress = {};
    for (let failures = 0; ; failures += 1) {
      try {
        const group = await this.#store(members, progress);
        try {
          await onCommitted({ members, ...group });
        } catch (error) {
          logger.error({ err: error }, "results are stored, but what follows a commit failed");
        }
        return;
      } catch (error) {
        if (this.#isStopped) return;
        const waitMs = Math.min(5_000, 100 * 2 ** Math.min(failures, 6));
        logger.warn(
          { error: messageOf(error), results: members.length, waitMs },
          "could not store results; trying again",
        );
        await new Promise<void>((resolve) => clock.after(waitMs, resolve));
      }
    }
  }

  async #store(
    members: readonly Commitment<Context>[],
    progress: Progress,
  ): Promise<Omit<CommittedGroup<Context>, "members">> {
    const { frontier, results, hosts } = this.#deps;
    const pages = members.flatMap(({ result }) => result.pages);
    const items = members.flatMap(({ result }) => result.items);
    const invalidItems = members.flatMap(({ result }) => result.invalidItems ?? []);
    const files = members.flatMap(({ result }) => result.files);
    const archive = members.flatMap(({ result }) => result.archive ?? []);
    const newLinks = mergeLinks(members);
    const [links, stored] = await Promise.all([
      // Kept over failures: a second time they would all be known, and no dispatcher would hear of them.
      progress.links ?? (newLinks.length > 0 ? frontier.add(newLinks) : NOTHING_ADDED),
      progress.stored ??
        (pages.length + items.length + invalidItems.length + files.length + archive.length > 0
          ? results.store({
              pages,
              items,
              files,
              ...(invalidItems.length > 0 && { invalidItems }),
              ...(archive.length > 0 && { archive }),
            })
          : NOTHING_STORED),
    ]);
    progress.links = links;
    progress.stored = stored;
    const hostNotes = mergeHostNotes(members.flatMap(({ result }) => result.hostState ?? []));
    // Before the frontier has them as ended: a dispatcher that takes the hosts over in between finds them in flight,
    // and one that finds them ended also finds when.
    if (hostNotes.length > 0) await hosts.note(hostNotes);
    const applied = await frontier.commit(members.map(({ result }) => result.ending));
    const { knownItems } = stored;
    return { applied, links, ...(knownItems !== undefined && { knownItems }) };
  }
}

/** Each URL once: as something to fetch rather than to skip, as a page rather than a file, least deep. */
function mergeLinks(members: readonly Commitment<unknown>[]): readonly NewUrl[] {
  const merged = new Map<string, NewUrl>();
  for (const { result } of members) {
    for (const link of result.links) {
      const known = merged.get(link.id);
      if (known === undefined || isBetter(link, known)) merged.set(link.id, link);
    }
  }
  return [...merged.values()];
}

function isBetter(link: NewUrl, known: NewUrl): boolean {
  if ((link.skip === undefined) !== (known.skip === undefined)) return link.skip === undefined;
  if (link.kind !== known.kind) return link.kind === "page";
  return link.depth < known.depth;
}
