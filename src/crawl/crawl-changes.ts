import { z } from "zod";
import type { CrawlLimits } from "./crawl.js";
import { crawlRequest, priority } from "./crawl-request.js";
import { type Politeness, politenessChanges } from "./politeness.js";

const { maxDepth, maxPages, maxDurationMs, maxBytes } = crawlRequest.shape.limits.unwrap().shape;

/**
 * What of a crawl may change while it runs, as a merge patch (RFC 7396): what is left out stays, and null takes a
 * member away.
 */
export const crawlChanges = z.strictObject({
  name: crawlRequest.shape.name.unwrap().nullable().exactOptional(),
  priority: priority.exactOptional(),
  politeness: politenessChanges.exactOptional(),
  limits: z
    .strictObject({
      maxDepth: maxDepth.unwrap().nullable().exactOptional(),
      maxPages: maxPages.unwrap().nullable().exactOptional(),
      maxDurationMs: maxDurationMs.unwrap().nullable().exactOptional(),
      maxBytes: maxBytes.unwrap().nullable().exactOptional(),
    })
    .exactOptional(),
});

/** Members that are left out stay as they are; null takes one away. */
export type CrawlChanges = {
  readonly name?: string | null;
  readonly priority?: number;
  readonly politeness?: { readonly [Member in keyof Politeness]?: Politeness[Member] | null };
  readonly limits?: { readonly [Limit in keyof CrawlLimits]?: CrawlLimits[Limit] | null };
};
