import type { NewTick, ScheduleRecord } from "../store/index.js";
import type { CronPattern } from "./cron.js";

export type DueTicks = {
  readonly ticks: readonly NewTick[];
  /** The latest instant of the pattern that has come. */
  readonly firedAt: number;
  readonly nextAt: number | undefined;
};

/** Ticks recorded at once at most; the rest is due at the next look. */
const TOGETHER = 100;

/** Missed ticks recorded as skipped at most, so that history tells of them. */
const SKIPPED_SHOWN = 10;

/**
 * What of a schedule is due: the ticks that are in time, and of those that were missed as many as it wants made up for.
 * @param missedAfterMs how late a tick may be recorded and still be in time
 */
export function dueTicks(
  schedule: Pick<ScheduleRecord, "id" | "nextAt" | "missed" | "maxMissed">,
  cron: CronPattern,
  now: number,
  missedAfterMs: number,
): DueTicks | undefined {
  const first = schedule.nextAt;
  if (first === undefined || first > now) return undefined;
  const tick = (at: number): NewTick => ({
    id: tickIdAt(schedule.id, at),
    schedule: schedule.id,
    at,
    cause: "cron",
    chain: 0,
    recordedAt: now,
  });
  const missedBefore = now - missedAfterMs;
  if (first >= missedBefore) {
    const following = cron.next(TOGETHER, first);
    const due = [first, ...following.filter((at) => at <= now)];
    const firedAt = due.at(-1) ?? first;
    return { ticks: due.map(tick), firedAt, nextAt: following.find((at) => at > now) ?? cron.after(firedAt) };
  }
  // Of a long absence only the end is looked at, however often the pattern came.
  const wanted = { skip: 0, last: 1, all: schedule.maxMissed }[schedule.missed];
  const missed = cron.last(wanted + SKIPPED_SHOWN, missedBefore - 1, first);
  const made = missed.slice(missed.length - Math.min(wanted, missed.length));
  const skipped = missed.slice(0, missed.length - made.length);
  const firedAt = missed.at(-1) ?? first;
  return {
    ticks: [...skipped.map((at) => ({ ...tick(at), skipped: "missed" as const })), ...made.map(tick)],
    firedAt,
    nextAt: cron.after(firedAt),
  };
}

/** The unique key of a tick: whoever finds that it is due makes the same one. */
export function tickIdAt(schedule: string, at: number): string {
  return `${schedule}:${new Date(at).toISOString()}`;
}
