import type { Collection, Filter } from "mongodb";
import type { EndState } from "../crawl/frontier.js";
import type { Clock } from "../lib/clock.js";
import type { TraceContext } from "../lib/trace-context.js";
import type { Retrier } from "./retrier.js";
import type { UrlDocument } from "./url-document.js";

/** Who handed in a URL and wants to hear of its end. */
export type ExpectedReply = {
  /** Unique; the same again is the same reply. */
  readonly id: string;
  readonly crawl: string;
  readonly urlId: string;
  readonly url: string;
  /** Queue to answer to. */
  readonly replyTo: string;
  readonly correlationId?: string;
  /** The trace to which it belongs. */
  readonly trace?: TraceContext;
};

/** An end of a URL, with the URLs found on it that count as part of it and have not ended. */
export type EndedUrl = { readonly id: string; readonly children: readonly string[] };

/** An answer to be sent. */
export type DueReply = {
  readonly id: string;
  readonly crawl: string;
  readonly replyTo: string;
  readonly correlationId?: string;
  /** The trace to which it belongs. */
  readonly trace?: TraceContext;
  readonly body: {
    readonly url: string;
    readonly state: EndState;
    readonly statusCode?: number;
    /** Items and files of the URL and of the files found on its page. */
    readonly items: number;
    readonly files: number;
    readonly error?: string;
  };
};

/** `_id` is the expected reply's id. */
export type ReplyDocument = Omit<ExpectedReply, "id"> & {
  readonly _id: string;
  /** URLs whose end is waited for. */
  readonly waiting: readonly string[];
  /** The URL itself and those found on its page. */
  readonly urls: readonly string[];
  readonly at: number;
  /** While someone sends it: until when that is left to them. */
  readonly sendingUntil?: number;
  /** What is sent, the same each time. */
  readonly body?: DueReply["body"];
};

const SWEEP_BATCH = 500;

/** Time for whoever has a reply to send it, before another does, in milliseconds; above the bus's own deadline. */
const SENDING_MS = 15_000;

/**
 * Replies owed to senders of URLs.
 *
 *   expect ──▶ waits for its URL ──ended, files were found on it──▶ waits for them ──all ended──▶ due
 *                                                                                                 │
 *                                   gone ◀──sent── marked as being sent, by whoever found it due ◀┘
 *                                                    │        ▲
 *                                                    └────────┘ not sent in time: due again
 *
 * A reply goes once it was sent, so it is sent at least once: whoever is killed after sending it and before saying so
 * has it sent a second time. A report of an end that gets lost is made up for by `sweep`, which also finds those
 * that were not sent in time.
 */
export class Replies {
  readonly #replies: Collection<ReplyDocument>;
  readonly #urls: Collection<UrlDocument>;
  readonly #retrier: Retrier;
  readonly #clock: Clock;

  constructor(deps: {
    readonly replies: Collection<ReplyDocument>;
    readonly urls: Collection<UrlDocument>;
    readonly retrier: Retrier;
    readonly clock: Clock;
  }) {
    this.#replies = deps.replies;
    this.#urls = deps.urls;
    this.#retrier = deps.retrier;
    this.#clock = deps.clock;
  }

