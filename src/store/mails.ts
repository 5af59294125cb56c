import type { Collection } from "mongodb";
import { z } from "zod";
import { isDuplicateKey } from "./duplicates.js";
import {
  DEFAULT_LIST_LIMIT,
  decodeCursor,
  encodeCursor,
  type ListOptions,
  type ListPage,
  pageOf,
} from "./page-of-list.js";
import type { Retrier } from "./retrier.js";

/** `waiting` for its first or next attempt, `sent`, or `failed` for good. */
export const MAIL_STATES = ["waiting", "sent", "failed"] as const;
export type MailState = (typeof MAIL_STATES)[number];

export type NewMail = {
  /** Unique; the same again is the same mail. */
  readonly id: string;
  readonly to: readonly string[];
  readonly subject: string;
  readonly text: string;
};

/** `_id` is the mail's id. Dates are the server's. */
export type MailDocument = Omit<NewMail, "id"> & {
  readonly _id: string;
  readonly state: MailState;
  readonly at: Date;
  /** When it is tried next, or, while someone tries, when another may. */
  readonly nextAt: Date;
  readonly attempts: number;
  readonly error?: string;
  readonly expiresAt?: Date;
};

/** A mail as it is shown. Instants in milliseconds since the epoch. */
export type MailRecord = NewMail & {
  readonly state: MailState;
  readonly at: number;
  readonly nextAt?: number;
  readonly attempts: number;
  /** Of the last attempt. */
  readonly error?: string;
};

export type DueMail = NewMail & { /** This one included. */ readonly attempts: number };

/** How long one that has ended is known, so that it is not sent again. */
const KEPT_FOR_MS = 30 * 86_400_000;

const position = z.tuple([z.number(), z.string()]);

/**
 * Mails that are to be sent, until the mail server has taken them.
 *
 *   add ──▶ waiting ──taken──▶ sent
 *            │  ▲ │
 *   not taken└──┘ └──refused, or not taken again and again──▶ failed
 *
 * Whoever takes one has it for a while; if it says nothing until then, another tries. So a mail is sent at least
 * once: twice when someone dies after the server took it and before that is noted.
 */
export class Mails {
  readonly #mails: Collection<MailDocument>;
  readonly #retrier: Retrier;

  constructor(mails: Collection<MailDocument>, retrier: Retrier) {
    this.#mails = mails;
    this.#retrier = retrier;
  }

  /** @returns false when it was there already */
  async add({ id, ...mail }: NewMail): Promise<boolean> {
    return this.#retrier.run("keep a mail", async () => {
      try {
        const added = await this.#mails.updateOne(
          { _id: id },
          [
            {
              $replaceWith: {
                $cond: [
                  { $eq: [{ $type: "$state" }, "missing"] },
                  {
                    _id: { $literal: id },
                    to: { $literal: mail.to },
                    subject: { $literal: mail.subject },
                    text: { $literal: mail.text },
                    state: "waiting",
                    attempts: { $literal: 0 },
                    at: "$$NOW",
                    nextAt: "$$NOW",
                  },
                  "$$ROOT",
                ],
              },
            },
          ],
          { upsert: true },
        );
        return added.upsertedCount > 0;
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
        return false;
      }
    });
  }

  /** Takes one that is due, for so long. */
  async take(forMs: number): Promise<DueMail | undefined> {
    const mail = await this.#mails.findOneAndUpdate(
      { state: "waiting", $expr: { $lte: ["$nextAt", "$$NOW"] } },
      [{ $set: { nextAt: { $add: ["$$NOW", forMs] }, attempts: { $add: ["$attempts", 1] } } }],
      { sort: { nextAt: 1 }, returnDocument: "after" },
    );
    if (mail === null) return undefined;
    const { _id, to, subject, text, attempts } = mail;
    return { id: _id, to, subject, text, attempts };
  }

  async sent({ id }: Pick<DueMail, "id">): Promise<void> {
    await this.#end(id, "sent");
  }

  /** It cannot be sent. */
  async failed({ id }: Pick<DueMail, "id">, error: string): Promise<void> {
    await this.#end(id, "failed", error);
  }

  /** It was not taken this time. Harmless when another tries by now. */
  async again(
    { id, attempts }: Pick<DueMail, "id" | "attempts">,
    inMs: number,
    error: string,
  ): Promise<void> {
    await this.#retrier.run("put a mail back", () =>
      this.#mails.updateOne({ _id: id, attempts, state: "waiting" }, [
        { $set: { nextAt: { $add: ["$$NOW", inMs] }, error: { $literal: error } } },
      ]),
    );
  }

  /** Newest first. */
  async list(options: ListOptions & { readonly state?: MailState } = {}): Promise<ListPage<MailRecord>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor, state } = options;
    const last = cursor === undefined ? undefined : decodeCursor(cursor, position);
    const documents = await this.#mails
      .find({
        ...(state !== undefined && { state }),
        ...(last !== undefined && {
          $or: [{ at: { $lt: new Date(last[0]) } }, { at: new Date(last[0]), _id: { $lt: last[1] } }],
        }),
      })
      .sort({ at: -1, _id: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toRecord, ({ at, _id }) => encodeCursor([at.getTime(), _id]));
  }

  async #end(id: string, state: MailState, error?: string): Promise<void> {
    await this.#retrier.run("note what became of a mail", () =>
      this.#mails.updateOne({ _id: id, state: "waiting" }, [
        {
          $set: {
            state,
            expiresAt: { $add: ["$$NOW", KEPT_FOR_MS] },
            ...(error !== undefined && { error: { $literal: error } }),
          },
        },
      ]),
    );
  }
}

function toRecord(document: MailDocument): MailRecord {
  const { _id, expiresAt: _expiresAt, at, nextAt, ...fields } = document;
  return {
    id: _id,
    ...fields,
    at: at.getTime(),
    ...(fields.state === "waiting" && { nextAt: nextAt.getTime() }),
  };
}
