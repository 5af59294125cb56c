import { createHash, randomBytes } from "node:crypto";
import { Binary, type Collection, type Filter } from "mongodb";
import { z } from "zod";
import type { Death } from "../crawl/suspicion.js";
import type { Clock } from "../lib/clock.js";
import { NotFoundError } from "./errors.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { Retrier } from "./retrier.js";

/** A worker that ended while it ran a URL alone. */
export type Crash = { readonly node: string /** In milliseconds since the epoch. */; readonly at: number };

/** A message given up, as whoever gave it up knows it. */
export type NewDeadLetter = {
  readonly reason: string;
  readonly error: string;
  /** The queue in which it was. */
  readonly firstQueue: string;
  /** How often it had been handed out, as far as that is known. */
  readonly count: number;
  /** When it was given up, in milliseconds since the epoch. */
  readonly at: number;
  readonly body: Buffer;
  readonly contentType: string | undefined;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly messageId: string | undefined;
  readonly replyTo: string | undefined;
  readonly correlationId: string | undefined;
  /** Whether the broker has handed it out before: then it may be on record already. */
  readonly redelivered?: boolean;
  readonly url?: string;
  readonly host?: string;
  readonly crawl?: string;
  /** Of a URL that ended its workers. */
  readonly crashes?: readonly Death[];
};

/** A dead letter on record. */
export type DeadLetterRecord = Omit<NewDeadLetter, "redelivered" | "headers"> & {
  readonly id: string;
  /** Bytes of the body as it came; `body` has no more than the first 256 KiB of it. */
  readonly bytes: number;
  /** Undefined when there were more than are kept. */
  readonly headers: Readonly<Record<string, unknown>> | undefined;
};

/** What letters have in common; all members must hold. */
export type DeadLetterFilter = {
  readonly reason?: string;
  readonly host?: string;
  readonly crawl?: string;
  /** A part of the error's text; upper and lower case are the same. */
  readonly error?: string;
};

export type DeadLetterDocument = {
  readonly _id: string;
  /** Of everything that came with the message: tells a message that comes again without an id of its own. */
  readonly digest: string;
  readonly reason: string;
  readonly error: string;
  readonly firstQueue: string;
  readonly count: number;
  readonly at: number;
  readonly expiresAt: Date;
  readonly body: Binary;
  readonly bytes: number;
  readonly contentType?: string;
  /** As JSON text: a header may have any name. */
  readonly headers?: string;
  readonly messageId?: string;
  readonly replyTo?: string;
  readonly correlationId?: string;
  readonly url?: string;
  readonly host?: string;
  readonly crawl?: string;
  readonly crashes?: readonly Death[];
  /** Someone is about to replay it. */
  readonly claim?: { readonly token: string; readonly until: number };
};

export type DeadLettersOptions = {
  /** Letters kept at most; the oldest go first. @default 10_000 */
  readonly maxRecords: number;
  /** How long one is kept, in milliseconds. @default 30 days */
  readonly keptForMs: number;
};

export const DEAD_LETTERS_DEFAULTS: DeadLettersOptions = {
  maxRecords: 10_000,
  keptForMs: 30 * 86_400_000,
};

/** As much of a body as is kept: all of any message that would have been taken. */
const MAX_BODY_BYTES = 256 * 1_024;

const MAX_HEADERS_CHARACTERS = 65_536;

/** Age up to which a message that comes again is taken for the one on record, in milliseconds. */
const COMES_AGAIN_WITHIN_MS = 3_600_000;

/** Letters recorded by this process after which it looks whether there are too many. */
const TRIM_EVERY = 1_000;

/** How long whoever replays a letter keeps others from doing so, in milliseconds. */
const CLAIM_MS = 60_000;

const position = z.tuple([z.number(), z.string()]);

/**
 * Messages given up, so that someone can look at them, hand them in again or discard them. Bounded in number,
 * in age, and each in size: a flood of garbage displaces older garbage and costs nothing else.
 */
export class DeadLetters {
  readonly #letters: Collection<DeadLetterDocument>;
  readonly #retrier: Retrier;
  readonly #clock: Clock;
  readonly #options: DeadLettersOptions;
  #recordedSinceTrim = 0;

