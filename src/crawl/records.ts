/** What a crawl leaves behind. Ids derive from crawl, fingerprint and round, so storing twice changes nothing. */

/** One fetched response on record. `id` is `<url id>.<round>`. Instants in ms since the epoch. */
export type PageRecord = {
  readonly id: string;
  readonly crawl: string;
  readonly url: string;
  /** Where redirects led, when not `url`. */
  readonly finalUrl?: string;
  readonly statusCode: number;
  readonly contentType?: string;
  /** Body bytes after decoding. */
  readonly bytes: number;
  /** Of a crawl with `recrawl` or `duplicates`: the name of its body, by which it is told from others. */
  readonly contentHash?: string;
  /** The server said that it is what it was in an earlier round (304); no body came. */
  readonly notModified?: true;
  /** The body was what it had been in the round before; the spider did not see it again. */
  readonly isUnchanged?: true;
  /** The URL that has the same body, or one alike; the spider did not see this one. */
  readonly duplicateOf?: string;
  readonly depth: number;
  readonly at: number;
  readonly node: string;
};

/**
 * What a spider extracted. `id` is `<url id>.<round>.<number on its page>`; on record, that of one with a key is
 * `<crawl>:k-<name of the key>`.
 */
export type ItemRecord = {
  readonly id: string;
  readonly crawl: string;
  readonly url: string;
  readonly at: number;
  readonly spider: string;
  readonly version: string;
  readonly node: string;
  readonly data: Readonly<Record<string, unknown>>;
  /** On its way to be stored: how its crawl wants it kept. */
  readonly keeping?: ItemKeeping;
  /** Of one with a key, on record: how often its data was another than before, from 1. */
  readonly revision?: number;
};

/** How an item is kept, as its crawl wants it. Absent where the crawl has no wishes. */
export type ItemKeeping = {
  /** The name of its key: items of a crawl with the same are one. */
  readonly key?: string;
  /** The name of its data. With `key` only. */
  readonly digest?: string;
  /** What newer data takes the place of is kept. */
  readonly hasHistory?: true;
  /** Others are to be told of it. */
  readonly isFed?: true;
  /** When it is removed, in milliseconds since the epoch. */
  readonly expiresAt?: number;
};

/** What a spider extracted and its schema refused. `id` as that of an item: one number on a page is one or the other. */
export type InvalidItemRecord = Omit<ItemRecord, "data"> & {
  /** As the spider yielded it, as JSON; very much is kept as text, and cut. */
  readonly data: unknown;
  /** What is wrong with it: `price: must be a number`. */
  readonly reasons: readonly string[];
};

/** A stored body. `id` is `<url id>.<round>`; `contentId` names its bytes in the file store. */
export type FileRecord = {
  readonly id: string;
  readonly crawl: string;
  readonly url: string;
  readonly contentId: string;
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
  readonly contentType: string;
  readonly at: number;
  /** Until it is stored: what keeps its bytes. */
  readonly hold?: string;
  /** When it is removed, in milliseconds since the epoch. */
  readonly expiresAt?: number;
};

/** Bytes that were stored, before anything refers to them. */
export type StoredContent = {
  readonly contentId: string;
  readonly bytes: number;
  readonly sha256: string;
  /** Keeps the bytes until a record refers to them; given up with that, or by `discard`. */
  readonly hold?: string;
};

/** A header as it went over the wire: name and value, in the order and the spelling of whoever sent it. */
export type WireHeader = readonly [name: string, value: string];

/** Why a body is not whole, in the words of WARC 1.1, 5.13. */
export type Truncation = "length" | "time" | "disconnect" | "unspecified";

/** What a request asked, and what was answered, as it went over the wire; HTTP's framing is undone. */
export type ArchiveRecord = {
  /** `<url id>.<round>.<attempt>.<number of the exchange>`: storing it twice changes nothing. */
  readonly id: string;
  readonly crawl: string;
  readonly url: string;
  /** When the request was sent, in milliseconds since the epoch. */
  readonly at: number;
  /** Until the answer was over, in milliseconds. */
  readonly fetchMs: number;
  readonly depth: number;
  /** The page that led here. */
  readonly via?: string;
  readonly request: WireRequest;
  readonly response: WireResponse;
  /** Its content codings not undone; or the stored file that it became, whose codings are undone. */
  readonly body: Buffer | StoredContent;
  readonly truncated?: Truncation;
};

export type WireRequest = {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  readonly headers: readonly WireHeader[];
  readonly body?: string;
};

export type WireResponse = {
  readonly statusCode: number;
  readonly statusText: string;
  readonly headers: readonly WireHeader[];
};

export interface FileStore {
  /**
   * Stores a body as it streams in, never whole in memory. The same bytes are stored once, whoever saves them.
   * @throws what the stream throws; nothing is kept then
   */
  save(body: AsyncIterable<Uint8Array>, about: { name: string; contentType: string }): Promise<StoredContent>;
  /** The bytes that were stored, as a stream. @throws when there are none */
  open(contentId: string): Promise<AsyncIterable<Uint8Array>>;
  /** Gives up a hold, if one is named, and removes the bytes unless a record or another hold needs them. */
  discard(contentId: string, hold?: string): Promise<void>;
}

/** What came of storing results. */
export type StoredResults = {
  /** Items, by crawl, that took the place of others with the same key, or did not even that. */
  readonly knownItems?: ReadonlyMap<string, number>;
};

/** Where pages, items and files go; safe to call again with the same records. */
export interface ResultSink {
  store(results: {
    readonly pages: readonly PageRecord[];
    readonly items: readonly ItemRecord[];
    readonly files: readonly FileRecord[];
    readonly invalidItems?: readonly InvalidItemRecord[];
    readonly archive?: readonly ArchiveRecord[];
  }): Promise<StoredResults>;
}

/** A host's robots.txt as it was last read; shared so that one worker's reading serves all. */
export type RobotsRecord = {
  /** Scheme, host name and port. */
  readonly origin: string;
  readonly fetchedAt: number;
  /** Until when it may be used while the host answers, 24 hours at most (RFC 9309, 2.4). */
  readonly expiresAt: number;
  /** `rules`: obey `body`; `allow`: there is none (4xx); `disallow`: it could not be had (5xx, unreachable). */
  readonly verdict: "rules" | "allow" | "disallow";
  readonly body?: string;
};

export interface RobotsStore {
  /** What was last put, be it too old: then it serves while the host cannot be reached. */
  get(origin: string): Promise<RobotsRecord | undefined>;
  put(record: RobotsRecord): Promise<void>;
}
