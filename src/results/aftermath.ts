import { type CrawlCounts, NO_COUNTS } from "../crawl/crawl.js";
import type { Metrics } from "../lib/metrics.js";
import type { Store } from "../store/index.js";
import type { CommittedGroup } from "./committer.js";
import type { Replies } from "./replies.js";
import type { EventContext, TaskEvents } from "./task-events.js";

export type AftermathParts = {
  readonly events: TaskEvents;
  readonly replies: Replies;
  readonly crawls: Pick<Store["crawls"], "count">;
  readonly metrics: Metrics;
};

/** What follows once results are stored: it is told to everyone, counted, and answered to who waits for it. */
export class Aftermath {
  readonly #parts: AftermathParts;

  constructor(parts: AftermathParts) {
    this.#parts = parts;
  }

  async follow(group: CommittedGroup<EventContext>): Promise<void> {
    const { members, applied } = group;
    const { events, replies, crawls, metrics } = this.#parts;
    events.committed(group);
    for (const [crawl, delta] of countsOf(group)) crawls.count(crawl, delta);
    const endings = members.filter(
      ({ result }) => result.ending.state !== "queued" && applied.has(result.ending.id),
    );
    for (const { result } of endings) {
      metrics.pages.inc({ status: result.ending.state });
      if (result.items.length > 0) metrics.items.inc(result.items.length);
    }
    await replies.ended(
      endings.map(({ result }) => ({
        id: result.ending.id,
        children: result.links
          .filter(({ kind, skip }) => kind === "file" && skip === undefined)
          .map(({ id }) => id),
      })),
    );
  }
}

type Counts = { -readonly [Name in keyof CrawlCounts]: number };

/** What a group changes in the live counts, by crawl. */
function countsOf({
  members,
  applied,
  links,
  knownItems = new Map(),
}: CommittedGroup<unknown>): Map<string, Counts> {
  const counts = new Map<string, Counts>();
  const of = (crawl: string): Counts => {
    let known = counts.get(crawl);
    if (known === undefined) {
      known = { ...NO_COUNTS };
      counts.set(crawl, known);
    }
    return known;
  };
  for (const { crawl } of links.queued) of(crawl).queued += 1;
  for (const { result } of members) {
    if (!applied.has(result.ending.id)) continue;
    const delta = of(result.ending.crawl);
    delta.active -= 1;
    delta[result.ending.state] += 1;
    delta.items += result.items.length;
    delta.invalidItems += result.invalidItems?.length ?? 0;
    delta.files += result.files.length;
    for (const page of result.pages) delta.bytes += page.bytes;
  }
  for (const [crawl, known] of knownItems) if (known > 0) of(crawl).items -= known;
  return counts;
}
