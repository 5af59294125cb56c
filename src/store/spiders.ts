import type { Collection } from "mongodb";
import { NotFoundError } from "./errors.js";
import type { Retrier } from "./retrier.js";

/** A spider that was put here by someone. So far it is one whose pages workers of theirs read. */
export type StoredSpider = {
  readonly name: string;
  /** Counts what was put under this name, from 1. */
  readonly version: string;
  /** Its pages go to workers that are not Warren's. */
  readonly external: true;
  /** When one of those workers last asked a master for a task, in milliseconds since the epoch. */
  readonly askedForAt?: number;
};

/** `_id` is the spider's name. */
export type SpiderDocument = Omit<StoredSpider, "name" | "version"> & {
  readonly _id: string;
  readonly version: number;
};

/** The spiders that do not come with Warren. */
export class Spiders {
  readonly #spiders: Collection<SpiderDocument>;
  readonly #retrier: Retrier;

  constructor(spiders: Collection<SpiderDocument>, retrier: Retrier) {
    this.#spiders = spiders;
    this.#retrier = retrier;
  }

  /** Keeps a spider; the same again changes nothing. @returns whether there was none of this name */
  async put(name: string): Promise<{ readonly spider: StoredSpider; readonly isNew: boolean }> {
    return this.#retrier.run("keep a spider", async () => {
      const { upsertedCount } = await this.#spiders.updateOne(
        { _id: name },
        { $setOnInsert: { version: 1, external: true } },
        { upsert: true },
      );
      return { spider: { name, version: "1", external: true }, isNew: upsertedCount > 0 };
    });
  }

  async get(name: string): Promise<StoredSpider | undefined> {
    const document = await this.#retrier.run("look up a spider", () => this.#spiders.findOne({ _id: name }));
    return document === null ? undefined : toSpider(document);
  }

  /** By name. */
  async list(): Promise<readonly StoredSpider[]> {
    return (await this.#spiders.find().sort({ _id: 1 }).toArray()).map(toSpider);
  }

  /** @throws NotFoundError */
  async remove(name: string): Promise<void> {
    const { deletedCount } = await this.#spiders.deleteOne({ _id: name });
    if (deletedCount === 0) throw new NotFoundError("spider", name);
  }

  /** Notes that tasks of it were asked for. */
  async askedFor(name: string, at: number): Promise<void> {
    await this.#spiders.updateOne({ _id: name }, { $max: { askedForAt: at } });
  }
}

function toSpider({ _id, version, ...rest }: SpiderDocument): StoredSpider {
  return { name: _id, version: String(version), ...rest };
}
