import type { Dispatcher } from "undici";
import type { FetchError } from "../errors.js";
import { type ContentDecoder, tooLarge } from "./content-coding.js";

/** Bytes held for a body that nobody reads yet, before its connection is told to wait. */
const HIGH_WATER_BYTES = 262_144;
/** What is left of an unwanted body is read on if it is so short: cheaper than a new connection. */
const DUMPED_BYTES = 65_536;
/** The same when someone else hears it: as much as a page may have by default. */
const READ_ON_BYTES = 16 * 1_048_576;
/**
 * Bytes off the wire from which the beginning of an encoded body is told: few, then as many as the first block
 * of zstd may take (RFC 8878, 3.1.1.2.4), which gives nothing before it is whole.
 */
const ENCODED_START_BYTES = [4_096, 140_000] as const;
/** What those may decode to. */
const DECODED_START_BYTES = 8 * 1_048_576;

export interface FetchedBody {
  /** Bytes that have come off the wire so far. */
  readonly receivedBytes: number;
  /**
   * All of the body, decoded. The limit counts on the wire and after decoding.
   * @throws FetchError `too-large`, `decode`, `network` or `timeout`
   */
  read(maxBytes: number): Promise<Buffer>;
  /**
   * Its first bytes, decoded; fewer if it has no more. It can still be read after that.
   * @throws FetchError `network` or `timeout`
   */
  peek(bytes: number): Promise<Buffer>;
  /**
   * The body as it comes in, decoded. A consumer that leaves early ends the fetch.
   * @throws FetchError `too-large` after `maxBytes` were yielded, `decode`, `network` or `timeout`
   */
  stream(maxBytes: number): AsyncIterable<Buffer>;
  /** Says that the body is not wanted: a short rest is read so that the connection can serve again. */
  discard(): void;
}

export type ResponseBodyOptions = {
  readonly url: string;
  readonly controller: Dispatcher.DispatchController;
  /** The server's word for its length on the wire, if it gave one. */
  readonly declaredBytes?: number;
  readonly decoder?: ContentDecoder;
  /** Someone else hears the body too: what is not wanted here is read to its end all the same. @default false */
  readonly readsOn?: boolean;
};

/**
 * A response's body between the connection, which pushes, and whoever fetched, who pulls.
 *
 * It does without a stream: most bodies are read whole, arrive in one or two pieces, and are over before
 * they are asked for. Nothing is held back from a reader; unread bytes are bounded by pausing the connection.
 */
export class ResponseBody implements FetchedBody {
  readonly #url: string;
  readonly #controller: Dispatcher.DispatchController;
  readonly #declaredBytes: number | undefined;
  readonly #decoder: ContentDecoder | undefined;
  readonly #readsOn: boolean;
  /** Received and not yet handed on. */
  #chunks: Buffer[] = [];
  #heldBytes = 0;
  #receivedBytes = 0;
  /** More than this on the wire is too much; set by the reader. */
  #maxWireBytes = Number.POSITIVE_INFINITY;
  #holdsWhole = false;
  /** The connection was told to wait since it was last asked how much came. */
  #wasHeldBack = false;
  #isDumped = false;
  #isOver = false;
  #failure: FetchError | undefined;
  #wake: (() => void) | undefined;

