import type { DeadLetter, DeadLetterReason, DeadLetterReport, TaskDelivery } from "../bus/index.js";
import { type Death, describeDeaths } from "../crawl/suspicion.js";
import type { Task } from "../crawl/task.js";
import type { Clock } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import { traceContextOf } from "../lib/trace-context.js";
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

  /**
   * Keeps a URL that ended its workers among the dead letters, in the form in which it can be handed in again.
   * @param signal ends the attempts: its message is in other hands
   * @returns whether it is there
   */
  async setAside(task: Task, deaths: readonly Death[], signal: AbortSignal): Promise<boolean> {
    const { method, headers, body, meta, spider, callback } = task.request ?? {};
    const message = {
      url: task.url,
      crawl: task.crawl,
      depth: task.depth,
      ...(spider !== undefined && { spider }),
      ...(method !== undefined && { method }),
      ...(headers !== undefined && { headers }),
      ...(body !== undefined && { body }),
      ...(meta !== undefined && { meta }),
      ...(callback !== undefined && { callback }),
    };
    const letter: DeadLetter = {
      body: Buffer.from(JSON.stringify(message)),
      contentType: "application/json",
      headers: {},
      // The same URL in the same round is the same letter, whoever of several workers sends it.
      messageId: `${task.id}.${task.round}`,
      replyTo: undefined,
      correlationId: undefined,
    };
    const error = describeDeaths(deaths);
    const report: DeadLetterReport = { reason: "poison", error, count: deaths.length, crashes: deaths };
    if (!(await this.#send(letter, report, signal))) return false;
    this.#deps.logger.error(
      { url: task.url, crawl: task.crawl, deaths },
      "a URL ended its workers and was set aside",
    );
    return true;
  }

  /** What fails from now on is not tried again: it comes again, to another worker. */
  hurry(): void {
    this.#stopping.abort();
  }

  /** Lets what is under way end, if it does so in time; the rest comes again, to another worker. */
  async stop(): Promise<void> {
    this.hurry();
    let stopTimer = () => {};
    const late = new Promise<void>((resolve) => {
      stopTimer = this.#deps.clock.after(STOP_GRACE_MS, resolve);
    });
    await Promise.race([Promise.all(this.#underWay), late]);
    stopTimer();
  }

  async #giveUp(delivery: TaskDelivery, reason: DeadLetterReason, error: string): Promise<void> {
    const { bus, logger } = this.#deps;
    if (!(await this.#send(delivery, { reason, error }, delivery.signal))) return;
    logger.info({ reason, error }, "a message was given up");
    await this.#answer(delivery, reason, error);
    bus.tasks.settle([delivery], { kind: "ack" });
  }

  /** @returns false when it is no longer ours to send */
  async #send(letter: DeadLetter, report: DeadLetterReport, signal: AbortSignal): Promise<boolean> {
    const { bus, clock, logger, metrics } = this.#deps;
    for (let failures = 0; !signal.aborted; ) {
      try {
        await bus.deadLetters.send(letter, report, signal);
        metrics.deadLetters.inc({ reason: report.reason });
        return true;
      } catch (failure) {
        if (this.#stopping.signal.aborted) break;
        failures += 1;
        const waitMs = Math.min(MAX_RETRY_MS, 100 * 2 ** Math.min(failures, 6));
        logger.warn({ error: messageOf(failure), waitMs }, "could not give a message up; trying again");
        await new Promise<void>((resolve) => clock.after(waitMs, resolve));
      }
    }
    return false;
  }

  async #answer(
    { replyTo, correlationId, body, headers }: TaskDelivery,
    reason: string,
    error: string,
  ): Promise<void> {
    if (replyTo === undefined) return;
    const url = body.subarray(0, MAX_SHOWN_BYTES).toString("utf8");
    const answer = { url, state: "failed", reason, items: 0, files: 0, error: `${reason}: ${error}` };
    try {
      await this.#deps.bus.calls.reply(replyTo, correlationId, answer, traceContextOf(headers));
    } catch (failure) {
      // It is among the dead letters, and whoever asked may well have left.
      this.#deps.logger.warn({ replyTo, error: messageOf(failure) }, "could not send a reply");
    }
  }
}
