import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import type { Metrics } from "../lib/metrics.js";
import type { Service } from "../lib/service.js";
import type { DueDelivery, HeldLane, Store } from "../store/index.js";
import type { Posted, WebhookSender } from "./webhook-sender.js";

export type DeliveryServiceOptions = {
  /** Attempts at one delivery before it is given up. @default 10 */
  readonly maxAttempts: number;
  /** Age at which one is given up, in milliseconds. @default 86_400_000, a day */
  readonly maxAgeMs: number;
  /** Receivers that are posted to at once, by this master. @default 32 */
  readonly atOnce: number;
  /** For one post, in milliseconds; as the sender has it. @default 15_000 */
  readonly timeoutMs: number;
  /** How often it looks for what others added, or is due again, in milliseconds. @default 500 */
  readonly everyMs: number;
  /** How often it looks for what nobody would otherwise find, in milliseconds. @default 60_000 */
  readonly forgottenEveryMs: number;
  /** Wait after the first attempt, in milliseconds; each further wait is four times as long. @default 1_000 */
  readonly firstRetryMs: number;
};

export const DELIVERY_DEFAULTS: DeliveryServiceOptions = {
  maxAttempts: 10,
  maxAgeMs: 86_400_000,
  atOnce: 32,
  timeoutMs: 15_000,
  everyMs: 500,
  forgottenEveryMs: 60_000,
  firstRetryMs: 1_000,
};

export type DeliveryServiceParts = {
  readonly store: Pick<Store, "deliveries" | "deliveryLanes">;
  readonly sender: Pick<WebhookSender, "post" | "close">;
  readonly metrics: Metrics;
  readonly clock: Clock;
  readonly logger: Logger;
  /** From 0 to 1. @default Math.random */
  readonly random?: () => number;
};

/** Deliveries read together; and how many of a lane are sent before others have their turn. */
const READ_AT_ONCE = 20;
const SENT_IN_A_ROW = 100;
/** What a lease holds for beyond the time for a post, in milliseconds. */
const LEASE_MARGIN_MS = 3_000;
const LONGEST_RETRY_MS = 6 * 3_600_000;
/** A receiver that answers nobody is asked again after this at the latest, in milliseconds. */
const LONGEST_BACKOFF_MS = 5 * 60_000;
const RETRY_GROWTH = 4;
/** Posts under way at a stop may end in this time; then they are broken off, to be made again. */
const STOP_GRACE_MS = 3_000;
/** Share of a wait that chance adds or takes off. */
const JITTER = 0.2;

/** What came of one delivery, for the lane that it is in. `stop`: nothing more waits there. */
type Verdict = { readonly kind: "go on" | "stop" } | { readonly kind: "leave alone"; readonly forMs: number };

/**
 * Posts what is to be delivered, at least once. Every master does so: a lane is in the hands of one at a time, which posts
 * one after the other, in order, as long as they are taken. One that is refused steps aside and is tried again by itself;
 * a receiver that is not there is left alone for a while, longer each time. Whoever dies in the middle leaves a lane that
 * is free again when its lease is over, and a post that may be made twice.
 */
export class DeliveryService implements Service {
  readonly name = "deliveries";
  readonly #parts: DeliveryServiceParts;
  readonly #options: DeliveryServiceOptions;
  readonly #random: () => number;
  readonly #running = new Set<Promise<void>>();
  #stopTimers: StopTimer[] = [];
  #isLooking = false;
  #isStopped = true;

