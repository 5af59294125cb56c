import { LRUCache } from "lru-cache";
import type { RobotsRecord, RobotsStore } from "../crawl/records.js";

/** Characters of robots.txt files held at most. */
const MAX_ROBOTS_CHARACTERS = 32 * 1_048_576;

export class MemoryRobotsStore implements RobotsStore {
  readonly #records = new LRUCache<string, RobotsRecord>({
    maxSize: MAX_ROBOTS_CHARACTERS,
    sizeCalculation: ({ origin, body = "" }) => origin.length + body.length + 100,
  });

  async get(origin: string): Promise<RobotsRecord | undefined> {
    return this.#records.get(origin);
  }

  async put(record: RobotsRecord): Promise<void> {
    this.#records.set(record.origin, record);
  }
}
