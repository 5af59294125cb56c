import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { WarrenCalls } from "../protocol/index.js";
import type { EndedUrl, ExpectedReply, Replies as ReplyStore } from "../store/index.js";

/** Answers to those who handed in a URL and asked to be told how it ended. */
export class Replies {
  readonly #store: ReplyStore;
  readonly #calls: WarrenCalls;
  readonly #logger: Logger;

  constructor(store: ReplyStore, calls: WarrenCalls, logger: Logger) {
    this.#store = store;
    this.#calls = calls;
    this.#logger = logger;
  }

  async expect(replies: readonly ExpectedReply[]): Promise<void> {
    if (replies.length > 0) await this.#store.expect(replies);
  }

  /** URLs ended; each with the files found on it that must end before its reply is due. */
  async ended(endings: readonly EndedUrl[]): Promise<void> {
    const due = await this.#store.ended(endings);
    const sent = await Promise.all(
      due.map(async ({ id, replyTo, correlationId, body, trace }) => {
        try {
          await this.#calls.reply(replyTo, correlationId, body, trace);
          return [id];
        } catch (error) {
          // It stays on record, and a master sends it later.
          this.#logger.warn({ replyTo, error: messageOf(error) }, "could not send a reply");
          return [];
        }
      }),
    );
    await this.#store.sent(sent.flat());
  }
}
