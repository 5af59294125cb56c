import type { Db } from "mongodb";
import { z } from "zod";
import type { Clock } from "../lib/clock.js";

const hello = z.object({ localTime: z.date() });
const REFRESH_MS = 60_000;

/**
 * The database server's clock, as well as it can be known here: instants of different processes can be
 * compared by it. Read now and then, and between that carried on by a clock that never jumps.
 */
export class ServerClock {
  readonly #db: Db;
  readonly #clock: Clock;
  #offsetMs: number;
  #readAt = Number.NEGATIVE_INFINITY;

  constructor(db: Db, clock: Clock) {
    this.#db = db;
    this.#clock = clock;
    this.#offsetMs = clock.now() - clock.monotonic();
  }

  /** Milliseconds since the epoch by the server's clock; by this machine's until `refresh` was called. */
  now(): number {
    return this.#clock.monotonic() + this.#offsetMs;
  }

  /** Whether it is time to call `refresh` again. */
  get isStale(): boolean {
    return this.#clock.monotonic() - this.#readAt > REFRESH_MS;
  }

  /** Reads the server's clock; right to half the time that the answer took. */
  async refresh(): Promise<void> {
    const askedAt = this.#clock.monotonic();
    const { localTime } = hello.parse(await this.#db.admin().command({ hello: 1 }));
    const answeredAt = this.#clock.monotonic();
    this.#offsetMs = localTime.getTime() - (askedAt + answeredAt) / 2;
    this.#readAt = answeredAt;
  }
}