  constructor(options: ResponseBodyOptions) {
    this.#url = options.url;
    this.#controller = options.controller;
    this.#declaredBytes = options.declaredBytes;
    this.#decoder = options.decoder;
    this.#readsOn = options.readsOn ?? false;
  }

  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  /** A piece came in. */
  push(chunk: Buffer): void {
    if (this.#failure !== undefined) return;
    this.#receivedBytes += chunk.length;
    if (this.#receivedBytes > this.#maxWireBytes) {
      this.#stop(tooLarge(this.#url, this.#maxWireBytes));
      return;
    }
    if (this.#isDumped) return;
    this.#chunks.push(chunk);
    this.#heldBytes += chunk.length;
    if (this.#holdsWhole) return;
    if (this.#heldBytes >= HIGH_WATER_BYTES) {
      this.#wasHeldBack = true;
      this.#controller.pause();
    }
    this.#wakeReader();
  }

  /** Bytes that came so far; undefined when it was the reader who held them back since this was last asked. */
  meter(): number | undefined {
    const wasHeldBack = this.#wasHeldBack;
    this.#wasHeldBack = !this.#holdsWhole && this.#heldBytes >= HIGH_WATER_BYTES;
    return wasHeldBack ? undefined : this.#receivedBytes;
  }

  /** It came to its end. */
  end(): void {
    this.#isOver = true;
    this.#wakeReader();
  }

  /** It will not come to its end. Who streams it still gets what came: the rest may be had in another way. */
  fail(failure: FetchError): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#failure ??= failure;
    this.#wakeReader();
  }

  async read(maxBytes: number): Promise<Buffer> {
    this.#limit(maxBytes);
    this.#holdsWhole = true;
    this.#controller.resume();
    while (!this.#isOver) await this.#change();
    this.#check();
    const [first = Buffer.alloc(0), ...more] = this.#chunks;
    const body = more.length === 0 ? first : Buffer.concat(this.#chunks, this.#heldBytes);
    this.#chunks = [];
    return this.#decoder === undefined ? body : this.#decoder.decode(body, maxBytes);
  }

  async peek(bytes: number): Promise<Buffer> {
    if (this.#decoder === undefined) {
      return this.#hold(bytes);
    }
    let start: Buffer = Buffer.alloc(0);
    for (const encodedBytes of ENCODED_START_BYTES) {
      const encoded = await this.#hold(encodedBytes);
      start = this.#decoder.decodeStart(encoded, DECODED_START_BYTES);
      if (start.length >= bytes || (this.#isOver && this.#heldBytes <= encodedBytes)) break;
    }
    return start.subarray(0, bytes);
  }

  async *stream(maxBytes: number): AsyncGenerator<Buffer> {
    let bytes = 0;
    try {
      this.#limit(maxBytes);
      for await (const chunk of await this.#decoded()) {
        bytes += chunk.length;
        if (bytes > maxBytes) throw tooLarge(this.#url, maxBytes);
        yield chunk;
      }
    } finally {
      this.#abort();
    }
  }

  discard(): void {
    if (this.#isOver) return;
    this.#isDumped = true;
    this.#chunks = [];
    const rest = (this.#declaredBytes ?? 0) - this.#receivedBytes;
    const bound = this.#readsOn ? READ_ON_BYTES : DUMPED_BYTES;
    if (rest > bound) {
      this.#abort();
      return;
    }
    this.#maxWireBytes = this.#receivedBytes + bound;
    this.#controller.resume();
  }

  async #decoded(): Promise<AsyncIterable<Buffer>> {
    if (this.#decoder === undefined) return this.#pieces();
    const firstBytes = await this.#hold(2);
    if (firstBytes.length === 0) return this.#pieces();
    return this.#decoder.stream(this.#pieces(), firstBytes);
  }

  async *#pieces(): AsyncGenerator<Buffer> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#heldBytes -= chunk.length;
        if (this.#heldBytes < HIGH_WATER_BYTES) this.#controller.resume();
        yield chunk;
      } else if (this.#isOver) {
        this.#check();
        return;
      } else {
        await this.#change();
      }
    }
  }

  /** The first bytes off the wire, as many as asked for or as there are; they are kept. */
  async #hold(bytes: number): Promise<Buffer> {
    while (!this.#isOver && this.#heldBytes < Math.min(bytes, HIGH_WATER_BYTES)) await this.#change();
    if (this.#heldBytes < bytes) this.#check();
    const [first = Buffer.alloc(0)] = this.#chunks;
    const held = first.length >= bytes ? first : Buffer.concat(this.#chunks);
    return held.subarray(0, bytes);
  }

  #limit(maxBytes: number): void {
    if (this.#chunks.length === 0) this.#check();
    this.#maxWireBytes = maxBytes;
    const known = this.#isOver ? this.#receivedBytes : (this.#declaredBytes ?? 0);
    if (Math.max(known, this.#receivedBytes) > maxBytes) this.#stop(tooLarge(this.#url, maxBytes));
    if (this.#chunks.length === 0) this.#check();
  }

  #check(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  #wakeReader(): void {
    const wake = this.#wake;
    this.#wake = undefined;
    wake?.();
  }

  /** Ends it because of what it is. */
  #stop(failure: FetchError): void {
    this.#failure = failure;
    this.#chunks = [];
    this.#heldBytes = 0;
    this.#abort(failure);
    this.#isOver = true;
    this.#wakeReader();
  }

  #abort(reason: Error = new Error("the body is not wanted")): void {
    if (!this.#isOver) this.#controller.abort(reason);
  }
}
