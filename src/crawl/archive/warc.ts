import { createHash } from "node:crypto";
import { LRUCache } from "lru-cache";
import { WARCRecord, type WARCRecordOpts } from "warcio";
import { WARCSerializer } from "warcio/node";
import type { ArchiveRecord, WireHeader } from "../records.js";

/** A record whose body can be read, wherever it is stored. */
export type ReadableArchiveRecord = Omit<ArchiveRecord, "body"> & {
  /** Twice: once for its checksum, once to be written. */
  readonly body: () => AsyncIterable<Uint8Array>;
  /** Its content codings were undone before it was stored. */
  readonly isDecoded: boolean;
};

export type WarcAbout = {
  /** Name and version of the program. */
  readonly software: string;
  /** The crawl's id. */
  readonly crawl: string;
  /** When the archive is written, in milliseconds since the epoch. */
  readonly at: number;
};

type RequiredOptions = WARCRecordOpts & { readonly url: string; readonly date: string };

const VERSION = "WARC/1.1";
const FORMAT = "https://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/";
/** Bodies remembered so that the same ones are not written twice in one archive. */
const REMEMBERED_BODIES = 100_000;
const NOT_MODIFIED_PROFILE = "http://netpreserve.org/warc/1.1/revisit/server-not-modified";

/**
 * Writes WARC 1.1 (ISO 28500:2017), each record compressed by itself, as it is read: a `warcinfo`, then for each
 * exchange a `response` (or a `revisit`, when its body is in the archive already or did not change since), the
 * `request` and a `metadata` record that name it as theirs.
 */
export class WarcWriter {
  readonly #about: WarcAbout;
  /** By digest of the body: where it stands. */
  readonly #bodies = new LRUCache<string, { readonly url: string; readonly date: string }>({
    max: REMEMBERED_BODIES,
  });
  /** By URL: when its body was last written. */
  readonly #written = new LRUCache<string, string>({ max: REMEMBERED_BODIES });

  constructor(about: WarcAbout) {
    this.#about = about;
  }

  async *write(records: AsyncIterable<ReadableArchiveRecord>): AsyncGenerator<Uint8Array> {
    yield* this.header();
    for await (const record of records) yield* this.exchange(record);
  }

  async *header(): AsyncGenerator<Uint8Array> {
    const { software, crawl, at } = this.#about;
    const options = { filename: `${crawl}.warc.gz`, date: instant(at), warcVersion: VERSION } as const;
    yield* gzipped(
      WARCRecord.createWARCInfo(options, {
        software,
        format: "WARC File Format 1.1",
        conformsTo: FORMAT,
        isPartOf: crawl,
      }),
    );
  }

  async *exchange(record: ReadableArchiveRecord): AsyncGenerator<Uint8Array> {
    const common = { url: record.url, date: instant(record.at), warcVersion: VERSION } as const;
    const response = await this.#responseOf(record, common);
    const id = response.warcHeader("WARC-Record-ID") ?? "";
    yield* gzipped(response);
    yield* gzipped(requestOf(record, common, id));
    yield* gzipped(metadataOf(record, common, id));
  }

  async #responseOf(record: ReadableArchiveRecord, common: RequiredOptions): Promise<WARCRecord> {
    const { response, truncated } = record;
    const http = {
      statusline: `HTTP/1.1 ${response.statusCode} ${response.statusText}`.trimEnd(),
      httpHeaders: headersOf(response.headers, record.isDecoded),
    };
    const own: Record<string, string> = truncated === undefined ? {} : { "WARC-Truncated": truncated };
    const before = this.#written.get(record.url);
    if (response.statusCode === 304 && before !== undefined) {
      return revisit(common, http, { url: record.url, date: before }, own, NOT_MODIFIED_PROFILE);
    }
    const { digest, bytes } = await digestOf(record.body());
    const same = bytes === 0 || truncated !== undefined ? undefined : this.#bodies.get(digest);
    if (same !== undefined) {
      return revisit(common, http, same, { ...own, "WARC-Payload-Digest": digest });
    }
    if (bytes > 0 && truncated === undefined) this.#bodies.set(digest, common);
    this.#written.set(record.url, common.date);
    return WARCRecord.create({ ...common, ...http, type: "response", warcHeaders: own }, record.body());
  }
}

