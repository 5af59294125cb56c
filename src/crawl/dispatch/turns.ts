import type { Crawl } from "../crawl.js";
import { DueQueue } from "./due-queue.js";
import { Fifo } from "./fifo.js";
import type { LaneSource } from "./lane.js";

/** A crawl in the round of turns. */
export class Turn {
  crawl: Crawl;
  /** Whom its URLs have been seen to need. */
  readonly crews: Set<string>;
  /** Sources that have something to give, in the order of their turns. */
  readonly round = new Fifo<LaneSource>();
  /** Sources that may have, once they are read. */
  readonly unread = new Fifo<LaneSource>();
  readonly sources = new Set<LaneSource>();
  /** How far it has come, in turns divided by weight; the one that has come least far is next. */
  pass: number;
  budgetSpent = false;

  constructor(crawl: Crawl, crew: string, pass: number) {
    this.crawl = crawl;
    this.crews = new Set([crew]);
    this.pass = pass;
  }

  /** Gives a source its next turn: to give something, or to be read first. */
  list(source: LaneSource): void {
    source.listed = true;
    if (source.buffer.length > 0) this.round.push(source);
    else this.unread.push(source);
  }

  /** Whether nothing of it waits or runs here, as far as is known here. */
  get isIdle(): boolean {
    for (const source of this.sources) {
      if (source.inFlight > 0 || source.loading) return false;
      if (!source.isSpent && !(this.budgetSpent && source.buffer.length === 0)) return false;
    }
    return true;
  }
}

/** What became of the crawls in the round when it was told which of them run. */
export type TurnChanges = {
  readonly fresh: readonly Turn[];
  /** Closed and opened again: what was read of their URLs is old. */
  readonly reopened: readonly Turn[];
  /** Treated otherwise than before: other politeness, or other limits. */
  readonly changed: readonly Turn[];
  readonly gone: readonly Turn[];
};

/**
 * The running crawls, which take turns by weight (stride scheduling: each turn moves a crawl on by the inverse of
 * its weight, and the one that has come least far is next). So a short crawl is never behind a long one.
 */
export class Turns {
  readonly #byCrawl = new Map<string, Turn>();
  readonly #crewOf: (crawl: Crawl) => string;
  #pass = 0;

  /** @param crewOf the crew that a crawl's tasks go to */
  constructor(crewOf: (crawl: Crawl) => string) {
    this.#crewOf = crewOf;
  }

  get(crawl: string): Turn | undefined {
    return this.#byCrawl.get(crawl);
  }

  has(crawl: string): boolean {
    return this.#byCrawl.has(crawl);
  }

  get crawls(): readonly string[] {
    return [...this.#byCrawl.keys()];
  }

  /** A crawl as it is now; undefined when it does not run. */
  readonly crawlOf = (id: string): Crawl | undefined => this.#byCrawl.get(id)?.crawl;

  /** The crawls that run. Those no longer named leave the round. */
  set(crawls: readonly Crawl[]): TurnChanges {
    const named = new Set<string>();
    const fresh: Turn[] = [];
    const reopened: Turn[] = [];
    const changed: Turn[] = [];
    for (const crawl of crawls) {
      named.add(crawl.id);
      const crew = this.#crewOf(crawl);
      const turn = this.#byCrawl.get(crawl.id);
      if (turn === undefined) {
        const added = new Turn(crawl, crew, this.#pass);
        this.#byCrawl.set(crawl.id, added);
        fresh.push(added);
        continue;
      }
      if (turn.crawl.generation !== crawl.generation) reopened.push(turn);
      const { politeness, limits } = turn.crawl;
      if (!isSame(politeness, crawl.politeness) || !isSame(limits, crawl.limits)) changed.push(turn);
      turn.crawl = crawl;
      turn.crews.add(crew);
    }
    const gone: Turn[] = [];
    for (const [id, turn] of this.#byCrawl) {
      if (named.has(id)) continue;
      this.#byCrawl.delete(id);
      gone.push(turn);
    }
    return { fresh, reopened, changed, gone };
  }

  /**
   * Takes up to `most`, in the order of turns.
   * @param isReady whether a crawl can be given a turn at all
   * @param next what a crawl has next; undefined when it has nothing more for now
   */
  take<Chosen>(
    most: number,
    isReady: (turn: Turn) => boolean,
    next: (turn: Turn) => Chosen | undefined,
  ): Chosen[] {
    const chosen: Chosen[] = [];
    const active = this.#inOrder((turn) => turn.round.size > 0 && isReady(turn));
    while (chosen.length < most) {
      const first = active.takeDue(Number.POSITIVE_INFINITY);
      if (first === undefined) break;
      const found = isReady(first) ? next(first) : undefined;
      if (found === undefined) continue;
      chosen.push(found);
      this.#pass = Math.max(this.#pass, first.pass);
      first.pass = Math.max(first.pass, this.#pass - 1) + 1 / (first.crawl.priority + 1);
      active.push(first.pass, first);
    }
    return chosen;
  }

  /**
   * Has sources read, one of each crawl in turn, those first that have come least far.
   * @param read returns false when no more can be read for now
   * @param isEnough whether enough is read ahead: then only crawls that have nothing at all read on
   */
  read(read: (source: LaneSource) => boolean, isEnough: () => boolean): void {
    const active = this.#inOrder((turn) => turn.unread.size > 0);
    for (let round = 0; ; ) {
      const turn = active.takeDue(Number.POSITIVE_INFINITY);
      if (turn === undefined) return;
      if (turn.round.size > 0 && isEnough()) continue;
      const source = turn.unread.shift();
      if (source === undefined) continue;
      if (!source.listed) {
        active.push(turn.pass, turn); // It was removed since.
        continue;
      }
      if (!read(source)) {
        turn.unread.push(source);
        return;
      }
      round += 1;
      active.push(turn.pass + round, turn);
    }
  }

  /** Whether at least so many sources have something to give. */
  haveReady(most: number): boolean {
    let ready = 0;
    for (const { round } of this.#byCrawl.values()) {
      ready += round.size;
      if (ready >= most) return true;
    }
    return false;
  }

  #inOrder(isActive: (turn: Turn) => boolean): DueQueue<Turn> {
    const active = new DueQueue<Turn>();
    for (const turn of this.#byCrawl.values()) if (isActive(turn)) active.push(turn.pass, turn);
    return active;
  }
}

/** Whether two plain objects have the same members with the same plain values. */
function isSame<T extends object>(one: T, other: T): boolean {
  const names = Object.keys(one) as (keyof T)[];
  return names.length === Object.keys(other).length && names.every((name) => one[name] === other[name]);
}
