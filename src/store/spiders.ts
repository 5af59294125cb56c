import type { Collection, Filter } from "mongodb";
import type { CodeKind } from "../crawl/spider-manifest.js";
import { isDuplicateKey } from "./duplicates.js";
import { ConflictError, NotFoundError } from "./errors.js";
import type { Retrier } from "./retrier.js";

/** A spider that was put here by someone: code of some kind, or one whose pages workers of theirs read. */
export type StoredSpider = {
  readonly name: string;
  /** Of code, the version that new crawls get; else "1". */
  readonly version: string;
  readonly kind: CodeKind | "external";
  /** When workers of theirs last asked a master for a task of an external one, in milliseconds since the epoch. */
  readonly askedForAt?: number;
};

/** `_id` is the spider's name. */
export type SpiderDocument = {
  readonly _id: string;
  readonly version: number;
  readonly external?: true;
  readonly kind?: CodeKind;
  /** The highest number that a version of this name has ever had: no number comes twice, whatever was removed. */
  readonly latest?: number;
  readonly removedAt?: number;
  readonly askedForAt?: number;
};

/** The spiders that do not come with Warren. */
export class Spiders {
  readonly #spiders: Collection<SpiderDocument>;
  readonly #retrier: Retrier;

  constructor(spiders: Collection<SpiderDocument>, retrier: Retrier) {
    this.#spiders = spiders;
    this.#retrier = retrier;
  }

  /**
   * Keeps an external spider; the same again changes nothing.
   * @returns whether there was none of this name
   * @throws ConflictError when there is code of this name
   */
  async putExternal(name: string): Promise<{ readonly spider: StoredSpider; readonly isNew: boolean }> {
    return this.#retrier.run("keep a spider", async () => {
      const spider: StoredSpider = { name, version: "1", kind: "external" };
      try {
        const { upsertedCount, modifiedCount } = await this.#spiders.updateOne(
          { _id: name, $or: [{ external: true }, { removedAt: { $exists: true } }] },
          { $set: { version: 1, external: true }, $unset: { removedAt: true, kind: true } },
          { upsert: true },
        );
        return { spider, isNew: upsertedCount + modifiedCount > 0 };
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
      }
      const found = await this.get(name);
      if (found?.kind === "external") return { spider, isNew: false };
      throw new ConflictError(
        `there is code of a spider "${name}": remove it before it is declared external`,
      );
    });
  }

  /**
   * Makes a version the one that new crawls get.
   * @param only "newer": unless a higher one has become so meanwhile
   * @throws ConflictError when the spider is external
   */
  async putVersion(name: string, version: number, kind: CodeKind, only?: "newer"): Promise<void> {
    const set = async () => {
      await this.#spiders.updateOne(
        { _id: name, external: { $exists: false } },
        [
          {
            $set: {
              latest: { $max: ["$latest", version] },
              ...(only === "newer"
                ? currentIf({ $or: [isAbsent("$version"), { $lt: ["$version", version] }] }, version, kind)
                : { version, kind }),
            },
          },
          { $unset: "removedAt" },
        ],
        { upsert: true },
      );
    };
    await this.#retrier.run("set a spider's version", async () => {
      try {
        await set();
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
        if ((await this.get(name))?.kind === "external") throw isExternal(name);
        // Someone else's first version came in between.
        await set();
      }
    });
  }

  /** The highest number that a version of it has had; 0: none. @throws ConflictError when it is external */
  async latestVersion(name: string): Promise<number> {
    const found = await this.#retrier.run("look up a spider", () => this.#spiders.findOne({ _id: name }));
    if (found?.external === true) throw isExternal(name);
    return found?.latest ?? 0;
  }

  async get(name: string): Promise<StoredSpider | undefined> {
    const document = await this.#retrier.run("look up a spider", () =>
      this.#spiders.findOne({ _id: name, removedAt: { $exists: false } }),
    );
    return document === null ? undefined : toSpider(document);
  }

  /** By name. */
  async list(filter: { readonly kind?: "external" } = {}): Promise<readonly StoredSpider[]> {
    const wanted: Filter<SpiderDocument> = {
      removedAt: { $exists: false },
      ...(filter.kind === "external" && { external: true }),
    };
    return (await this.#spiders.find(wanted).sort({ _id: 1 }).toArray()).map(toSpider);
  }

  /** @param at in milliseconds since the epoch @throws NotFoundError */
  async remove(name: string, at: number): Promise<void> {
    await this.#retrier.run("remove a spider", async (again) => {
      const { matchedCount } = await this.#spiders.updateOne(
        { _id: name, removedAt: { $exists: false } },
        { $set: { removedAt: at, version: 0 }, $unset: { external: true, kind: true, askedForAt: true } },
      );
      if (matchedCount === 0 && !again) throw new NotFoundError("spider", name);
    });
  }

  /** Notes that tasks of it were asked for. */
  async askedFor(name: string, at: number): Promise<void> {
    await this.#spiders.updateOne({ _id: name, external: true }, { $max: { askedForAt: at } });
  }
}

function currentIf(isSo: object, version: number, kind: CodeKind) {
  return {
    kind: { $cond: [isSo, kind, "$kind"] },
    version: { $cond: [isSo, version, "$version"] },
  };
}

function isAbsent(field: string): object {
  return { $eq: [{ $type: field }, "missing"] };
}

function isExternal(name: string): ConflictError {
  return new ConflictError(`spider "${name}" is external: remove it before code is put under its name`);
}

function toSpider({ _id, version, kind, askedForAt }: SpiderDocument): StoredSpider {
  return {
    name: _id,
    version: String(version),
    kind: kind ?? "external",
    ...(askedForAt !== undefined && { askedForAt }),
  };
}
