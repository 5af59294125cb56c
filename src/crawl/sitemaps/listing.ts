import { Readable } from "node:stream";
import { setImmediate } from "node:timers/promises";
import { TextDecoder } from "node:util";
import * as zlib from "node:zlib";
import { FetchError } from "../errors.js";
import type { ListedExtra } from "./sitemap-options.js";
import { type ListedUrl, MalformedListing, XmlListing } from "./xml-listing.js";

export type { ListedUrl } from "./xml-listing.js";

/** Forms in which URLs are listed. `index`: a sitemap of sitemaps; `text`: one URL a line; `json`: JSON Feed. */
export type ListingForm = "sitemap" | "index" | "rss" | "atom" | "json" | "text";

/** Bytes from a body's start by which its form is told. */
export const LISTING_START_BYTES = 2_048;

export type ListingReaderOptions = {
  /** The form that was found at its beginning. */
  readonly form: ListingForm;
  readonly extras: ReadonlySet<ListedExtra>;
  /** URLs taken from it at most. */
  readonly maxUrls: number;
  /** Bytes read of it at most, unpacked. */
  readonly maxBytes: number;
  readonly onListed: (listed: ListedUrl) => void;
};

/** How the reading of one ended. */
export type ListingSummary = {
  /** Bytes that were read, unpacked. */
  readonly bytes: number;
  readonly urls: number;
  /** Set: not all of it was read, because of this. */
  readonly cut?: string;
};

/** A JSON feed cannot be read in pieces: a larger one is left. */
const MAX_JSON_BYTES = 8 * 1_048_576;
/** What the first bytes of a packed one may unpack to. */
const MAX_START_BYTES = 4 * 1_048_576;
const MAX_LINE = 10_000;
/** After so long something else may run, in milliseconds. */
const SLICE_MS = 8;

const LENIENT = { finishFlush: zlib.constants.Z_SYNC_FLUSH, chunkSize: 65_536 };

/**
 * The form of a listing by its first bytes, packed with gzip or not, and whatever its name or type; undefined when it
 * is none.
 * @param mayBeText whether lines of URLs count: nothing else tells a sitemap in plain text from any other text
 */
