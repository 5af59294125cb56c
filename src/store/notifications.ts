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

/** Something that people should read. */
export type Notification = {
  /** Unique; the same again is the same notification. */
  readonly id: string;
  readonly level: string;
  readonly title: string;
  readonly text?: string;
  readonly crawl?: string;
  /** The rule that asked for it, if one did. */
  readonly rule?: string;
  /** In milliseconds since the epoch. */
  readonly at: number;
};

/** `_id` is the notification's id. */
export type NotificationDocument = Omit<Notification, "id" | "at"> & {
  readonly _id: string;
  readonly at: Date;
};

const position = z.tuple([z.number(), z.string()]);

/** Notifications that were sent, until they are old. */
export class Notifications {
  readonly #notifications: Collection<NotificationDocument>;
  readonly #retrier: Retrier;

  constructor(notifications: Collection<NotificationDocument>, retrier: Retrier) {
    this.#notifications = notifications;
    this.#retrier = retrier;
  }

  /** @returns false when it was there already */
  async add({ id, at, ...notification }: Notification): Promise<boolean> {
    return this.#retrier.run("keep a notification", async () => {
      try {
        await this.#notifications.insertOne({ _id: id, ...notification, at: new Date(at) });
        return true;
      } catch (error) {
        if (!isDuplicateKey(error)) throw error;
        return false;
      }
    });
  }

  /** Whether it is there. */
  async has(id: string): Promise<boolean> {
    return (await this.#notifications.findOne({ _id: id }, { projection: { _id: 1 } })) !== null;
  }

  /** Newest first. */
  async list(options: ListOptions = {}): Promise<ListPage<Notification>> {
    const { limit = DEFAULT_LIST_LIMIT, cursor } = options;
    const last = cursor === undefined ? undefined : decodeCursor(cursor, position);
    const after =
      last === undefined
        ? {}
        : { $or: [{ at: { $lt: new Date(last[0]) } }, { at: new Date(last[0]), _id: { $lt: last[1] } }] };
    const documents = await this.#notifications
      .find(after)
      .sort({ at: -1, _id: -1 })
      .limit(limit + 1)
      .toArray();
    return pageOf(documents, limit, toNotification, ({ at, _id }) => encodeCursor([at.getTime(), _id]));
  }
}

function toNotification({ _id, at, ...notification }: NotificationDocument): Notification {
  return { id: _id, ...notification, at: at.getTime() };
}