  constructor(
    deps: {
      readonly letters: Collection<DeadLetterDocument>;
      readonly retrier: Retrier;
      readonly clock: Clock;
    },
    options: Partial<DeadLettersOptions> = {},
  ) {
    this.#letters = deps.letters;
    this.#retrier = deps.retrier;
    this.#clock = deps.clock;
    this.#options = { ...DEAD_LETTERS_DEFAULTS, ...options };
  }

  /**
   * Keeps letters, all with one command. One that is on record already stays as it is: told by its message id
   * and content; one without an id by its content, if the broker says that it comes again.
   * @throws StoreUnavailableError
   */
  async record(letters: readonly NewDeadLetter[]): Promise<void> {
    if (letters.length === 0) return;
    const writes = letters.map((letter) => {
      const { _id, count, ...fields } = this.#toDocument(letter);
      const isKnownByDigest = letter.messageId === undefined && letter.redelivered === true;
      return {
        updateOne: {
          filter: isKnownByDigest
            ? { digest: fields.digest, at: { $gt: letter.at - COMES_AGAIN_WITHIN_MS } }
            : { _id },
          update: {
            $setOnInsert: isKnownByDigest ? { _id, ...fields } : fields,
            $max: { count },
          },
          upsert: true,
        },
      };
    });
    await this.#retrier.run("record dead letters", () => this.#letters.bulkWrite(writes, { ordered: false }));
    this.#recordedSinceTrim += letters.length;
    if (this.#recordedSinceTrim >= Math.min(TRIM_EVERY, this.#options.maxRecords)) await this.trim();
  }

  /** Removes the oldest of those that are too many. @returns how many those were */
  async trim(): Promise<number> {
    this.#recordedSinceTrim = 0;
    const [first] = await this.#letters
      .find({}, { projection: { at: 1 } })
      .sort({ at: -1, _id: -1 })
      .skip(this.#options.maxRecords)
      .limit(1)
      .toArray();
    if (first === undefined) return 0;
    const { at, _id } = first;
    const { deletedCount } = await this.#letters.deleteMany({
      $or: [{ at: { $lt: at } }, { at, _id: { $lte: _id } }],
    });
    return deletedCount;
  }

  async get(id: string): Promise<DeadLetterRecord | undefined> {
    const document = await this.#letters.findOne({ _id: id });
    return document === null ? undefined : toRecord(document);
  }

