import { Readable, type Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import * as zlib from "node:zlib";
import { messageOf } from "../../lib/errors.js";
import { FetchError } from "../errors.js";

/** How one content coding (RFC 9110, 8.4.1) is undone. */
type Coding = {
  readonly decodeSync: (body: Buffer, maxBytes: number) => Buffer;
  readonly decode: (body: Buffer, maxBytes: number, done: zlib.CompressCallback) => void;
  readonly createStream: (firstBytes: Buffer) => Transform;
};

// A stream cut short or without its checksum is decoded as far as it goes, as browsers do: whether all of the
// body came is for HTTP to say.
const LENIENT: zlib.ZlibOptions = { finishFlush: zlib.constants.Z_SYNC_FLUSH, chunkSize: 65_536 };
const LENIENT_BROTLI: zlib.BrotliOptions = {
  flush: zlib.constants.BROTLI_OPERATION_FLUSH,
  finishFlush: zlib.constants.BROTLI_OPERATION_FLUSH,
  chunkSize: 65_536,
};

const GZIP: Coding = {
  decodeSync: (body, maxOutputLength) => zlib.gunzipSync(body, { ...LENIENT, maxOutputLength }),
  decode: (body, maxOutputLength, done) => zlib.gunzip(body, { ...LENIENT, maxOutputLength }, done),
  createStream: () => zlib.createGunzip(LENIENT),
};

/** `deflate` means the zlib format, but many servers send bare deflate (RFC 9110, 8.4.1.2). */
const DEFLATE: Coding = {
  decodeSync: (body, maxOutputLength) =>
    isZlib(body)
      ? zlib.inflateSync(body, { ...LENIENT, maxOutputLength })
      : zlib.inflateRawSync(body, { ...LENIENT, maxOutputLength }),
  decode: (body, maxOutputLength, done) =>
    isZlib(body)
      ? zlib.inflate(body, { ...LENIENT, maxOutputLength }, done)
      : zlib.inflateRaw(body, { ...LENIENT, maxOutputLength }, done),
  createStream: (firstBytes) =>
    isZlib(firstBytes) ? zlib.createInflate(LENIENT) : zlib.createInflateRaw(LENIENT),
};

const BROTLI: Coding = {
  decodeSync: (body, maxOutputLength) =>
    zlib.brotliDecompressSync(body, { ...LENIENT_BROTLI, maxOutputLength }),
  decode: (body, maxOutputLength, done) =>
    zlib.brotliDecompress(body, { ...LENIENT_BROTLI, maxOutputLength }, done),
  createStream: () => zlib.createBrotliDecompress(LENIENT_BROTLI),
};

function isZlib(body: Buffer): boolean {
  const [method = 0, flags = 0] = body;
  return (method & 0x0f) === 8 && ((method << 8) | flags) % 31 === 0;
}

/** The part of `node:zlib` that Node has from 22.15 on. */
type Zstd = {
  zstdDecompressSync(body: Buffer, options: ZstdOptions): Buffer;
  zstdDecompress(body: Buffer, options: ZstdOptions, done: zlib.CompressCallback): void;
  createZstdDecompress(options: ZstdOptions): Transform;
};
type ZstdOptions = {
  readonly finishFlush: number;
  readonly params: Readonly<Record<number, number>>;
  readonly maxOutputLength?: number;
};

/**
 * `ZSTD_e_flush`: what is cut short is decoded as far as it goes, as with the others. `ZSTD_d_windowLogMax`: a
 * window takes its size in memory, and RFC 9659 lets a server choose 8 MiB at most.
 */
const LENIENT_ZSTD: ZstdOptions = { finishFlush: 1, params: { 100: 23 } };

function zstdCoding(): Coding | undefined {
  if (!("createZstdDecompress" in zlib)) return undefined;
  const { zstdDecompressSync, zstdDecompress, createZstdDecompress } = zlib as unknown as Zstd;
  return {
    decodeSync: (body, maxOutputLength) => zstdDecompressSync(body, { ...LENIENT_ZSTD, maxOutputLength }),
    decode: (body, maxOutputLength, done) => zstdDecompress(body, { ...LENIENT_ZSTD, maxOutputLength }, done),
    createStream: () => createZstdDecompress(LENIENT_ZSTD),
  };
}

const ZSTD = zstdCoding();

const CODINGS: ReadonlyMap<string, Coding> = new Map<string, Coding>([
  ["gzip", GZIP],
  ["x-gzip", GZIP],
  ["deflate", DEFLATE],
  ["br", BROTLI],
  ...(ZSTD === undefined ? [] : ([["zstd", ZSTD]] satisfies [string, Coding][])),
]);

/** What is offered as `accept-encoding`. */
export const ACCEPTED_ENCODINGS = ZSTD === undefined ? "gzip, deflate, br" : "gzip, deflate, br, zstd";

/** Real servers apply one coding; each further one is another chance for a bomb. */
const MAX_CODINGS = 3;
/** Up to this size a body is decoded at once: quicker than a round trip through a thread. */
const SYNC_BYTES = 32_768;

/** Undoes the content codings of one response, innermost last, and never yields more than it is told to. */
export class ContentDecoder {
  readonly #codings: readonly Coding[];
  readonly #url: string;

  private constructor(codings: readonly Coding[], url: string) {
    this.#codings = codings;
    this.#url = url;
  }

  /**
   * The decoder for a `content-encoding`, undefined when there is nothing to undo. Words that name no coding
   * are passed over, as browsers do: servers put character sets there.
   * @throws FetchError (`decode`) for a coding that was not offered and cannot be undone
   */
  static for(contentEncoding: string | undefined, url: string): ContentDecoder | undefined {
    if (contentEncoding === undefined) return undefined;
    const codings: Coding[] = [];
    for (const part of contentEncoding.toLowerCase().split(",", 32)) {
      const name = part.trim();
      const coding = CODINGS.get(name);
      if (coding !== undefined) codings.unshift(coding);
      else if (["zstd", "compress", "x-compress", "dcb", "dcz"].includes(name)) {
        throw new FetchError("decode", `${url}: content coding "${name}" cannot be decoded here`);
      }
    }
    if (codings.length > MAX_CODINGS) {
      throw new FetchError("decode", `${url}: ${codings.length} content codings on top of each other`);
    }
    return codings.length === 0 ? undefined : new ContentDecoder(codings, url);
  }

  /** @throws FetchError `too-large` as soon as more than `maxBytes` came out, or `decode` */
  async decode(body: Buffer, maxBytes: number): Promise<Buffer> {
    let decoded = body;
    for (const coding of this.#codings) {
      if (decoded.length === 0) return decoded;
      try {
        decoded =
          decoded.length <= SYNC_BYTES
            ? coding.decodeSync(decoded, maxBytes)
            : await decodeInThread(coding, decoded, maxBytes);
      } catch (error) {
        throw this.#failureOf(error, maxBytes);
      }
    }
    return decoded;
  }

  /** What the beginning of a body decodes to, as far as that can be told; empty when it cannot. */
  decodeStart(start: Buffer, maxBytes: number): Buffer {
    let decoded = start;
    for (const coding of this.#codings) {
      try {
        decoded = coding.decodeSync(decoded, maxBytes);
      } catch {
        return Buffer.alloc(0);
      }
    }
    return decoded;
  }

  /** The body decoded as it streams in. The caller counts, and stops when it has enough. */
  async *stream(body: AsyncIterable<Buffer>, firstBytes: Buffer): AsyncGenerator<Buffer> {
    const [first, ...rest] = this.#codings.map((coding) => coding.createStream(firstBytes));
    if (first === undefined) return;
    const last = rest.at(-1) ?? first;
    // Failures are reported through `last`, which the pipeline destroys with the same error.
    pipeline([Readable.from(body), first, ...rest]).catch(() => {});
    try {
      for await (const chunk of last) yield chunk;
    } catch (error) {
      throw error instanceof FetchError ? error : this.#failureOf(error, 0);
    } finally {
      // The pipeline is not awaited: its source may be waiting for bytes that the caller will see to.
      last.destroy();
    }
  }

  #failureOf(error: unknown, maxBytes: number): FetchError {
    if (error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE") {
      return tooLarge(this.#url, maxBytes, { cause: error });
    }
    return new FetchError("decode", `${this.#url}: the body does not decode: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function decodeInThread(coding: Coding, body: Buffer, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    coding.decode(body, maxBytes, (error, decoded) => (error === null ? resolve(decoded) : reject(error)));
  });
}

/** The failure of a body that is longer than was asked for. */
export function tooLarge(url: string, maxBytes: number, options?: ErrorOptions): FetchError {
  return new FetchError("too-large", `${url}: the body is larger than ${maxBytes} bytes`, options);
}