function revisit(
  common: RequiredOptions,
  http: Pick<WARCRecordOpts, "statusline" | "httpHeaders">,
  original: { readonly url: string; readonly date: string },
  warcHeaders: Record<string, string>,
  profile?: string,
): WARCRecord {
  const record = WARCRecord.create(
    {
      ...common,
      ...http,
      type: "revisit",
      warcHeaders,
      refersToUrl: original.url,
      refersToDate: original.date,
    },
    nothing(),
  );
  if (profile !== undefined) record.warcHeaders.headers.set("WARC-Profile", profile);
  return record;
}

function requestOf({ request }: ReadableArchiveRecord, common: RequiredOptions, of: string): WARCRecord {
  const body = Buffer.from(request.body ?? "");
  const { headers, method, path } = request;
  const length: WireHeader[] = body.length === 0 ? [] : [["content-length", String(body.length)]];
  return WARCRecord.create(
    {
      ...common,
      type: "request",
      statusline: `${method} ${path} HTTP/1.1`,
      httpHeaders: headersOf([...headers, ...length], false),
      warcHeaders: { "WARC-Concurrent-To": of },
    },
    body.length === 0 ? nothing() : [body],
  );
}

/** What stands beside an exchange, under the names that Heritrix gives it. */
function metadataOf(record: ReadableArchiveRecord, common: RequiredOptions, of: string): WARCRecord {
  const { via, depth, fetchMs } = record;
  const fields = [
    ...(via === undefined ? [] : [`via: ${via}`]),
    `hopsFromSeed: ${depth}`,
    `fetchTimeMs: ${fetchMs}`,
  ];
  return WARCRecord.create({ ...common, type: "metadata", warcHeaders: { "WARC-Concurrent-To": of } }, [
    Buffer.from(fields.map((field) => `${field}\r\n`).join("")),
  ]);
}

/** Headers that speak of a framing which is undone keep their words under another name. */
function headersOf(headers: readonly WireHeader[], isDecoded: boolean): [string, string][] {
  return headers.map(([name, value]) => {
    const lower = name.toLowerCase();
    const isUndone =
      lower === "transfer-encoding" ||
      (isDecoded && (lower === "content-encoding" || lower === "content-length"));
    return [isUndone ? `X-Archive-Orig-${name}` : name, value];
  });
}

async function* gzipped(record: WARCRecord): AsyncGenerator<Uint8Array> {
  yield* new WARCSerializer(record, { gzip: true, digest: { algo: "sha-1", prefix: "sha1:", base32: true } });
}

async function digestOf(body: AsyncIterable<Uint8Array>): Promise<{ digest: string; bytes: number }> {
  const hash = createHash("sha1");
  let bytes = 0;
  for await (const chunk of body) {
    hash.update(chunk);
    bytes += chunk.byteLength;
  }
  return { digest: `sha1:${base32(hash.digest())}`, bytes };
}

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** RFC 4648, 6, of bytes whose number is divisible by five, as those of a SHA-1 are. */
function base32(bytes: Buffer): string {
  let text = "";
  for (let from = 0; from < bytes.length; from += 5) {
    let value = BigInt(`0x${bytes.toString("hex", from, from + 5)}`);
    let group = "";
    for (let digit = 0; digit < 8; digit += 1) {
      group = BASE32.charAt(Number(value & 31n)) + group;
      value >>= 5n;
    }
    text += group;
  }
  return text;
}

async function* nothing(): AsyncGenerator<Uint8Array> {}

function instant(at: number): string {
  return new Date(at).toISOString();
}
