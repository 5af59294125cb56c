import { type DeadLetter, type DeadLetterReport, type DeadLetters, parseExternalTask } from "../bus/index.js";
import { TASK_CONTENT_TYPE } from "../crawl/task.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import { traceContextOf } from "../lib/trace-context.js";
import type { WarrenBus } from "../protocol/index.js";

export type DeadLetterRelayParts = {
  readonly bus: { readonly deadLetters: DeadLetters; readonly calls: Pick<WarrenBus["calls"], "reply"> };
  readonly metrics: Metrics;
  readonly logger: Logger;
};

/** As much of a body that cannot be read as is shown to its sender, in bytes. */
const MAX_SHOWN_BYTES = 2_048;

/**
 * Takes what the broker itself gave up in the task queue, because it expired or was delivered too often. The
 * broker cannot say why to anyone: here the reason is added, whoever waits for an answer is told, and the
 * message joins the dead letters. Every master does this; each message goes to one of them.
 */
export class DeadLetterRelay implements Service {
  readonly name = "dead-letter relay";
  readonly #parts: DeadLetterRelayParts;
  #stopTaking: (() => Promise<void>) | undefined;

  constructor(parts: DeadLetterRelayParts) {
    this.#parts = parts;
  }

  async start(): Promise<void> {
    this.#stopTaking = await this.#parts.bus.deadLetters.takeRejected((letter, report) =>
      this.#relay(letter, report),
    );
  }

  async stop(): Promise<void> {
    const stopTaking = this.#stopTaking;
    this.#stopTaking = undefined;
    await stopTaking?.();
  }

  async #relay(letter: DeadLetter, report: DeadLetterReport): Promise<void> {
    const { bus, metrics, logger } = this.#parts;
    // A URL that was dispatched is still in the frontier, which dispatches it again: nothing is lost with this.
    if (letter.contentType === TASK_CONTENT_TYPE) {
      logger.debug({ reason: report.reason }, "a dispatched task was given up by the broker");
      return;
    }
    await bus.deadLetters.send(letter, report);
    metrics.deadLetters.inc({ reason: report.reason });
    logger.info({ ...report }, "the broker gave a message up");
    if (letter.replyTo !== undefined) await this.#answer(letter.replyTo, letter, report);
  }

  async #answer(replyTo: string, letter: DeadLetter, { reason, error }: DeadLetterReport): Promise<void> {
    const body = {
      url: urlOf(letter),
      state: "failed",
      reason,
      items: 0,
      files: 0,
      error: `${reason}: ${error}`,
    };
    try {
      await this.#parts.bus.calls.reply(replyTo, letter.correlationId, body, traceContextOf(letter.headers));
    } catch (failure) {
      // It is among the dead letters, and whoever asked may well have left.
      this.#parts.logger.warn({ replyTo, error: messageOf(failure) }, "could not answer for a dead letter");
    }
  }
}

function urlOf(letter: DeadLetter): string {
  const parsed = parseExternalTask(letter);
  return parsed.ok ? parsed.task.url : letter.body.subarray(0, MAX_SHOWN_BYTES).toString("utf8");
}
