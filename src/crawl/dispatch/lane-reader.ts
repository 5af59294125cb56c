import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import type { Frontier, QueuedUrl } from "../frontier.js";
import type { HostStates } from "./host-state.js";
import type { Backoff, Lane, LaneSource } from "./lane.js";
import type { Lanes } from "./lanes.js";
import type { ReadAhead } from "./read-ahead.js";
import type { Turn, Turns } from "./turns.js";

export type LaneReaderDeps = {
  readonly frontier: Frontier;
  readonly hosts: HostStates;
  readonly turns: Turns;
  readonly lanes: Lanes;
  readonly readAhead: ReadAhead;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Reads under way at once at most. */
  readonly readsAtOnce: number;
  readonly backoff: Backoff;
  /** Whether a URL is on its way already. */
  readonly isInFlight: (id: string) => boolean;
  readonly crewFor: (url: QueuedUrl, turn: Turn) => string;
  /** Called when a read has ended, with the crawls of which more is known now. */
  readonly onRead: (crawls: readonly string[]) => void;
};

/** After which wait something that could not be read is tried again, in milliseconds. */
const TRY_AGAIN_MS = 1_000;

/** By how much the clocks of two processes may differ that were set by the same server's, in milliseconds. */
const CLOCK_ERROR_MS = 50;

/** Reads what the lanes are to know: URLs ahead of their turns, hosts that have any, and what is remembered of hosts. */
export class LaneReader {
  readonly #deps: LaneReaderDeps;
  #reads = 0;
  #isStopped = false;
  #onEnded: (() => void)[] = [];

  constructor(deps: LaneReaderDeps) {
    this.#deps = deps;
  }

  /** Whether as many reads are under way as may be. */
  get isBusy(): boolean {
    return this.#reads >= this.#deps.readsAtOnce;
  }

  /** Reads what is remembered of hosts whose lanes are new; they send nothing before. */
  readHostStates(): void {
    const { lanes, hosts, logger, clock, onRead } = this.#deps;
    const unread = lanes.takeUnread();
    if (unread.length === 0) return;
    this.#run(
      async () => {
        for (const state of await hosts.load(unread.map(({ host }) => host))) {
          const { lastEndedAt, trouble } = state;
          const lane = lanes.get(state.host);
          lane?.learn({
            ...state,
            ...(lastEndedAt !== undefined && { lastEndedAt: lastEndedAt + CLOCK_ERROR_MS }),
          });
          // What is known here of its trouble is newer than what is on record.
          if (trouble != null && lane?.trouble === "") lane.recall(trouble, this.#deps.backoff);
        }
        for (const lane of unread) this.#known(lane);
      },
      (error) => {
        logger.warn({ error: messageOf(error) }, "could not read what is known of hosts");
        lanes.putBackUnread(unread);
        clock.after(TRY_AGAIN_MS, () => onRead([]));
      },
      () => [],
    );
  }

  #known(lane: Lane): void {
    const { lanes } = this.#deps;
    lane.isKnown = true;
    lanes.applyPoliteness(lane);
    lanes.offer(lane);
  }

  /** Reads a source's next URLs. */
  read(source: LaneSource): void {
    const { lanes, clock, logger } = this.#deps;
    const of = { crawl: source.crawl, host: source.lane.host };
    source.loading = true;
    source.addedMeanwhile = false;
    this.#run(
      () => this.#readUrls(source),
      (error) => {
        source.loading = false;
        logger.warn({ ...of, error: messageOf(error) }, "could not read the frontier");
        source.drained = true;
        source.nextReadyAt = clock.now() + TRY_AGAIN_MS;
      },
      () => {
        if (source.isSpent) lanes.removeSource(source);
        else lanes.offer(source.lane);
        return [source.crawl];
      },
    );
  }

  async #readUrls(source: LaneSource): Promise<void> {
    const { frontier, turns, readAhead, lanes, clock, isInFlight, crewFor } = this.#deps;
    // Those just chosen are still queued in the frontier until they are marked, so ask for that many more.
    const limit = readAhead.shareOf(lanes.size) + source.inFlight;
    const batch = await frontier.queued({ crawl: source.crawl, host: source.lane.host }, limit, clock.now());
    source.loading = false;
    const turn = turns.get(source.crawl);
    if (turn === undefined || !turn.sources.has(source)) return;
    const known = new Set(source.buffer.map((url) => url.id));
    for (const url of batch.urls) {
      if (known.has(url.id) || isInFlight(url.id)) continue;
      if (turn.budgetSpent && isFresh(url)) continue;
      known.add(url.id);
      turn.crews.add(crewFor(url, turn));
      readAhead.push(source, url);
    }
    source.drained = batch.urls.length < limit && !source.addedMeanwhile;
    source.nextReadyAt = batch.nextReadyAt;
    if (turn.budgetSpent && source.buffer.length === 0) source.drained = true;
  }

  /** Looks on all shards held for queued URLs of these crawls. */
  search(crawls: readonly string[]): void {
    const { lanes, clock, logger } = this.#deps;
    if (crawls.length === 0 || this.#isStopped) return;
    this.#run(
      () => this.findQueued(lanes.heldShards, crawls),
      (error) => {
        logger.warn({ crawls, error: messageOf(error) }, "could not look for queued URLs");
        clock.after(TRY_AGAIN_MS, () => this.search(crawls));
      },
      () => crawls,
    );
  }

  /** Finds the hosts of these shards that have URLs queued for these crawls. */
  async findQueued(shards: readonly number[], crawls: readonly string[]): Promise<void> {
    if (shards.length === 0 || crawls.length === 0) return;
    const { frontier, turns, onRead } = this.#deps;
    for (const { crawl, host } of await frontier.queuedHosts(shards, crawls)) {
      const turn = turns.get(crawl);
      if (turn !== undefined) this.renew(turn, host);
    }
    onRead([]);
  }

  /** The frontier has URLs of this crawl on this host that may go now. */
  renew(turn: Turn, host: string): void {
    const { lanes } = this.#deps;
    const source = lanes.sourceOf(turn, host);
    if (source === undefined) return;
    source.freshen();
    lanes.offer(source.lane);
  }

  /** The frontier has a URL of this crawl on this host that may go from `readyAt` on. */
  expect(turn: Turn, host: string, readyAt: number): void {
    const { lanes } = this.#deps;
    const source = lanes.sourceOf(turn, host);
    if (source === undefined) return;
    source.nextReadyAt = Math.min(source.nextReadyAt ?? readyAt, readyAt);
    if (source.loading) source.addedMeanwhile = true;
    lanes.awaitOpening(source.lane);
  }

  /** Resolves when nothing is being read, and nothing will be. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    while (this.#reads > 0) await new Promise<void>((resolve) => this.#onEnded.push(resolve));
  }

  /** @param finish called in the end, whatever happened; returns the crawls of which more is known */
  #run(read: () => Promise<void>, failed: (error: unknown) => void, finish: () => readonly string[]): void {
    this.#reads += 1;
    void read()
      .catch(failed)
      .then(() => {
        this.#reads -= 1;
        const waiting = this.#onEnded;
        this.#onEnded = [];
        for (const resolve of waiting) resolve();
        this.#deps.onRead(finish());
      });
  }
}

/** Whether a dispatch of it counts against the crawl's page budget. */
export function isFresh(url: QueuedUrl): boolean {
  return url.attempts === 0 && url.target === undefined;
}
