import type { Clock, StopTimer } from "../lib/clock.js";
import { messageOf } from "../lib/errors.js";
import type { Logger } from "../lib/logger.js";
import { Loop } from "../lib/loop.js";
import type { Service } from "../lib/service.js";
import type { ScheduleRecord, Store } from "../store/index.js";
import { CronPattern } from "./cron.js";
import { dueTicks } from "./due-ticks.js";
import type { TickStarter } from "./tick-starter.js";

export type ScheduleRunnerOptions = {
  /** How often it looks at least, in milliseconds. @default 1_000 */
  readonly everyMs: number;
  /** Longest time by which it looks later than a tick is due, so that masters do not all at once. @default 150 */
  readonly jitterMs: number;
  /** How late a tick may be recorded without having been missed, in milliseconds. @default 60_000 */
  readonly missedAfterMs: number;
};

export const SCHEDULE_RUNNER_DEFAULTS: ScheduleRunnerOptions = {
  everyMs: 1_000,
  jitterMs: 150,
  missedAfterMs: 60_000,
};

export type ScheduleRunnerParts = {
  readonly store: Pick<Store, "schedules" | "ticks"> & {
    readonly serverClock: { readonly isStale: boolean; refresh(): Promise<void> };
  };
  readonly starter: Pick<TickStarter, "advance" | "settled" | "skipped">;
  /** The database server's: what is due is so for all masters alike. */
  readonly clock: Clock;
  readonly logger: Logger;
};

/**
 * Brings about the ticks of schedules when they are due, and has their crawls made. Every master has one, and none
 * waits for another: the database decides who brings about a tick, and what one leaves undone another finds.
 */
export class ScheduleRunner implements Service {
  readonly name = "schedule runner";
  readonly #parts: ScheduleRunnerParts;
  readonly #options: ScheduleRunnerOptions;
  #loop: Loop | undefined;
  #stopTimer: StopTimer = () => {};

  constructor(parts: ScheduleRunnerParts, options: Partial<ScheduleRunnerOptions> = {}) {
    this.#parts = parts;
    this.#options = { ...SCHEDULE_RUNNER_DEFAULTS, ...options };
  }

  async start(): Promise<void> {
    this.#loop = new Loop(this.#options.everyMs, this.#parts.clock, () => this.#attempt());
    void this.#loop.runNow();
  }

  async stop(): Promise<void> {
    await this.#loop?.stop();
    this.#stopTimer();
    await this.#parts.starter.settled();
  }

  /** Looks now for what is due. */
  async look(): Promise<void> {
    const { store, starter, clock } = this.#parts;
    if (store.serverClock.isStale) await store.serverClock.refresh();
    for (const schedule of await store.schedules.due(clock.now())) await this.#fire(schedule);
    // Not waited for: closing a crawl takes its time, and other schedules' ticks are due meanwhile.
    const [open, beginning] = await Promise.all([store.ticks.openSchedules(), store.schedules.beginning()]);
    for (const schedule of new Set([...open, ...beginning])) void starter.advance(schedule);
  }

  async #attempt(): Promise<void> {
    try {
      await this.look();
      await this.#arm();
    } catch (error) {
      this.#parts.logger.warn({ error: messageOf(error) }, "could not look for ticks of schedules");
    }
  }

  /** Wakes at the next tick, if that is before the next look. */
  async #arm(): Promise<void> {
    this.#stopTimer();
    const { store, clock } = this.#parts;
    const { everyMs, jitterMs } = this.#options;
    const next = await store.schedules.nextDueAt();
    if (next === undefined) return;
    const delayMs = Math.max(0, next - clock.now()) + Math.random() * jitterMs;
    if (delayMs < everyMs) this.#stopTimer = clock.after(delayMs, () => void this.#loop?.runNow());
  }

  /** One that cannot be read must not keep the others from their ticks. */
  async #fire(schedule: ScheduleRecord): Promise<void> {
    const { store, starter, clock, logger } = this.#parts;
    try {
      if (schedule.cron === undefined) return;
      const cron = new CronPattern(schedule.cron, schedule.timezone);
      const due = dueTicks(schedule, cron, clock.now(), this.#options.missedAfterMs);
      if (due === undefined) return;
      const { ticks, ...to } = due;
      if (!(await store.schedules.fire(schedule, ticks, to))) return;
      for (const tick of ticks) if (tick.skipped !== undefined) starter.skipped(tick, tick.skipped);
    } catch (error) {
      logger.warn({ schedule: schedule.id, error: messageOf(error) }, "could not record a schedule's ticks");
    }
  }
}