export function listingForm(start: Buffer, mayBeText: boolean): ListingForm | undefined {
  const text = textOf(isGzip(start) ? unpackedStart(start) : start);
  const root =
    /^\s*(?:<\?[^>]*\?>\s*|<!--.*?-->\s*|<![^>[]*(?:\[[^\]]*\])?[^>]*>\s*)*<(?:[\w.-]+:)?([\w.-]+)/s.exec(
      text,
    );
  switch (root?.[1]) {
    case "urlset":
      return "sitemap";
    case "sitemapindex":
      return "index";
    case "rss":
    case "RDF":
      return "rss";
    case "feed":
      return "atom";
    default:
  }
  if (/^\s*\{/.test(text) && /"version"\s*:\s*"https?:\\?\/\\?\/jsonfeed\.org\\?\/version/.test(text))
    return "json";
  if (mayBeText && /^\s*https?:\/\/[^\s<>"]+\s*(?:[\r\n]|$)/.test(text)) return "text";
  return undefined;
}

/**
 * Reads a listing as its bytes come in, and tells each URL as soon as it is there.
 * @throws FetchError what the body throws
 */
export async function readListing(
  body: AsyncIterable<Buffer>,
  options: ListingReaderOptions,
): Promise<ListingSummary> {
  const { maxBytes, maxUrls, form, onListed } = options;
  let bytes = 0;
  let urls = 0;
  const summary = (cut?: string): ListingSummary => ({ bytes, urls, ...(cut !== undefined && { cut }) });
  const take = (listed: ListedUrl) => {
    if (urls >= maxUrls) throw new CutListing(`more than ${maxUrls} URLs`);
    urls += 1;
    onListed(listed);
  };
  const reader = readerOf(form, options.extras, take);
  let decoder: TextDecoder | undefined;
  let sliceEndsAt = performance.now() + SLICE_MS;
  try {
    for await (const chunk of unpacked(body)) {
      const room = maxBytes - bytes;
      bytes += Math.min(chunk.length, room);
      decoder ??= decoderFor(chunk);
      reader.write(decoder.decode(chunk.length > room ? chunk.subarray(0, room) : chunk, { stream: true }));
      if (chunk.length > room) return summary(`more than ${maxBytes} bytes`);
      if (performance.now() < sliceEndsAt) continue;
      await setImmediate();
      sliceEndsAt = performance.now() + SLICE_MS;
    }
    reader.write(decoder?.decode() ?? "");
    reader.end();
    return summary();
  } catch (error) {
    if (error instanceof CutListing || error instanceof MalformedListing) return summary(error.message);
    throw error;
  }
}

class CutListing extends Error {}

type FormReader = { write(text: string): void; end(): void };

function readerOf(
  form: ListingForm,
  extras: ReadonlySet<ListedExtra>,
  onListed: (listed: ListedUrl) => void,
): FormReader {
  if (form === "text") return new TextListing(onListed);
  if (form === "json") return new JsonFeed(extras, onListed);
  return new XmlListing({ extras, onListed });
}

/** One URL a line. */
class TextListing implements FormReader {
  readonly #onListed: (listed: ListedUrl) => void;
  #rest = "";

  constructor(onListed: (listed: ListedUrl) => void) {
    this.#onListed = onListed;
  }

  write(text: string): void {
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > MAX_LINE)
      throw new MalformedListing(`a line of more than ${MAX_LINE} characters`);
    for (const line of lines) this.#take(line);
  }

  end(): void {
    this.#take(this.#rest);
  }

  #take(line: string): void {
    const url = line.trim();
    if (url !== "" && url.length <= MAX_LINE) this.#onListed({ url, kind: "page" });
  }
}

/** JSON Feed 1 and 1.1. */
class JsonFeed implements FormReader {
  readonly #extras: ReadonlySet<ListedExtra>;
  readonly #onListed: (listed: ListedUrl) => void;
  readonly #pieces: string[] = [];
  #length = 0;

  constructor(extras: ReadonlySet<ListedExtra>, onListed: (listed: ListedUrl) => void) {
    this.#extras = extras;
    this.#onListed = onListed;
  }

  write(text: string): void {
    this.#length += text.length;
    if (this.#length > MAX_JSON_BYTES)
      throw new MalformedListing(`more than ${MAX_JSON_BYTES} bytes of JSON`);
    this.#pieces.push(text);
  }

  end(): void {
    let feed: unknown;
    try {
      feed = JSON.parse(this.#pieces.join(""));
    } catch {
      throw new MalformedListing("is no JSON");
    }
    for (const item of arrayIn(feed, "items")) {
      const url = textIn(item, "url") ?? textIn(item, "external_url");
      const lastModified = textIn(item, "date_modified") ?? textIn(item, "date_published");
      if (url !== undefined) {
        this.#onListed({ url, kind: "page", ...(lastModified !== undefined && { lastModified }) });
      }
      if (!this.#extras.has("enclosures")) continue;
      for (const attachment of arrayIn(item, "attachments")) {
        const file = textIn(attachment, "url");
        if (file !== undefined) this.#onListed({ url: file, kind: "file" });
      }
    }
  }
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function arrayIn(value: unknown, name: string): readonly unknown[] {
  const member = memberOf(value, name);
  return Array.isArray(member) ? member : [];
}

function textIn(value: unknown, name: string): string | undefined {
  const member = memberOf(value, name);
  return typeof member === "string" && member !== "" ? member : undefined;
}

function isGzip(start: Buffer): boolean {
  return start[0] === 0x1f && start[1] === 0x8b && start[2] === 0x08;
}

function unpackedStart(start: Buffer): Buffer {
  try {
    return zlib
      .gunzipSync(start, { ...LENIENT, maxOutputLength: MAX_START_BYTES })
      .subarray(0, LISTING_START_BYTES);
  } catch {
    return Buffer.alloc(0);
  }
}

/** The body itself, or what is packed in it. What is broken is read as far as it goes. */
async function* unpacked(body: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const pieces = body[Symbol.asyncIterator]();
  const held: Buffer[] = [];
  let start = Buffer.alloc(0);
  while (start.length < 3) {
    const { value, done } = await pieces.next();
    if (done === true) break;
    held.push(value);
    start = Buffer.concat(held);
  }
  const rest = { [Symbol.asyncIterator]: () => pieces };
  const whole = async function* (): AsyncGenerator<Buffer> {
    yield start;
    yield* rest;
  };
  if (!isGzip(start)) {
    yield* whole();
    return;
  }
  let failure: FetchError | undefined;
  const source = Readable.from(whole());
  const gunzip = zlib.createGunzip(LENIENT);
  source.on("error", (error) => {
    if (error instanceof FetchError) failure = error;
    gunzip.destroy(error);
  });
  try {
    for await (const chunk of source.pipe(gunzip)) yield chunk as Buffer;
  } catch (error) {
    if (failure !== undefined) throw failure;
    throw new MalformedListing("is packed, and broken", { cause: error });
  } finally {
    source.destroy();
    gunzip.destroy();
  }
}

/** By the byte order mark, else by what an XML declaration says, else UTF-8. */
function decoderFor(start: Buffer): TextDecoder {
  const [first, second] = start;
  if (first === 0xff && second === 0xfe) return new TextDecoder("utf-16le");
  if (first === 0xfe && second === 0xff) return new TextDecoder("utf-16be");
  const declared = /^\s*<\?xml\s[^>]*?encoding\s*=\s*["']([\w.:-]{1,40})["']/i.exec(
    start.toString("latin1", 0, 200),
  )?.[1];
  if (declared === undefined || /^utf-?16/i.test(declared)) return new TextDecoder();
  try {
    return new TextDecoder(declared);
  } catch {
    return new TextDecoder();
  }
}

function textOf(start: Buffer): string {
  return decoderFor(start).decode(start, { stream: true });
}
