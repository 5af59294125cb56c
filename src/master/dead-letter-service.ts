import { AGAIN_HEADER, type Bus } from "../bus/index.js";
import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import type { DeadLetterFilter, DeadLetterRecord, ListOptions, ListPage, Store } from "../store/index.js";
import { notFound, RequestError } from "./errors.js";

export type DeadLetterServiceParts = {
  readonly store: Pick<Store, "deadLetters">;
  readonly bus: Pick<Bus, "deadLetters">;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** What came of replaying those that a filter names. */
export type Replayed = {
  /** Handed in again, and no dead letters any more. */
  readonly replayed: number;
  /** Still there: the broker did not take them, or they are kept only in part. */
  readonly failed: number;
  /** Why the first of those failed. */
  readonly error?: string;
};

/** Letters handed in again together at most. */
const TOGETHER = 100;

/** Longest wait for the broker to take them, in milliseconds. */
const TIMEOUT_MS = 10_000;

/**
 * Dead letters on record: looked at, handed in again, discarded. One that is handed in again leaves the record when
 * the broker has confirmed that it took the message; whoever dies in between leaves it there, to be replayed once more.
 */
export class DeadLetterService {
  readonly #parts: DeadLetterServiceParts;

  constructor(parts: DeadLetterServiceParts) {
    this.#parts = parts;
  }

  list(filter: DeadLetterFilter, options: ListOptions): Promise<ListPage<DeadLetterRecord>> {
    return this.#parts.store.deadLetters.list(filter, options);
  }

  /** @throws RequestError `not-found` */
  async get(id: string): Promise<DeadLetterRecord> {
    const letter = await this.#parts.store.deadLetters.get(id);
    if (letter === undefined) throw notFound("dead letter", id);
    return letter;
  }

  /**
   * @throws RequestError `not-found`; `conflict` when it is kept only in part, or being replayed already;
   *   `unavailable` when the broker did not take it
   */
  async replay(id: string): Promise<DeadLetterRecord> {
    const letter = await this.get(id);
    const objection = objectionTo(letter);
    if (objection !== undefined) throw new RequestError("conflict", objection);
    const claimed = await this.#parts.store.deadLetters.claim({ id }, 1);
    if (claimed.length === 0) {
      throw new RequestError("conflict", `dead letter "${id}" is being replayed by someone else`);
    }
    const { error } = await this.#handIn(claimed);
    if (error === undefined) return letter;
    await this.#parts.store.deadLetters.release([id]);
    throw new RequestError("unavailable", `dead letter "${id}" was not handed in: ${error}`);
  }

  /** Replays all that match and were given up before now, oldest first; ends early when the broker takes no more. */
  async replayAll(filter: DeadLetterFilter): Promise<Replayed> {
    const { store, clock } = this.#parts;
    const before = clock.now();
    const kept: string[] = [];
    let replayed = 0;
    let error: string | undefined;
    try {
      for (let isTaken = true; isTaken; ) {
        // Those that failed stay claimed, and so out of the way, until all have had their turn.
        const claimed = await store.deadLetters.claim(filter, TOGETHER, before);
        if (claimed.length === 0) break;
        const whole = claimed.filter((letter) => objectionTo(letter) === undefined);
        const [inPart] = claimed.filter((letter) => objectionTo(letter) !== undefined);
        const outcome = await this.#handIn(whole);
        replayed += outcome.taken.size;
        kept.push(...claimed.flatMap(({ id }) => (outcome.taken.has(id) ? [] : [id])));
        error ??= outcome.error ?? (inPart && objectionTo(inPart));
        isTaken = outcome.error === undefined;
      }
    } finally {
      await store.deadLetters.release(kept);
    }
    return { replayed, failed: kept.length, ...(error !== undefined && { error }) };
  }

  async #handIn(
    letters: readonly DeadLetterRecord[],
  ): Promise<{ readonly taken: ReadonlySet<string>; readonly error: string | undefined }> {
    const { store, bus, logger } = this.#parts;
    const messages = letters.map((letter) => ({
      ...letter,
      // Its URL has ended, by this letter: to be known is not to have it fetched.
      headers: { ...letter.headers, ...(letter.reason === "poison" && { [AGAIN_HEADER]: true }) },
    }));
    const outcomes = await bus.deadLetters.replay(messages, AbortSignal.timeout(TIMEOUT_MS));
    const taken = letters.filter((_, index) => outcomes[index]?.ok === true).map(({ id }) => id);
    const failed = outcomes.find((outcome) => !outcome.ok);
    await store.deadLetters.remove(taken);
    const error = failed?.ok === false ? failed.error.message : undefined;
    logger.info({ replayed: taken.length, error }, "dead letters were handed in again");
    return { taken: new Set(taken), error };
  }

  async discard(id: string): Promise<void> {
    await this.#parts.store.deadLetters.discard(id);
  }

  /** @returns how many were discarded */
  discardAll(filter: DeadLetterFilter): Promise<number> {
    return this.#parts.store.deadLetters.discardAll(filter);
  }
}

/** Why a letter cannot be handed in as it came. */
function objectionTo({ id, body, bytes, headers }: DeadLetterRecord): string | undefined {
  if (body.length < bytes) {
    return `dead letter "${id}" is kept in part only: ${body.length} of its ${bytes} bytes`;
  }
  return headers === undefined ? `dead letter "${id}" is kept without its headers` : undefined;
}
