import { type Collection, MongoServerError } from "mongodb";
import {
  type CrawlState,
  CrawlStateError,
  type CrawlStates,
  checkedStateValue,
  MAX_STATE_VALUES,
  sumOf,
} from "../crawl/crawl-state.js";
import type { Retrier } from "./retrier.js";

/** One value that spiders keep for a crawl; `_id` is `<crawl>:<name>`. */
export type CrawlStateDocument = {
  readonly _id: string;
  readonly crawl: string;
  /** Of any value but a number, as JSON: names that MongoDB refuses are the spider's to choose. */
  readonly json?: string;
  readonly number?: number;
};

/** "$inc" met something that is no number. */
const TYPE_MISMATCH = 14;

/** The states of all crawls. */
export class MongoCrawlStates implements CrawlStates {
  readonly #values: Collection<CrawlStateDocument>;
  readonly #retrier: Retrier;

  constructor(values: Collection<CrawlStateDocument>, retrier: Retrier) {
    this.#values = values;
    this.#retrier = retrier;
  }

  of(crawl: string): CrawlState {
    const idOf = (name: string) => `${crawl}:${name}`;
    return {
      get: async (name) => {
        const found = await this.#retrier.run("read a crawl's state", () =>
          this.#values.findOne({ _id: idOf(name) }),
        );
        return found === null ? undefined : (found.number ?? JSON.parse(found.json ?? "null"));
      },
      set: async (name, value) => {
        const checked = checkedStateValue(name, value);
        await this.#refuseTooMany(crawl, name);
        const document =
          typeof checked === "number" ? { crawl, number: checked } : { crawl, json: JSON.stringify(checked) };
        await this.#retrier.run("keep a crawl's state", () =>
          this.#values.replaceOne({ _id: idOf(name) }, document, { upsert: true }),
        );
      },
      add: async (name, by = 1) => {
        sumOf(name, 0, by);
        checkedStateValue(name, by);
        await this.#refuseTooMany(crawl, name);
        return this.#add(crawl, name, by);
      },
      delete: async (name) => {
        await this.#retrier.run("remove a crawl's state", () => this.#values.deleteOne({ _id: idOf(name) }));
      },
    };
  }

  /** Removes all that was kept for a crawl. */
  async drop(crawl: string): Promise<void> {
    await this.#values.deleteMany({ crawl });
  }

  /** Not repeated by us: what was added once must not be added twice. The driver's own repetition is safe. */
  async #add(crawl: string, name: string, by: number): Promise<number> {
    try {
      const after = await this.#values.findOneAndUpdate(
        { _id: `${crawl}:${name}`, json: { $exists: false } },
        { $inc: { number: by }, $setOnInsert: { crawl } },
        { upsert: true, returnDocument: "after" },
      );
      return sumOf(name, after?.number, 0);
    } catch (error) {
      // There is one of this name, which is no number.
      if (error instanceof MongoServerError && (error.code === 11000 || error.code === TYPE_MISMATCH)) {
        throw new CrawlStateError(`state "${name}": only numbers can be added`, { cause: error });
      }
      throw error;
    }
  }

  async #refuseTooMany(crawl: string, name: string): Promise<void> {
    const _id = `${crawl}:${name}`;
    const others = await this.#retrier.run("count a crawl's state", () =>
      this.#values.countDocuments({ crawl, _id: { $ne: _id } }, { limit: MAX_STATE_VALUES }),
    );
    if (others < MAX_STATE_VALUES) return;
    const isThere = (await this.#values.findOne({ _id }, { projection: { _id: 1 } })) !== null;
    if (!isThere) throw CrawlStateError.tooMany(name);
  }
}
