import { randomBytes } from "node:crypto";
import {
  type FileHandle,
  mkdir,
  open,
  readdir,
  readFile,
  rename,
  stat,
  unlink,
  writeFile,
} from "node:fs/promises";
import path from "node:path";
import { z } from "zod";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import { countLines, lastSeqIn } from "./journal-lines.js";

export type JournalOptions = {
  /** Where it is kept; made if it is not there. One process uses it at a time. */
  readonly folder: string;
  /** A segment that has reached this size, in bytes, is followed by a new one. */
  readonly segmentBytes: number;
  /** All of it may take so much on the disk; a segment more while one is written or read. */
  readonly maxBytes: number;
  /** Of this process; the journal sees to it that it is greater than those before. */
  readonly epoch: number;
};

export type JournalDeps = { readonly logger: Logger; readonly clock: Clock };

/** Some lines in a file; or, where lines had to go before anyone had them, how many those were. */
export type Part = {
  readonly kind: "segment" | "gap";
  readonly path: string;
  readonly epoch: number;
  readonly first: number;
  /** Number of its last line; the segment that is written to grows. */
  last: number;
  bytes: number;
};

/** Which lines of which crawls are missing. */
export type Gap = {
  readonly epoch: number;
  readonly first: number;
  readonly last: number;
  /** When the last of them went, in milliseconds since the epoch. */
  readonly at: number;
  /** Lines of each crawl. */
  readonly crawls: Readonly<Record<string, number>>;
};

const gapFile = z.object({
  epoch: z.number(),
  first: z.number(),
  last: z.number(),
  at: z.number(),
  crawls: z.record(z.string(), z.number()),
});
const identityFile = z.object({ journal: z.string().min(1) });
const shippedFile = z.object({ epoch: z.number(), seq: z.number() });

/**
 * Numbered lines in files of bounded size: the node's own memory of its crawls' logs, and what has yet to be
 * shipped. Files go, oldest first, when there are too many bytes of them. One whose lines were not shipped leaves a
 * note of how many of each crawl are missing, in its place, so that they are told of when their turn comes.
 *
 *   000000000000001-1700000000000.ndjson   lines from 1 on, of the process that has this epoch
 *   000000000002301-1700000000000.gap      lines from 2301 on that are missing
 *   journal.json, shipped.json             which disk this is; how far its lines were shipped
 *
 * Written lines are the kernel's at once, so they outlive the process. They are made to reach the disk when their
 * segment is full and at an orderly end; what a machine loses with its power is what was written since, less
 * what was shipped.
 */
export class Journal {
  /** Tells this disk from another one that the node had. */
  readonly id: string;
  readonly epoch: number;
  readonly #options: JournalOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #parts: Part[];
  #nextSeq: number;
  #shipped: number;
  #held: Part | undefined;
  #file: FileHandle | undefined;
  #current: Part | undefined;
  #turn: Promise<void> = Promise.resolve();

  private constructor(
    options: JournalOptions,
    found: { id: string; epoch: number; parts: Part[]; nextSeq: number; shipped: number },
    { logger, clock }: JournalDeps,
  ) {
    this.#options = options;
    this.#logger = logger;
    this.#clock = clock;
    this.id = found.id;
    this.epoch = found.epoch;
    this.#parts = found.parts;
    this.#nextSeq = found.nextSeq;
    this.#shipped = found.shipped;
  }

  /** Takes up what is there, whatever state the last process left it in. */
  static async open(options: JournalOptions, deps: JournalDeps): Promise<Journal> {
    const { folder } = options;
    await mkdir(folder, { recursive: true });
    const id = await identityOf(folder);
    const shipped = await shippedOf(folder);
    const parts = await partsIn(folder);
    const lastSeq = Math.max(parts.at(-1)?.last ?? 0, shipped.seq);
    const epoch = Math.max(options.epoch, shipped.epoch + 1, (parts.at(-1)?.epoch ?? 0) + 1);
    const found = { id, epoch, parts, nextSeq: lastSeq + 1, shipped: shipped.seq };
    const journal = new Journal(options, found, deps);
    await journal.#makeRoom();
    return journal;
  }

  /** The number of the next line. */
  get nextSeq(): number {
    return this.#nextSeq;
  }

  /** Lines up to this one were shipped. */
  get shipped(): number {
    return this.#shipped;
  }

