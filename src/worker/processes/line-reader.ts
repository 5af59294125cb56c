/** One line of output. */
export type Line = {
  /** Without its end. Bytes that are no UTF-8 are U+FFFD. */
  readonly text: string;
  /** It was longer than is read, and is not whole. */
  readonly isCut: boolean;
};

const NEWLINE = 0x0a;
const RETURN = 0x0d;

/**
 * Parts a stream of bytes into lines, which end with LF or CRLF. Holds one line at most, and of that no more than
 * `maxBytes`: what is longer is cut, and the rest of it passed over.
 */
export class LineReader {
  readonly #maxBytes: number;
  readonly #decoder = new TextDecoder();
  #parts: Uint8Array[] = [];
  #bytes = 0;
  #isCut = false;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The lines that end in this chunk. */
  *take(chunk: Uint8Array): Generator<Line> {
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(NEWLINE, from);
      if (end < 0) break;
      this.#keep(chunk.subarray(from, end));
      yield this.#line();
      from = end + 1;
    }
    this.#keep(chunk.subarray(from));
  }

  /** What was left without an end when the stream was over. */
  rest(): Line | undefined {
    return this.#bytes === 0 ? undefined : this.#line();
  }

  #keep(part: Uint8Array): void {
    const free = this.#maxBytes - this.#bytes;
    if (part.length > free) this.#isCut = true;
    if (free <= 0 || part.length === 0) return;
    const kept = part.length > free ? part.subarray(0, free) : part;
    this.#parts.push(kept);
    this.#bytes += kept.length;
  }

  #line(): Line {
    const isCut = this.#isCut;
    const [first = new Uint8Array()] = this.#parts;
    const bytes = this.#parts.length > 1 ? Buffer.concat(this.#parts) : first;
    this.#parts = [];
    this.#bytes = 0;
    this.#isCut = false;
    if (isCut) {
      // A character that was cut in two is left out.
      const text = this.#decoder.decode(bytes, { stream: true });
      this.#decoder.decode();
      return { text, isCut };
    }
    const end = bytes.at(-1) === RETURN ? bytes.length - 1 : bytes.length;
    return { text: this.#decoder.decode(bytes.subarray(0, end)), isCut };
  }
}
