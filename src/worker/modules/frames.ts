import type { Writable } from "node:stream";
import { deserialize, serialize } from "node:v8";

/** A message between a worker and a process of its spiders, and the bytes that go with it. */
export type Frame = {
  readonly head: unknown;
  readonly body: Buffer;
  /** Of all of it. */
  readonly bytes: number;
};

/** Of one frame, without its lengths: a page's body has a quarter of that at most, unless it is set to more. */
const MAX_FRAME_BYTES = 64 * 1_048_576;
const PREFIX_BYTES = 8;
/** Up to this size a frame is put together, so that it is one write; above, the body is not copied. */
const COPIED_BYTES = 65_536;

/**
 * Writes one frame: the lengths of head and body in 4 bytes each (little endian), the head as V8 serialises it, and
 * the body as it is, so that a page's bytes are neither copied nor encoded.
 * @throws Error if the head holds what cannot be sent (a function, a symbol), or the frame is too large
 */
export function writeFrame(stream: Writable, head: unknown, body?: Uint8Array): void {
  const headBytes = serialize(head);
  const bytes = headBytes.length + (body?.length ?? 0);
  if (bytes > MAX_FRAME_BYTES) throw tooLarge(bytes);
  const prefix = Buffer.allocUnsafe(PREFIX_BYTES);
  prefix.writeUInt32LE(headBytes.length, 0);
  prefix.writeUInt32LE(body?.length ?? 0, 4);
  if (body === undefined || body.length <= COPIED_BYTES) {
    stream.write(Buffer.concat(body === undefined ? [prefix, headBytes] : [prefix, headBytes, body]));
    return;
  }
  stream.cork();
  stream.write(prefix);
  stream.write(headBytes);
  stream.write(body);
  stream.uncork();
}

/** Finds the frames in what comes in pieces. */
export class FrameReader {
  readonly #onFrame: (frame: Frame) => void;
  #pieces: Buffer[] = [];
  #bytes = 0;
  /** Of the frame that has begun to come; 0 until its lengths are known. */
  #headBytes = 0;
  #wanted = 0;

  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /** @throws Error when what came is no frame, or too large a one: nothing after it can be understood */
  push(piece: Buffer): void {
    this.#pieces.push(piece);
    this.#bytes += piece.length;
    for (;;) {
      if (this.#wanted === 0) {
        if (this.#bytes < PREFIX_BYTES) return;
        const start = this.#joined(PREFIX_BYTES);
        this.#headBytes = start.readUInt32LE(0);
        const bodyBytes = start.readUInt32LE(4);
        this.#wanted = PREFIX_BYTES + this.#headBytes + bodyBytes;
        if (this.#wanted > MAX_FRAME_BYTES + PREFIX_BYTES) throw tooLarge(this.#wanted - PREFIX_BYTES);
      }
      if (this.#bytes < this.#wanted) return;
      const whole = this.#joined(this.#wanted);
      const bodyAt = PREFIX_BYTES + this.#headBytes;
      const head: unknown = deserialize(whole.subarray(PREFIX_BYTES, bodyAt));
      const body = whole.subarray(bodyAt, this.#wanted);
      const bytes = this.#wanted;
      const rest = whole.subarray(this.#wanted);
      this.#pieces = rest.length === 0 ? [] : [rest];
      this.#bytes = rest.length;
      this.#wanted = 0;
      this.#onFrame({ head, body, bytes });
    }
  }

  /** What came so far, with at least so many bytes in one piece. A frame is joined once, when all of it is there. */
  #joined(bytes: number): Buffer {
    const [first] = this.#pieces;
    if (first !== undefined && first.length >= bytes) return first;
    const whole = Buffer.concat(this.#pieces, this.#bytes);
    this.#pieces = [whole];
    return whole;
  }
}

function tooLarge(bytes: number): Error {
  return new Error(`a message of ${bytes} bytes; ${MAX_FRAME_BYTES} at most are taken`);
}