  /** Oldest first. */
  get parts(): readonly Part[] {
    return this.#parts;
  }

  get bytes(): number {
    return this.#parts.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Bytes of parts that have yet to be shipped, or have been in part. */
  get backlogBytes(): number {
    return this.#parts.reduce((sum, { bytes, last }) => (last > this.#shipped ? sum + bytes : sum), 0);
  }

  /**
   * Writes lines, each of which begins with its number and ends with a newline.
   * @returns when they are the kernel's
   */
  async append(text: string, count: number): Promise<void> {
    const part = await this.#segment();
    const bytes = Buffer.from(text);
    try {
      await this.#file?.appendFile(bytes);
    } catch (error) {
      await this.#giveUpSegment(part);
      throw error;
    }
    part.bytes += bytes.length;
    part.last += count;
    this.#nextSeq = part.last + 1;
    // Written is written, whatever becomes of this.
    try {
      if (part.bytes >= this.#options.segmentBytes) await this.#endSegment();
      await this.#inTurn(() => this.#makeRoom());
    } catch (error) {
      this.#logger.error({ error: messageOf(error) }, "could not tidy up the journal of crawls' logs");
    }
  }

  /**
   * The part in which the line after this one is, or should be. It stays as it is until another one is asked for:
   * what is being shipped must not be counted as missing as well.
   */
  async hold(after: number): Promise<Part | undefined> {
    await this.#inTurn(async () => {
      this.#held = this.#parts.find(({ last }) => last > after);
    });
    return this.#held;
  }

  release(): void {
    this.#held = undefined;
  }

