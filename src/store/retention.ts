import type { Collection, Filter } from "mongodb";
import type { FileDocument } from "./files.js";
import type { ItemDocument, ItemVersionDocument } from "./item-documents.js";

/** What was removed of a crawl. */
export type Removed = { readonly items: number; readonly files: number };

export type RetentionDeps = {
  readonly items: Collection<ItemDocument>;
  readonly versions: Collection<ItemVersionDocument>;
  readonly files: Collection<FileDocument>;
  /** Removes bytes, unless something else needs them. */
  readonly discardContent: (contentId: string) => Promise<void>;
};

/** Documents looked at together; and how often in a row, so that nothing else waits for long. */
const BATCH = 500;
const MOST_BATCHES = 200;

type Expiring = { readonly _id: string; readonly crawl: string; readonly expiresAt?: number };

/** Removes what crawls keep for a time only: items, what these were before, and files. */
export class Retention {
  readonly #deps: RetentionDeps;

  constructor(deps: RetentionDeps) {
    this.#deps = deps;
  }

  /**
   * Removes what has expired, in batches; what is left after many of them waits for the next time. What two masters find
   * at once is removed, and counted, once.
   * @param now in milliseconds since the epoch
   */
  async removeExpired(now: number): Promise<ReadonlyMap<string, Removed>> {
    const { items, versions, files, discardContent } = this.#deps;
    const removed = new Map<string, { items: number; files: number }>();
    const count = (kind: keyof Removed) => (crawl: string, documents: number) => {
      const of = removed.get(crawl) ?? { items: 0, files: 0 };
      of[kind] += documents;
      removed.set(crawl, of);
    };
    await removeFrom(versions, now, () => {});
    await removeFrom(items, now, count("items"));
    // The bytes go after the records that refer to them.
    const contents = new Set<string>();
    await removeFrom(files, now, count("files"), (found) => {
      for (const { contentId } of found) contents.add(contentId);
    });
    for (const contentId of contents) await discardContent(contentId);
    return removed;
  }
}

async function removeFrom<Document extends Expiring>(
  collection: Collection<Document>,
  now: number,
  count: (crawl: string, documents: number) => void,
  onFound: (documents: readonly Document[]) => void = () => {},
): Promise<void> {
  const isOver = { expiresAt: { $lte: now } };
  for (let batches = 0; batches < MOST_BATCHES; batches += 1) {
    const found = (await collection
      .find(isOver as Filter<Document>)
      .sort({ expiresAt: 1 })
      .limit(BATCH)
      .project({ crawl: 1, contentId: 1 })
      .toArray()) as Document[];
    if (found.length === 0) return;
    onFound(found);
    for (const crawl of new Set(found.map((document) => document.crawl))) {
      const ids = found.filter((document) => document.crawl === crawl).map(({ _id }) => _id);
      // One whose data has come again meanwhile is kept for longer.
      const { deletedCount } = await collection.deleteMany({
        _id: { $in: ids },
        ...isOver,
      } as unknown as Filter<Document>);
      if (deletedCount > 0) count(crawl, deletedCount);
    }
  }
}
