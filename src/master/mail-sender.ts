import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Service } from "../lib/service.js";
import type { DueMail, Store } from "../store/index.js";
import type { MailServer } from "./mail-server.js";

export type MailSenderOptions = {
  /** How often it looks for mails, in milliseconds. @default 2_000 */
  readonly everyMs: number;
  /** Attempts at a mail; then it has failed. @default 12 */
  readonly maxAttempts: number;
  /** Wait after the first attempt; doubled after each further one, in milliseconds. @default 5_000 */
  readonly firstWaitMs: number;
  /** In milliseconds. @default 3_600_000 */
  readonly longestWaitMs: number;
};

export const MAIL_SENDER_DEFAULTS: MailSenderOptions = {
  everyMs: 2_000,
  maxAttempts: 12,
  firstWaitMs: 5_000,
  longestWaitMs: 3_600_000,
};

export type MailSenderParts = {
  readonly store: Pick<Store, "mails">;
  readonly server: MailServer;
  readonly clock: Clock;
  readonly logger: Logger;
};

/** Time that whoever took a mail has beyond that for sending it, in milliseconds. */
const GRACE_MS = 30_000;

/** Sends the mails that are due, one after the other. Every master that has a mail server does; each mail is with one. */
export class MailSender implements Service {
  readonly name = "mail sender";
  readonly #parts: MailSenderParts;
  readonly #options: MailSenderOptions;
  #loop: Loop | undefined;
  #isStopped = false;

  constructor(parts: MailSenderParts, options: Partial<MailSenderOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...MAIL_SENDER_DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    const { clock, logger } = this.#parts;
    this.#loop = new Loop(this.#options.everyMs, clock, async () => {
      try {
        await this.sendDue();
      } catch (error) {
        logger.warn({ error: messageOf(error) }, "could not look for mails to send");
      }
    });
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#parts.server.close();
    await this.#loop?.stop();
  }

  /** Sends all that are due now. */
  async sendDue(): Promise<void> {
    const { store, server } = this.#parts;
    while (!this.#isStopped) {
      const mail = await store.mails.take(server.timeoutMs + GRACE_MS);
      if (mail === undefined) return;
      // While the server takes nothing, the others need not find that out one by one.
      if (!(await this.#send(mail))) return;
    }
  }

  /** @returns false when the server did not take it now */
  async #send(mail: DueMail): Promise<boolean> {
    const { store, server, logger } = this.#parts;
    const { maxAttempts, firstWaitMs, longestWaitMs } = this.#options;
    const outcome = await server.send(mail);
    const about = { mail: mail.id, attempts: mail.attempts };
    if (outcome.kind === "sent") {
      const { refused } = outcome;
      if (refused.length > 0)
        logger.warn({ ...about, refused }, "a mail was not taken for all its recipients");
      await store.mails.sent(mail);
      return true;
    }
    const { kind, error } = outcome;
    if (kind === "refused" || mail.attempts >= maxAttempts) {
      logger.error({ ...about, error }, "a mail is given up");
      await store.mails.failed(mail, error);
      return kind === "refused";
    }
    const waitMs = Math.min(longestWaitMs, firstWaitMs * 2 ** (mail.attempts - 1));
    logger.warn({ ...about, error, waitMs }, "a mail was not taken: trying again later");
    await store.mails.again(mail, waitMs, error);
    return false;
  }
}
