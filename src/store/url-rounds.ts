import type { AnyBulkWriteOperation, ClientSession, Collection, Filter } from "mongodb";
import type { EndState, Opened, OpenedUrl, Rounds, Wanted } from "../crawl/frontier.js";
import { REOPENED_SKIPS } from "../crawl/frontier.js";
import { canonicalUrl, shardOf } from "../crawl/urls/url.js";
import type { Clock } from "../lib/clock.js";
import { idsOf } from "./page-of-list.js";
import type { Retrier } from "./retrier.js";
import { markedInstant, type UrlDocument } from "./url-document.js";

export type UrlRoundsDeps = {
  readonly urls: Collection<UrlDocument>;
  readonly retrier: Retrier;
  readonly clock: Clock;
};

type Ended = Pick<UrlDocument, "_id" | "crawl" | "url" | "host" | "state" | "target" | "reason">;

const NEXT_VISITS = { hint: "next-visits" } as const;
const BY_ID = { hint: "_id_" } as const;
const SEEN = { crawl: 1, url: 1, host: 1, state: 1, target: 1, reason: 1, at: 1 } as const;

/**
 * Opens ended URLs of the frontier for another round. How a URL had ended stays with it until its next end, so
 * that it can be given back when its crawl ends before.
 */
export class UrlRounds implements Rounds {
  readonly #deps: UrlRoundsDeps;
  readonly #shardCount: number;

  constructor(deps: UrlRoundsDeps, options: { readonly shardCount: number }) {
    this.#deps = deps;
    this.#shardCount = options.shardCount;
  }

  async openDue(crawl: string, shards: readonly number[], now: number, limit: number): Promise<Opened> {
    if (shards.length === 0) return { urls: [] };
    const { urls } = this.#deps;
    const here = { crawl, shard: { $in: [...shards] } };
    const due = await urls
      .find({ ...here, nextVisitAt: { $lte: now } }, NEXT_VISITS)
      .project<Ended>(SEEN)
      .limit(limit)
      .toArray();
    const opened = await this.#open(due, { nextVisitAt: { $lte: now } });
    if (due.length === limit) return { urls: opened, more: "" };
    const [next] = await urls
      .find({ ...here, nextVisitAt: { $gt: now } }, NEXT_VISITS)
      .project<{ nextVisitAt: number }>({ _id: 0, nextVisitAt: 1 })
      .sort({ nextVisitAt: 1 })
      .limit(1)
      .toArray();
    return { urls: opened, ...(next !== undefined && { nextDueAt: next.nextVisitAt }) };
  }

  async open(crawl: string, wanted: Wanted, limit: number, after = ""): Promise<Opened> {
    const { urls } = this.#deps;
    const { $gte, $lt } = idsOf(crawl);
    const range = after === "" ? { $gte, $lt } : { $gt: after, $lt };
    const named = "ids" in wanted ? { $in: [...wanted.ids] } : {};
    const documents = await urls
      .find({ _id: { ...range, ...named } }, BY_ID)
      .project<Ended & Pick<UrlDocument, "at">>(SEEN)
      .sort({ _id: 1 })
      .limit(limit)
      .toArray();
    const opened = await this.#open(
      documents.filter((document) => isWanted(document, wanted)),
      {},
    );
    const last = documents.at(-1);
    return documents.length === limit && last !== undefined
      ? { urls: opened, more: last._id }
      : { urls: opened };
  }

  /** @param session of a snapshot, to be asked at its instant */
  async hasNextVisits(crawl: string, session?: ClientSession): Promise<boolean> {
    const found = await this.#deps.urls.findOne(
      { crawl, nextVisitAt: { $exists: true } },
      { ...NEXT_VISITS, projection: { _id: 1 }, ...(session !== undefined && { session }) },
    );
    return found !== null;
  }

  /** Opens those that are still as they were seen. */
  async #open(seen: readonly Ended[], still: Filter<UrlDocument>): Promise<readonly OpenedUrl[]> {
    if (seen.length === 0) return [];
    const { urls, retrier, clock } = this.#deps;
    const now = clock.now();
    const at = markedInstant(now);
    const updates = this.#updatesOf(seen, still, Math.floor(now), at);
    const opened = await retrier.run("open URLs for another round", async (again) => {
      const result = await urls.bulkWrite(updates, { ordered: false });
      if (result.modifiedCount === seen.length && !again) return undefined;
      const ids = { $in: seen.map(({ _id }) => _id) };
      const ours = await urls.find({ _id: ids, at }, BY_ID).project<{ _id: string }>({ _id: 1 }).toArray();
      return new Set(ours.map(({ _id }) => _id));
    });
    return seen
      .filter(({ _id }) => opened?.has(_id) !== false)
      .map((url) => ({ id: url._id, crawl: url.crawl, host: hostOf(url), was: url.state as EndState }));
  }

  /** One update for all that ended alike; those whose redirect led to another host go back to their own. */
  #updatesOf(
    seen: readonly Ended[],
    still: Filter<UrlDocument>,
    now: number,
    at: number,
  ): AnyBulkWriteOperation<UrlDocument>[] {
    const groups = new Map<string, [Ended, ...Ended[]]>();
    for (const url of seen) {
      const key = url.target === undefined ? url.state : `${url.state} ${hostOf(url)}`;
      const group = groups.get(key);
      if (group === undefined) groups.set(key, [url]);
      else group.push(url);
    }
    return [...groups.values()].map((group) => {
      const [{ state, target }] = group;
      const host = hostOf(group[0]);
      return {
        updateMany: {
          ...BY_ID,
          filter: { ...still, _id: { $in: group.map(({ _id }) => _id) }, state },
          update: {
            $set: {
              state: "queued" as const,
              readyAt: now,
              attempts: 0,
              at,
              was: state as EndState,
              ...(target !== undefined && { host, shard: shardOf(host, this.#shardCount) }),
            },
            $inc: { round: 1 },
            $unset: { nextVisitAt: "", target: "", reason: "", error: "", suspicion: "", claimedBy: "" },
          },
        },
      };
    });
  }
}

function isWanted({ state, reason, at }: Ended & Pick<UrlDocument, "at">, wanted: Wanted): boolean {
  if ("endedBefore" in wanted) {
    return at < wanted.endedBefore && (state === "done" || (state === "failed" && reason !== "poison"));
  }
  if (state === "skipped") return (REOPENED_SKIPS as readonly (string | undefined)[]).includes(reason);
  return state === "done" || state === "failed";
}

function hostOf({ url, host, target }: Ended): string {
  return target === undefined ? host : (canonicalUrl(url)?.host ?? host);
}
