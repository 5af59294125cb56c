import type { Collection } from "mongodb";
import type { RobotsRecord, RobotsStore } from "../crawl/records.js";
import type { Retrier } from "./retrier.js";

/**
 * A robots.txt as it was last read; `_id` is the origin. It is used until `usableUntil`, and kept for longer, for the
 * time when its host cannot be reached. `expiresAt` is a date, for the index that removes it in time.
 */
export type RobotsDocument = Omit<RobotsRecord, "origin" | "expiresAt"> & {
  readonly _id: string;
  /** In milliseconds since the epoch. */
  readonly usableUntil?: number;
  readonly expiresAt: Date;
};

/** How long the last word of a host that cannot be reached is kept (RFC 9309, 2.3.1.4), in milliseconds. */
const KEPT_MS = 30 * 86_400_000;

/** Of a longer robots.txt the rest is not kept. A crawler has to parse 500 KiB at least (RFC 9309, 2.5). */
const MAX_BODY_CHARACTERS = 512 * 1_024;

/** What all workers know of hosts' robots.txt. */
export class MongoRobotsStore implements RobotsStore {
  readonly #robots: Collection<RobotsDocument>;
  readonly #retrier: Retrier;

  constructor(robots: Collection<RobotsDocument>, retrier: Retrier) {
    this.#robots = robots;
    this.#retrier = retrier;
  }

  async get(origin: string): Promise<RobotsRecord | undefined> {
    const document = await this.#robots.findOne({ _id: origin });
    if (document === null) return undefined;
    const { _id, expiresAt, usableUntil = expiresAt.getTime(), ...fields } = document;
    return { origin: _id, expiresAt: usableUntil, ...fields };
  }

  async put({ origin, expiresAt, body, ...fields }: RobotsRecord): Promise<void> {
    const document = {
      ...fields,
      usableUntil: expiresAt,
      expiresAt: new Date(fields.fetchedAt + KEPT_MS),
      ...(body !== undefined && { body: bounded(body) }),
    };
    await this.#retrier.run("store a robots.txt", () =>
      this.#robots.replaceOne({ _id: origin }, document, { upsert: true }),
    );
  }
}

/** Cut at the end of a line: half a path would forbid more than its author meant. */
function bounded(body: string): string {
  if (body.length <= MAX_BODY_CHARACTERS) return body;
  return body.slice(0, body.lastIndexOf("\n", MAX_BODY_CHARACTERS) + 1);
}