  constructor(parts: DeliveryServiceParts, options: Partial<DeliveryServiceOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...DELIVERY_DEFAULTS, ...options };
    this.#random = parts.random ?? Math.random;
  }

  async start(): Promise<void> {
    this.#isStopped = false;
    this.#look();
    this.#lookForForgotten();
  }

  /** What is being posted is waited for, a little while; the rest of its lane is left to others. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    for (const stopTimer of this.#stopTimers) stopTimer();
    const isOver = Promise.all(this.#running);
    await Promise.race([
      isOver,
      new Promise<void>((resolve) => this.#parts.clock.after(STOP_GRACE_MS, resolve)),
    ]);
    await this.#parts.sender.close();
    await isOver;
  }

  /** Something was added: it need not wait for the next look. */
  wake(): void {
    if (!this.#isStopped) this.#look();
  }

  #look(): void {
    if (this.#isStopped) return;
    // Also when a look takes longer than the time between two: nothing else would bring about the next.
    this.#stopTimers[0]?.();
    this.#stopTimers[0] = this.#parts.clock.after(this.#options.everyMs, () => this.#look());
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#track(
      this.#takeLanes().finally(() => {
        this.#isLooking = false;
      }),
    );
  }

  #lookForForgotten(): void {
    this.#stopTimers[1] = this.#parts.clock.after(this.#options.forgottenEveryMs, () => {
      const { store, logger } = this.#parts;
      this.#track(
        store.deliveries
          .wakeForgotten()
          .catch((error: unknown) =>
            logger.debug({ error: messageOf(error) }, "could not look for forgotten deliveries"),
          )
          .finally(() => {
            if (!this.#isStopped) this.#lookForForgotten();
          }),
      );
    });
  }

  #track(work: Promise<void>): void {
    this.#running.add(work);
    void work.finally(() => this.#running.delete(work));
  }

  async #takeLanes(): Promise<void> {
    const { store, logger } = this.#parts;
    try {
      while (!this.#isStopped && this.#running.size <= this.#options.atOnce) {
        const lane = await store.deliveryLanes.claim(this.#leaseMs);
        if (lane === undefined) return;
        this.#track(this.#serve(lane));
      }
    } catch (error) {
      logger.debug({ error: messageOf(error) }, "could not look for deliveries");
    }
  }

  get #leaseMs(): number {
    return this.#options.timeoutMs + LEASE_MARGIN_MS;
  }

  /** Posts what is due in a lane, and gives it back. */
  async #serve(held: HeldLane): Promise<void> {
    const { store, clock, logger } = this.#parts;
    let lane: HeldLane | undefined = held;
    let failures = held.failures;
    let backoffMs = 0;
    try {
      let due: readonly DueDelivery[] = [];
      for (let sent = 0; sent < SENT_IN_A_ROW && backoffMs === 0 && !this.#isStopped; sent += 1) {
        if (sent % READ_AT_ONCE === 0) due = await store.deliveries.due(lane.id, READ_AT_ONCE);
        const delivery = due[sent % READ_AT_ONCE];
        if (delivery === undefined) break;
        if (clock.monotonic() + this.#options.timeoutMs > lane.validUntil) {
          lane = await store.deliveryLanes.renew(lane, this.#leaseMs);
          if (lane === undefined) return;
        }
        const verdict = await this.#deliver(delivery, lane.id, failures);
        if (verdict.kind === "stop") break;
        failures = verdict.kind === "leave alone" ? failures + 1 : 0;
        if (verdict.kind === "leave alone") backoffMs = verdict.forMs;
      }
      await store.deliveryLanes.release(lane, failures, backoffMs);
      // Others may have waited for their turn.
      setImmediate(() => this.wake());
    } catch (error) {
      // Its lease ends by itself.
      logger.warn({ error: messageOf(error) }, "could not go on with deliveries");
    }
  }

  async #deliver(delivery: DueDelivery, lane: string, failures: number): Promise<Verdict> {
    const { store, sender, metrics, logger } = this.#parts;
    const posted = await sender.post(delivery);
    if (posted.kind === "taken") {
      await store.deliveries.delivered(delivery.id, posted.statusCode);
      metrics.deliveries.inc({ outcome: "delivered" });
      return { kind: "go on" };
    }
    const { error, statusCode } = posted;
    const why = { error, ...(statusCode !== undefined && { statusCode }) };
    const about = { delivery: delivery.id, url: withoutQuery(delivery.target.url), error };
    if (posted.kind === "gone") {
      await store.deliveries.fail(delivery.id, why);
      const others = await store.deliveries.failLane(lane, why);
      metrics.deliveries.inc({ outcome: "failed" }, 1 + others);
      logger.warn(
        { ...about, deliveries: 1 + others },
        "a receiver wants nothing more: its deliveries are given up",
      );
      return { kind: "stop" };
    }
    const retryMs = Math.max(this.#retryMs(delivery.attempts + 1), posted.retryAfterMs ?? 0);
    const isLast =
      delivery.attempts + 1 >= this.#options.maxAttempts || delivery.ageMs + retryMs > this.#options.maxAgeMs;
    if (isLast) {
      await store.deliveries.fail(delivery.id, why);
      metrics.deliveries.inc({ outcome: "failed" });
      logger.warn({ ...about, attempts: delivery.attempts + 1 }, "a delivery is given up");
    } else {
      await store.deliveries.postpone(delivery.id, why, retryMs);
      metrics.deliveries.inc({ outcome: "postponed" });
    }
    if (posted.kind === "refused") return { kind: "go on" };
    // After the first time it is this one's turn again before any other's; it may be what the receiver chokes on.
    const ownMs = delivery.attempts === 0 && !isLast ? retryMs : 0;
    return { kind: "leave alone", forMs: Math.max(ownMs, this.#backoffMs(posted, failures + 1)) };
  }

  #backoffMs(posted: Exclude<Posted, { kind: "taken" }>, failures: number): number {
    const grown = this.#options.firstRetryMs * 2 ** Math.min(failures - 1, 20);
    const ownMs = this.#jittered(Math.min(grown, LONGEST_BACKOFF_MS));
    return Math.max(ownMs, Math.min(posted.retryAfterMs ?? 0, LONGEST_RETRY_MS));
  }

  /** Until the next attempt, after so many. */
  #retryMs(attempts: number): number {
    const grown = this.#options.firstRetryMs * RETRY_GROWTH ** Math.min(attempts - 1, 20);
    return this.#jittered(Math.min(grown, LONGEST_RETRY_MS));
  }

  #jittered(ms: number): number {
    return Math.round(ms * (1 - JITTER + 2 * JITTER * this.#random()));
  }
}

/** What stands behind the path is often a key. */
function withoutQuery(url: string): string {
  return url.split("?", 1)[0] ?? url;
}
