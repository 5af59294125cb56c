import type { ContentIndex, KnownContent } from "./content-index.js";
import type { Crawl } from "./crawl.js";
import { simhashOf } from "./pages/simhash.js";
import type { Task } from "./task.js";

/** What is known of a body before the spider sees it; nothing, as a rule. */
export type Known = {
  readonly contentHash?: string;
  readonly isNotModified?: boolean;
  readonly isUnchanged?: boolean;
  readonly duplicateOf?: KnownContent;
};

/** A body that may be known. */
export type Body = {
  readonly bytes: number;
  readonly hash: () => string;
  /** Of a page: what of it may be like another's. */
  readonly page?: Buffer;
};

/** Tells whether a crawl has had a body before: at its URL the last time, or at another. */
export class ContentRecogniser {
  readonly #contents: ContentIndex;

  constructor(contents: ContentIndex) {
    this.#contents = contents;
  }

  async recognise({ bytes, hash, page }: Body, task: Task, crawl: Crawl): Promise<Known> {
    const { recrawl, duplicates = "off" } = crawl;
    // That two have nothing says nothing about them.
    if ((recrawl === undefined && duplicates === "off") || bytes === 0) return {};
    const contentHash = hash();
    const former = task.revisit?.contentHash;
    if (former === contentHash) return { contentHash, isUnchanged: true };
    if (duplicates === "off") return { contentHash };
    const simhash =
      duplicates === "similar" && page !== undefined ? simhashOf(page.toString("utf8")) : undefined;
    const duplicateOf = await this.#contents.claim({
      crawl: task.crawl,
      urlId: task.id,
      url: task.url,
      contentHash,
      ...(simhash !== undefined && { simhash }),
      ...(former !== undefined && { formerHash: former }),
    });
    return { contentHash, ...(duplicateOf !== undefined && { duplicateOf }) };
  }
}

/** Whether the spider is to see it. */
export function isNew({ isUnchanged, isNotModified, duplicateOf }: Known): boolean {
  return isUnchanged !== true && isNotModified !== true && duplicateOf === undefined;
}
