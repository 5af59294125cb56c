import type { Collection, Filter } from "mongodb";
import { z } from "zod";
import type { UrlKind, UrlState } from "../crawl/frontier.js";
import { shardOf } from "../crawl/urls/url.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  idsOf,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { PastEvent, UrlDocument } from "./url-document.js";

/** States of a URL as users see them: one that is dispatched is `active`. */
export const LISTED_STATES = ["queued", "active", "done", "failed", "skipped"] as const;
export type ListedState = (typeof LISTED_STATES)[number];

/** A URL as users see it. Instants in milliseconds since the epoch. */
export type UrlRow = {
  readonly id: string;
  readonly url: string;
  readonly state: ListedState;
  readonly kind: UrlKind;
  readonly depth: number;
  readonly priority: number;
  readonly host: string;
  readonly attempts: number;
  readonly statusCode?: number;
  readonly reason?: string;
  readonly error?: string;
  readonly parent?: string;
  /** While it is queued: not before this instant. */
  readonly readyAt?: number;
  /** It has ended, and is to be fetched again at this instant. */
  readonly nextVisitAt?: number;
  /** How often it was opened again after it had ended. */
  readonly round: number;
  readonly items: number;
  readonly invalidItems: number;
  readonly files: number;
  /** When its state last changed. */
  readonly at: number;
};

/** A URL with what is known of its past. */
export type UrlRecord = UrlRow & {
  /** How often it was opened again after it had ended. */
  readonly round: number;
  readonly foundAt?: number;
  /** The id of the URL whose redirect led here, when it was recorded for that alone. */
  readonly claimedBy?: string;
  /** Where its redirects have led so far, while they are followed. */
  readonly redirectedTo?: string;
  /** While it is active. */
  readonly dispatchedAt?: number;
  /** The node that had it last, unless it is done. */
  readonly node?: string;
  /** Ends of its dispatches that did not end it, the latest last. */
  readonly past: readonly PastEvent[];
};

export type UrlListOptions = ListOptions & { readonly state?: ListedState; readonly host?: string };

/** Where a page of open URLs ended: the last one's key in the index, and how many with that key were shown. */
const openPosition = z.tuple([z.number(), z.string(), z.number(), z.number(), z.number()]);
/** Where a page of URLs that ended badly ended. */
const leftPosition = z.tuple([z.string(), z.string()]);
const idPosition = z.string();

/**
 * Looks at the URLs of a crawl, page by page. Each kind of look has its order, which is that of an index,
 * so that a page costs the same wherever it is in the list:
 * open URLs by host and turn; failed and skipped ones by host; all, or those done, by fingerprint.
 */
export class UrlList {
  readonly #urls: Collection<UrlDocument>;
  readonly #shardCount: number;

  constructor(urls: Collection<UrlDocument>, options: { readonly shardCount: number }) {
    this.#urls = urls;
    this.#shardCount = options.shardCount;
  }

  /** @throws CursorError */
  list(crawl: string, options: UrlListOptions = {}): Promise<ListPage<UrlRow>> {
    switch (options.state) {
      case "queued":
        return this.#open(crawl, "queued", options);
      case "active":
        return this.#open(crawl, "dispatched", options);
      case "failed":
      case "skipped":
        return this.#left(crawl, options.state, options);
      case "done":
      case undefined:
        return this.#all(crawl, options);
      default:
        return options.state satisfies never;
    }
  }