  /** Keeps who waits for what. To be called before the URLs can end: that is, before they are admitted. */
  async expect(replies: readonly ExpectedReply[]): Promise<void> {
    if (replies.length === 0) return;
    const at = this.#clock.now();
    await this.#retrier.run("keep expected replies", () =>
      this.#replies.bulkWrite(
        replies.map(({ id, ...reply }) => ({
          updateOne: {
            filter: { _id: id },
            update: { $setOnInsert: { ...reply, waiting: [reply.urlId], urls: [reply.urlId], at } },
            upsert: true,
          },
        })),
        { ordered: false },
      ),
    );
  }

  /**
   * Takes note of ends, after they were committed; resolves with the replies that are due now. One look when
   * nobody waits for them. For a URL that had ended before it was handed in, call it as if it ended now.
   */
  async ended(endings: readonly EndedUrl[]): Promise<readonly DueReply[]> {
    if (endings.length === 0) return [];
    const children = new Map(endings.map(({ id, children }) => [id, children]));
    const waiting = await this.#replies.find({ waiting: { $in: [...children.keys()] } }).toArray();
    if (waiting.length === 0) return [];
    const owed = waiting.map(({ _id }) => _id);
    const found = new Set<string>();
    const updates = waiting.map((reply) => {
      const over = reply.waiting.filter((id) => children.has(id));
      // Of the URL itself only: what is found on a file's page is not part of the answer.
      const own = over.includes(reply.urlId) ? (children.get(reply.urlId) ?? []) : [];
      const fresh = own.filter((id) => !reply.urls.includes(id));
      for (const id of fresh) found.add(id);
      // One update, so that there is no instant at which nothing is waited for too early. Literals, since
      // an id might begin with "$".
      const waitsFor = {
        $setDifference: [{ $setUnion: ["$waiting", { $literal: fresh }] }, { $literal: over }],
      };
      const urls = { $setUnion: ["$urls", { $literal: fresh }] };
      const at = { $literal: this.#clock.now() };
      return {
        updateOne: { filter: { _id: reply._id }, update: [{ $set: { waiting: waitsFor, urls, at } }] },
      };
    });
    await this.#retrier.run("note the ends that replies wait for", async () => {
      await this.#replies.bulkWrite(updates, { ordered: false });
      // A file may have ended before it was known here that it is waited for: whoever reported that found
      // nobody waiting. One that ends from now on is reported to us.
      const over = found.size === 0 ? [] : await this.#endedOf([...found]);
      if (over.length === 0) return;
      await this.#replies.updateMany({ _id: { $in: owed } }, { $pull: { waiting: { $in: over } } });
    });
    return this.#takeDue(owed);
  }

  /** They were sent: nothing is owed any more. */
  async sent(ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    await this.#retrier.run("note sent replies", () => this.#replies.deleteMany({ _id: { $in: [...ids] } }));
  }

  /**
   * Replies that wait, unchanged for so long, for URLs that have all ended: their reports were lost, or whoever was to
   * send them was.
   */
  async sweep(olderThanMs: number): Promise<readonly DueReply[]> {
    const due: DueReply[] = [];
    const before = this.#clock.now() - olderThanMs;
    const silent = this.#replies.find({ at: { $lt: before } }).batchSize(SWEEP_BATCH);
    let batch: ReplyDocument[] = [];
    const settle = async () => {
      const ids = batch.flatMap(({ waiting }) => waiting);
      const over = new Set(await this.#endedOf(ids));
      const overdue = batch.filter(({ waiting }) => waiting.every((id) => over.has(id)));
      await this.#replies.updateMany(
        { _id: { $in: overdue.map(({ _id }) => _id) } },
        { $set: { waiting: [] } },
      );
      due.push(...(await this.#takeDue(overdue.map(({ _id }) => _id))));
      batch = [];
    };
    for await (const reply of silent) {
      batch.push(reply);
      if (batch.length === SWEEP_BATCH) await settle();
    }
    if (batch.length > 0) await settle();
    return due;
  }

  /** Forgets replies that will not be sent: their URL was refused after all. */
  async forget(ids: readonly string[]): Promise<void> {
    await this.#replies.deleteMany({ _id: { $in: [...ids] } });
  }

  /** Forgets all replies of a crawl: it is being purged. */
  async drop(crawl: string): Promise<void> {
    await this.#replies.deleteMany({ crawl });
  }

  async #endedOf(ids: readonly string[]): Promise<readonly string[]> {
    const ended = await this.#urls
      .find({ _id: { $in: [...ids] }, state: { $in: ["done", "failed", "skipped"] } }, { hint: "_id_" })
      .project<{ _id: string }>({ _id: 1 })
      .toArray();
    return ended.map(({ _id }) => _id);
  }

  /** Marks those that are due as being sent, and returns those that were not. */
  async #takeDue(ids: readonly string[]): Promise<readonly DueReply[]> {
    const now = this.#clock.now();
    const isDue: Filter<ReplyDocument> = {
      waiting: { $size: 0 },
      $or: [{ sendingUntil: { $exists: false } }, { sendingUntil: { $lte: now } }],
    };
    const due = await this.#replies.find({ _id: { $in: [...ids] }, ...isDue }).toArray();
    if (due.length === 0) return [];
    const urls = new Map<string, UrlDocument>();
    const documents = this.#urls.find({ _id: { $in: due.flatMap((reply) => [...reply.urls]) } });
    for await (const document of documents) urls.set(document._id, document);
    const taken: DueReply[] = [];
    for (const reply of due) {
      const { body, ...address } = toDue(reply, urls);
      const marked = await this.#replies.findOneAndUpdate(
        { _id: reply._id, ...isDue },
        [
          // What was said first holds: the URL may have been opened again since.
          {
            $set: {
              sendingUntil: now + SENDING_MS,
              at: now,
              body: { $ifNull: ["$body", { $literal: body }] },
            },
          },
        ],
        { returnDocument: "after" },
      );
      if (marked !== null) taken.push({ ...address, body: marked.body ?? body });
    }
    return taken;
  }
}

function toDue(reply: ReplyDocument, known: ReadonlyMap<string, UrlDocument>): DueReply {
  const own = known.get(reply.urlId);
  const urls = reply.urls.flatMap((id) => known.get(id) ?? []);
  const { state, error } = outcomeOf(own);
  return {
    id: reply._id,
    crawl: reply.crawl,
    replyTo: reply.replyTo,
    ...(reply.correlationId !== undefined && { correlationId: reply.correlationId }),
    ...(reply.trace !== undefined && { trace: reply.trace }),
    body: {
      url: reply.url,
      state,
      ...(own?.statusCode !== undefined && { statusCode: own.statusCode }),
      items: urls.reduce((sum, { items }) => sum + (items ?? 0), 0),
      files: urls.reduce((sum, { files }) => sum + (files ?? 0), 0),
      ...(error !== undefined && { error }),
    },
  };
}

function outcomeOf(url: UrlDocument | undefined): { state: EndState; error?: string } {
  switch (url?.state) {
    case "done":
      return { state: "done" };
    case "failed":
    case "skipped": {
      const error = [url.reason, url.error].filter((part) => part !== undefined).join(": ");
      return { state: url.state, ...(error !== "" && { error }) };
    }
    default:
      // Its crawl was purged, or it was opened again meanwhile: what it is now is no answer to this.
      return { state: "skipped", error: "closed" };
  }
}
