import type { AnyBulkWriteOperation, Collection } from "mongodb";
import { type Content, type ContentIndex, type KnownContent, MAX_DISTANCE } from "../crawl/content-index.js";
import { bandsOf, distanceOf } from "../crawl/pages/simhash.js";
import type { Clock } from "../lib/clock.js";
import { refusedAsDuplicates } from "./duplicates.js";
import { idsOf } from "./page-of-list.js";
import type { Retrier } from "./retrier.js";

/** Whose a body is; `_id` is `<crawl>:<content hash>`, so that of all who claim it one gets it. */
export type BodyDocument = { readonly _id: string; readonly urlId: string; readonly url: string };

/** The text of one URL; `_id` is the URL's. */
export type LikenessDocument = {
  readonly _id: string;
  readonly crawl: string;
  readonly url: string;
  readonly simhash: string;
  /** `bandsOf(simhash)` */
  readonly bands: readonly number[];
};

export type MongoContentIndexDeps = {
  readonly bodies: Collection<BodyDocument>;
  readonly likenesses: Collection<LikenessDocument>;
  readonly retrier: Retrier;
  readonly clock: Clock;
};

type Claim = {
  readonly content: Content;
  readonly resolve: (known: KnownContent | undefined) => void;
  readonly reject: (error: unknown) => void;
};

/** How long a claim waits for others to be written with it, in milliseconds: that costs a page time, not work. */
const GATHER_MS = 5;
const GROUP_SIZE = 500;

/** Pages of one band looked at for one group: what is alike beyond them is let through. */
const MAX_CANDIDATES = 20_000;

/**
 * The bodies of all crawls that look for duplicates. Claims that come together are settled together: a write for all
 * and, where some are refused, a read.
 */
export class MongoContentIndex implements ContentIndex {
  readonly #deps: MongoContentIndexDeps;
  #waiting: Claim[] = [];

  constructor(deps: MongoContentIndexDeps) {
    this.#deps = deps;
  }

  /** @throws StoreUnavailableError */
  claim(content: Content): Promise<KnownContent | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ content, resolve, reject });
      if (this.#waiting.length > 1) return;
      this.#deps.clock.after(GATHER_MS, () => {
        const claims = this.#waiting;
        this.#waiting = [];
        for (let from = 0; from < claims.length; from += GROUP_SIZE) {
          void this.#settle(claims.slice(from, from + GROUP_SIZE));
        }
      });
    });
  }

  async purge(crawl: string): Promise<void> {
    await this.#deps.bodies.deleteMany({ _id: idsOf(crawl) });
    await this.#deps.likenesses.deleteMany({ _id: idsOf(crawl) });
  }

  async #settle(claims: readonly Claim[]): Promise<void> {
    try {
      const contents = claims.map(({ content }) => content);
      const known = await this.#sameBodies(contents);
      const others = contents.filter(
        (content) => content.simhash !== undefined && !known.has(content),
      ) as readonly Alike[];
      if (others.length > 0) for (const [content, of] of await this.#alike(others)) known.set(content, of);
      for (const { content, resolve } of claims) resolve(known.get(content));
    } catch (error) {
      for (const { reject } of claims) reject(error);
    }
  }

  /** Claims bodies; those that another URL has. */
  async #sameBodies(contents: readonly Content[]): Promise<Map<Content, KnownContent>> {
    const { bodies, retrier } = this.#deps;
    return retrier.run("claim bodies", async () => {
      const former = contents.flatMap(({ crawl, urlId, formerHash }) =>
        formerHash === undefined ? [] : [{ deleteOne: { filter: { _id: `${crawl}:${formerHash}`, urlId } } }],
      );
      if (former.length > 0) await bodies.bulkWrite(former, { ordered: false });
      const documents = contents.map(({ crawl, urlId, url, contentHash }) => ({
        _id: `${crawl}:${contentHash}`,
        urlId,
        url,
      }));
      let refused: readonly number[] = [];
      try {
        await bodies.insertMany(documents, { ordered: false });
      } catch (error) {
        refused = refusedAsDuplicates(error);
      }
      const known = new Map<Content, KnownContent>();
      if (refused.length === 0) return known;
      const ids = refused.flatMap((index) => documents[index]?._id ?? []);
      const owners = await bodies.find({ _id: { $in: ids } }).toArray();
      const ownerOf = new Map(owners.map((owner) => [owner._id, owner]));
      for (const index of refused) {
        const content = contents[index];
        const owner = ownerOf.get(documents[index]?._id ?? "");
        if (content === undefined || owner === undefined || owner.urlId === content.urlId) continue;
        known.set(content, { url: owner.url, isSame: true });
      }
      return known;
    });
  }

  /** Those whose text is nearly another's, which is on record or in the same group; the others are put on record. */
  async #alike(contents: readonly Alike[]): Promise<Map<Content, KnownContent>> {
    const { likenesses, retrier } = this.#deps;
    return retrier.run("look for pages that are alike", async () => {
      const known = new Map<Content, KnownContent>();
      const originals: LikenessDocument[] = [];
      const candidates = new Map<string, LikenessDocument[]>();
      for (const crawl of new Set(contents.map((content) => content.crawl))) {
        const bands = contents
          .filter((one) => one.crawl === crawl)
          .flatMap(({ simhash }) => bandsOf(simhash));
        const found = await likenesses
          .find({ crawl, bands: { $in: bands } })
          .limit(MAX_CANDIDATES)
          .toArray();
        candidates.set(crawl, found);
      }
      for (const content of contents) {
        const { crawl, urlId, url, simhash } = content;
        const there = candidates.get(crawl) ?? [];
        // On record already: whatever has come since, it stays an original.
        if (there.some((own) => own._id === urlId && own.simhash === simhash)) continue;
        const like = there.find(
          (other) => other._id !== urlId && distanceOf(other.simhash, simhash) <= MAX_DISTANCE,
        );
        if (like !== undefined) {
          known.set(content, { url: like.url, isSame: false });
          continue;
        }
        const original = { _id: urlId, crawl, url, simhash, bands: bandsOf(simhash) };
        originals.push(original);
        there.push(original);
      }
      const writes = originals.map(
        ({ _id, ...replacement }): AnyBulkWriteOperation<LikenessDocument> => ({
          replaceOne: { filter: { _id }, replacement, upsert: true },
        }),
      );
      if (writes.length > 0) await likenesses.bulkWrite(writes, { ordered: false });
      return known;
    });
  }
}

type Alike = Content & { readonly simhash: string };