  async get(id: string): Promise<UrlRecord | undefined> {
    const document = await this.#urls.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  async #open(
    crawl: string,
    state: "queued" | "dispatched",
    options: UrlListOptions,
  ): Promise<ListPage<UrlRow>> {
    const { limit = DEFAULT_LIST_LIMIT, host } = options;
    const of = { state, crawl } as const;
    const last = options.cursor === undefined ? undefined : decodeCursor(options.cursor, openPosition);
    const ranges: { filter: Filter<UrlDocument>; skip: number }[] = [];
    if (last !== undefined) {
      const [shard, lastHost, priority, readyAt, shown] = last;
      const lane = { ...of, shard, host: lastHost };
      // Those with the last one's own key come first, so the number shown is what is passed over.
      ranges.push({ filter: { ...lane, priority, readyAt: { $gte: readyAt } }, skip: shown });
      ranges.push({ filter: { ...lane, priority: { $lt: priority } }, skip: 0 });
      if (host === undefined) {
        ranges.push({ filter: { ...of, shard, host: { $gt: lastHost } }, skip: 0 });
        ranges.push({ filter: { ...of, shard: { $gt: shard } }, skip: 0 });
      }
    } else if (host === undefined) ranges.push({ filter: of, skip: 0 });
    else ranges.push({ filter: { ...of, shard: shardOf(host, this.#shardCount), host }, skip: 0 });

    const documents: UrlDocument[] = [];
    for (const { filter, skip } of ranges) {
      const missing = limit + 1 - documents.length;
      if (missing <= 0) break;
      const found = this.#urls
        .find(filter)
        .sort({ shard: 1, host: 1, priority: -1, readyAt: 1 })
        .skip(skip)
        .limit(missing);
      documents.push(...(await found.toArray()));
    }
    const shown = documents.slice(0, limit);
    const end = shown.at(-1);
    if (documents.length <= limit || end === undefined) return { items: shown.map(toRow), next: null };
    const sameKey = shown.filter((document) => hasSameKey(document, end)).length;
    const [, lastHost, priority, readyAt, before] = last ?? [0, "", 0, 0, 0];
    const goesOn = lastHost === end.host && priority === end.priority && readyAt === end.readyAt;
    const position = [end.shard, end.host, end.priority, end.readyAt, sameKey + (goesOn ? before : 0)];
    return { items: shown.map(toRow), next: encodeCursor(position) };
  }

  async #left(
    crawl: string,
    state: "failed" | "skipped",
    options: UrlListOptions,
  ): Promise<ListPage<UrlRow>> {
    const { limit = DEFAULT_LIST_LIMIT, host } = options;
    const of = { crawl, state } as const;
    let ranges: Filter<UrlDocument>[] = [host === undefined ? of : { ...of, host }];
    if (options.cursor !== undefined) {
      const [lastHost, lastId] = decodeCursor(options.cursor, leftPosition);
      ranges = [{ ...of, host: lastHost, _id: { $gt: lastId } }];
      if (host === undefined) ranges.push({ ...of, host: { $gt: lastHost } });
    }
    const documents: UrlDocument[] = [];
    for (const range of ranges) {
      const missing = limit + 1 - documents.length;
      if (missing > 0) {
        documents.push(...(await this.#urls.find(range).sort({ host: 1, _id: 1 }).limit(missing).toArray()));
      }
    }
    return pageOf(documents, limit, toRow, (end) => encodeCursor([end.host, end._id]));
  }

  async #all(crawl: string, options: UrlListOptions): Promise<ListPage<UrlRow>> {
    const { limit = DEFAULT_LIST_LIMIT, host, state, cursor } = options;
    const { $gte, $lt } = idsOf(crawl);
    const after = cursor === undefined ? undefined : decodeCursor(cursor, idPosition);
    const filter: Filter<UrlDocument> = {
      _id: after === undefined ? { $gte, $lt } : { $gt: `${crawl}:${after}`, $lt },
      ...(state === "done" && { state }),
      ...(host !== undefined && { host }),
    };
    const documents = await this.#urls
      .find(filter)
      .sort({ _id: 1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRow, (end) => encodeCursor(end._id.slice(crawl.length + 1)));
  }
}

function hasSameKey(one: UrlDocument, other: UrlDocument): boolean {
  return one.host === other.host && one.priority === other.priority && one.readyAt === other.readyAt;
}

function listedState(state: UrlState): ListedState {
  return state === "dispatched" ? "active" : state;
}

function toRow(document: UrlDocument): UrlRow {
  const { _id, url, state, kind, depth, priority, host, attempts, statusCode, reason, error, parent } =
    document;
  return {
    id: _id,
    url,
    state: listedState(state),
    kind,
    depth,
    priority,
    host,
    attempts,
    ...(statusCode !== undefined && { statusCode }),
    ...(reason !== undefined && { reason }),
    ...(error !== undefined && { error }),
    ...(parent !== undefined && { parent }),
    ...(state === "queued" && { readyAt: document.readyAt }),
    ...(document.nextVisitAt !== undefined && { nextVisitAt: document.nextVisitAt }),
    round: document.round ?? 0,
    items: document.items ?? 0,
    invalidItems: document.invalidItems ?? 0,
    files: document.files ?? 0,
    at: Math.floor(document.at),
  };
}

function toRecord(document: UrlDocument): UrlRecord {
  const { round, foundAt, claimedBy, target, dispatch, node, past } = document;
  return {
    ...toRow(document),
    round: round ?? 0,
    ...(foundAt !== undefined && { foundAt }),
    ...(claimedBy !== undefined && { claimedBy }),
    ...(target !== undefined && { redirectedTo: target.url }),
    ...(dispatch !== undefined && { dispatchedAt: dispatch.dispatchedAt }),
    ...(node !== undefined && { node }),
    past: past ?? [],
  };
}