  /** Whether there are more than so many: of a crawl, or of all. */
  async areMoreThan(most: number, crawl?: string): Promise<boolean> {
    const filter = crawl === undefined ? {} : { crawl };
    return (await this.#letters.countDocuments(filter, { limit: most + 1 })) > most;
  }

  /** Newest first. */
  async list(filter: DeadLetterFilter, options: ListOptions = {}): Promise<ListPage<DeadLetterRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const wanted: Filter<DeadLetterDocument> = queryOf(filter);
    if (cursor !== undefined) {
      const [at, _id] = decodeCursor(cursor, position);
      wanted.$or = [{ at: { $lt: at } }, { at, _id: { $lt: _id } }];
    }
    const documents = await this.#letters
      .find(wanted)
      .sort({ at: -1, _id: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ at, _id }) => encodeCursor([at, _id]));
  }

  /**
   * Takes letters that are to be replayed, oldest first, out of the hands of others for a minute.
   * @param filter also by `id`, one letter
   * @param before only those given up until then: one that fails again meanwhile is not replayed twice
   */
  async claim(
    filter: DeadLetterFilter & { readonly id?: string },
    limit: number,
    before = this.#clock.now(),
  ): Promise<readonly DeadLetterRecord[]> {
    const now = this.#clock.now();
    const { id, ...others } = filter;
    const isFree: Filter<DeadLetterDocument> = {
      $or: [{ claim: { $exists: false } }, { "claim.until": { $lt: now } }],
    };
    const found = await this.#letters
      .find({ ...queryOf(others), ...(id !== undefined && { _id: id }), at: { $lte: before }, ...isFree })
      .project<{ _id: string }>({ _id: 1 })
      .sort({ at: 1, _id: 1 })
      .limit(limit)
      .toArray();
    if (found.length === 0) return [];
    const ids = found.map(({ _id }) => _id);
    const claim = { token: randomBytes(9).toString("base64url"), until: now + CLAIM_MS };
    await this.#letters.updateMany({ _id: { $in: ids }, ...isFree }, { $set: { claim } });
    const claimed = await this.#letters
      .find({ _id: { $in: ids }, "claim.token": claim.token })
      .sort({ at: 1, _id: 1 })
      .toArray();
    return claimed.map(toRecord);
  }

  /** Gives back what was claimed and could not be replayed. */
  async release(ids: readonly string[]): Promise<void> {
    await this.#letters.updateMany({ _id: { $in: [...ids] } }, { $unset: { claim: "" } });
  }

  /** Removes letters by id; harmless when they are gone. */
  async remove(ids: readonly string[]): Promise<void> {
    await this.#retrier.run("remove dead letters", () =>
      this.#letters.deleteMany({ _id: { $in: [...ids] } }),
    );
  }

  /** @throws NotFoundError */
  async discard(id: string): Promise<void> {
    const { deletedCount } = await this.#letters.deleteOne({ _id: id });
    if (deletedCount === 0) throw new NotFoundError("dead letter", id);
  }

  /** @returns how many there were */
  async discardAll(filter: DeadLetterFilter): Promise<number> {
    return (await this.#letters.deleteMany(queryOf(filter))).deletedCount;
  }

  #toDocument(letter: NewDeadLetter): DeadLetterDocument {
    const { body, headers, redelivered: _redelivered, messageId, ...fields } = letter;
    const headersText = textOf(headers);
    const digest = digestOf([
      body,
      letter.contentType,
      messageId,
      letter.replyTo,
      letter.correlationId,
      headersText,
    ]);
    const own = messageId === undefined ? randomBytes(12).toString("hex") : digest;
    return {
      ...withoutUndefined(fields),
      _id: own.slice(0, 24),
      digest,
      expiresAt: new Date(letter.at + this.#options.keptForMs),
      body: new Binary(body.subarray(0, MAX_BODY_BYTES)),
      bytes: body.length,
      ...(messageId !== undefined && { messageId }),
      ...(headersText.length <= MAX_HEADERS_CHARACTERS && { headers: headersText }),
    };
  }
}

type Defined<Fields> = {
  [Name in keyof Fields as undefined extends Fields[Name] ? never : Name]: Fields[Name];
} & { [Name in keyof Fields as undefined extends Fields[Name] ? Name : never]?: NonNullable<Fields[Name]> };

function withoutUndefined<Fields extends object>(fields: Fields): Defined<Fields> {
  return Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined),
  ) as Defined<Fields>;
}

function digestOf(parts: readonly (Buffer | string | undefined)[]): string {
  const hash = createHash("sha256");
  for (const part of parts) {
    // Lengths, so that no two lists of parts look the same.
    hash.update(part === undefined ? "-" : `${part.length}:`);
    if (part !== undefined) hash.update(part);
  }
  return hash.digest("hex");
}

function queryOf({ reason, host, crawl, error }: DeadLetterFilter): Filter<DeadLetterDocument> {
  return {
    ...(reason !== undefined && { reason }),
    ...(host !== undefined && { host }),
    ...(crawl !== undefined && { crawl }),
    ...(error !== undefined && { error: { $regex: literal(error), $options: "i" } }),
  };
}

function literal(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&");
}

/** Headers hold what AMQP has and JSON lacks: bytes. */
function textOf(headers: Readonly<Record<string, unknown>>): string {
  return JSON.stringify(headers);
}

function headersOf(text: string): Readonly<Record<string, unknown>> {
  return JSON.parse(text, (_, value: unknown) => (isBytes(value) ? Buffer.from(value.data) : value));
}

function isBytes(value: unknown): value is { readonly data: readonly number[] } {
  if (typeof value !== "object" || value === null) return false;
  return "type" in value && value.type === "Buffer" && "data" in value && Array.isArray(value.data);
}

function toRecord(document: DeadLetterDocument): DeadLetterRecord {
  const { _id, digest: _digest, expiresAt: _expiresAt, claim: _claim, body, headers, ...fields } = document;
  return {
    contentType: undefined,
    messageId: undefined,
    replyTo: undefined,
    correlationId: undefined,
    ...fields,
    id: _id,
    body: Buffer.from(body.buffer),
    headers: headers === undefined ? undefined : headersOf(headers),
  };
}