  /** Lines up to this one are shipped. Kept, so that the next process knows. */
  async setShipped(seq: number): Promise<void> {
    this.#shipped = Math.max(this.#shipped, seq);
    await this.#inTurn(async () => {
      await this.#write("shipped.json", JSON.stringify({ epoch: this.epoch, seq: this.#shipped }));
      const told = this.#parts.filter(({ kind, last }) => kind === "gap" && last <= this.#shipped);
      for (const part of told) await this.#remove(part);
    });
  }

  async gap(part: Part): Promise<Gap | undefined> {
    return readGap(part.path);
  }

  async close(): Promise<void> {
    await this.#endSegment();
  }

  /** Files come and go one after the other. */
  async #inTurn(run: () => Promise<void>): Promise<void> {
    const mine = this.#turn.then(run);
    this.#turn = mine.catch(() => {});
    await mine;
  }

  async #segment(): Promise<Part> {
    if (this.#current !== undefined) return this.#current;
    const first = this.#nextSeq;
    const file = path.join(this.#options.folder, nameOf(first, this.epoch, "ndjson"));
    this.#file = await open(file, "a");
    const part: Part = { kind: "segment", path: file, epoch: this.epoch, first, last: first - 1, bytes: 0 };
    this.#current = part;
    this.#parts.push(part);
    return part;
  }

  async #endSegment(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#current = undefined;
    try {
      await file?.datasync();
    } finally {
      await file?.close();
    }
  }

  /** Part of a line may stand at its end now; what is written next goes elsewhere. */
  async #giveUpSegment(part: Part): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    this.#current = undefined;
    await file?.truncate(part.bytes).catch(() => {});
    await file?.close().catch(() => {});
    if (part.bytes > 0) return;
    this.#parts = this.#parts.filter((one) => one !== part);
    await unlink(part.path).catch(() => {});
  }

  async #makeRoom(): Promise<void> {
    const { maxBytes, segmentBytes } = this.#options;
    // A process that starts again and again leaves small segments.
    const maxParts = 64 + 4 * Math.ceil(maxBytes / segmentBytes);
    while (this.bytes > maxBytes || this.#parts.length > maxParts) {
      const oldest = this.#parts.find(
        (part) => part.kind === "segment" && part !== this.#current && part !== this.#held,
      );
      if (oldest === undefined) return;
      if (oldest.last > this.#shipped) await this.#noteGap(oldest);
      await this.#remove(oldest);
    }
  }

  /** Before the lines go, so that there is no moment at which neither they nor the note are there. */
  async #noteGap(part: Part): Promise<void> {
    const index = this.#parts.indexOf(part);
    const before = this.#parts[index - 1];
    const isJoined = before?.kind === "gap" && before !== this.#held;
    const earlier = isJoined ? await readGap(before.path) : undefined;
    const crawls = new Map(Object.entries(earlier?.crawls ?? {}));
    for (const [crawl, count] of await countLines(part.path, this.#shipped)) {
      crawls.set(crawl, (crawls.get(crawl) ?? 0) + count);
    }
    const first = earlier?.first ?? Math.max(part.first, this.#shipped + 1);
    const at = this.#clock.now();
    const gap: Gap = { epoch: part.epoch, first, last: part.last, at, crawls: Object.fromEntries(crawls) };
    const name = earlier === undefined ? nameOf(first, part.epoch, "gap") : path.basename(before?.path ?? "");
    const text = JSON.stringify(gap);
    await this.#write(name, text);
    const noted: Part = {
      kind: "gap",
      path: path.join(this.#options.folder, name),
      ...{ epoch: gap.epoch, first, last: gap.last, bytes: text.length },
    };
    const from = earlier === undefined ? index : index - 1;
    this.#parts.splice(from, index - from, noted);
    const lines = [...crawls.values()].reduce((sum, count) => sum + count, 0);
    this.#logger.warn(
      { lines, first, last: gap.last, maxBytes: this.#options.maxBytes },
      "lines of crawls' logs are lost: they could not be shipped for so long that there is no room for them",
    );
  }

  async #remove(part: Part): Promise<void> {
    try {
      await unlink(part.path);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
    this.#parts = this.#parts.filter((one) => one !== part);
  }

  /** All of it or nothing, whenever the process ends. */
  async #write(name: string, text: string): Promise<void> {
    await replaceFile(path.join(this.#options.folder, name), text);
  }
}

async function replaceFile(file: string, text: string): Promise<void> {
  const temporary = `${file}.tmp`;
  await writeFile(temporary, text);
  await rename(temporary, file);
}

function nameOf(first: number, epoch: number, kind: "ndjson" | "gap"): string {
  return `${String(first).padStart(15, "0")}-${epoch}.${kind}`;
}

async function identityOf(folder: string): Promise<string> {
  const file = path.join(folder, "journal.json");
  const known = identityFile.safeParse(await readJson(file));
  if (known.success) return known.data.journal;
  const id = randomBytes(8).toString("hex");
  await replaceFile(file, JSON.stringify({ journal: id }));
  return id;
}

/** Not knowing it costs no more than shipping lines again that are there already. */
async function shippedOf(folder: string): Promise<{ readonly epoch: number; readonly seq: number }> {
  const known = shippedFile.safeParse(await readJson(path.join(folder, "shipped.json")));
  return known.success ? known.data : { epoch: 0, seq: 0 };
}

async function readGap(file: string): Promise<Gap | undefined> {
  const known = gapFile.safeParse(await readJson(file));
  return known.success ? known.data : undefined;
}

async function readJson(file: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(file, "utf8"));
  } catch (error) {
    if (isMissing(error) || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

async function partsIn(folder: string): Promise<Part[]> {
  const parts: Part[] = [];
  for (const name of await readdir(folder)) {
    const file = path.join(folder, name);
    if (name.endsWith(".tmp")) {
      await unlink(file);
      continue;
    }
    const [, first, epoch, kind] = /^(\d{15})-(\d+)\.(ndjson|gap)$/.exec(name) ?? [];
    if (first === undefined || epoch === undefined) continue;
    const { size } = await stat(file);
    const part = { path: file, epoch: Number(epoch), first: Number(first), bytes: size };
    if (kind === "ndjson") {
      const last = await lastSeqIn(file, size);
      // Nothing was written to it that can be read.
      if (last === undefined) await unlink(file);
      else parts.push({ kind: "segment", ...part, last });
    } else {
      const gap = await readGap(file);
      if (gap === undefined) await unlink(file);
      else parts.push({ kind: "gap", ...part, epoch: gap.epoch, last: gap.last });
    }
  }
  parts.sort((a, b) => a.first - b.first || a.last - b.last);
  return withoutNoted(parts);
}

/** A segment whose lines were noted as missing was about to be removed. */
async function withoutNoted(parts: readonly Part[]): Promise<Part[]> {
  const gaps = parts.filter(({ kind }) => kind === "gap");
  const kept: Part[] = [];
  for (const part of parts) {
    const isNoted = gaps.some((gap) => gap !== part && gap.first <= part.last && part.last <= gap.last);
    if (isNoted) await unlink(part.path);
    else kept.push(part);
  }
  return kept;
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}
