import type { DeadLetterReason, TaskDelivery } from "../bus/index.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { WarrenBus } from "../protocol/index.js";

/** How long a stop waits for what is being given up, in milliseconds. */
const STOP_GRACE_MS = 5_000;

/** Longest wait before a message that could not be given up is tried again, in milliseconds. */
const MAX_RETRY_MS = 5_000;

/** As much of a body that cannot be read as is shown to its sender, in bytes. */
const MAX_SHOWN_BYTES = 2_048;

/**
 * Messages that this worker cannot take. Each goes to the dead letters, whoever asked is told, and only then is it
 * acknowledged. While the database or the broker is away that is tried again: given back to the queue, a message
 * would come again at once.
 */
export class Refusals {
  readonly #deps: {
    readonly bus: Pick<WarrenBus, "deadLetters" | "calls" | "tasks">;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics: Metrics;
  };
  readonly #underWay = new Set<Promise<void>>();
  readonly #stopping = new AbortController();

  constructor(deps: {
    readonly bus: Pick<WarrenBus, "deadLetters" | "calls" | "tasks">;
    readonly clock: Clock;
    readonly logger: Logger;
    readonly metrics: Metrics;
  }) {
    this.#deps = deps;
  }

  /** Gives a message up; those given up at the same time are dealt with together. */
  giveUp(delivery: TaskDelivery, reason: DeadLetterReason, error: string): void {
    const work = this.#giveUp(delivery, reason, error).finally(() => this.#underWay.delete(work));
    this.#underWay.add(work);
  }

  /** Lets what is under way end, if it does so in time; the rest comes again, to another worker. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    let stopTimer = () => {};
    const late = new Promise<void>((resolve) => {
      stopTimer = this.#deps.clock.after(STOP_GRACE_MS, resolve);
    });
    await Promise.race([Promise.all(this.#underWay), late]);
    stopTimer();
  }

  async #giveUp(delivery: TaskDelivery, reason: DeadLetterReason, error: string): Promise<void> {
    const { bus, clock, logger, metrics } = this.#deps;
    for (let failures = 0; !delivery.signal.aborted; ) {
      try {
        await bus.deadLetters.send(delivery, { reason, error }, delivery.signal);
        metrics.deadLetters.inc({ reason });
        logger.info({ reason, error }, "a message was given up");
        await this.#answer(delivery, reason, error);
        bus.tasks.settle([delivery], { kind: "ack" });
        return;
      } catch (failure) {
        if (this.#stopping.signal.aborted) return;
        failures += 1;
        const waitMs = Math.min(MAX_RETRY_MS, 100 * 2 ** Math.min(failures, 6));
        logger.warn({ error: messageOf(failure), waitMs }, "could not give a message up; trying again");
        await new Promise<void>((resolve) => clock.after(waitMs, resolve));
      }
    }
  }

  async #answer(
    { replyTo, correlationId, body }: TaskDelivery,
    reason: string,
    error: string,
  ): Promise<void> {
    if (replyTo === undefined) return;
    const url = body.subarray(0, MAX_SHOWN_BYTES).toString("utf8");
    const answer = { url, state: "failed", reason, items: 0, files: 0, error: `${reason}: ${error}` };
    try {
      await this.#deps.bus.calls.reply(replyTo, correlationId, answer);
    } catch (failure) {
      // It is among the dead letters, and whoever asked may well have left.
      this.#deps.logger.warn({ replyTo, error: messageOf(failure) }, "could not send a reply");
    }
  }
}
