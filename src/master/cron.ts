import { Cron } from "croner";
import { messageOf } from "../lib/errors.js";

/** Occurrences looked at to find out how often a pattern comes. */
const LOOKED_AT = 120;

const MAX_CHARACTERS = 200;

/**
 * When something is to happen: a cron pattern of five fields (minute, hour, day of month, month, day of week) or six
 * (a second first), or a nickname such as `@daily`, read in a time zone.
 *
 * Where clocks are put forward or back: a pattern that names one time of day comes once on each such day, at the first
 * instant after the gap if its time is skipped, and the first of the two times if it comes twice. Any other pattern
 * (steps, lists, wildcards in hours or minutes) goes by the clock on the wall: what is skipped does not come, and
 * what comes twice comes twice.
 */
export class CronPattern {
  readonly #cron: Cron;

  /** @throws Error that says what is wrong with it */
  constructor(pattern: string, timezone: string) {
    if (pattern.length > MAX_CHARACTERS) throw new Error(`must have at most ${MAX_CHARACTERS} characters`);
    const trimmed = pattern.trim();
    if (!trimmed.startsWith("@") && ![5, 6].includes(trimmed.split(/\s+/).length)) {
      throw new Error("must have 5 fields, or 6 with seconds first, or be a nickname such as @daily");
    }
    try {
      this.#cron = new Cron(trimmed, {
        timezone,
        paused: true,
        ...(trimmed.startsWith("@") ? {} : { mode: "5-or-6-parts" as const }),
      });
    } catch (error) {
      throw new Error(`is not a cron pattern: ${messageOf(error).replace(/^CronPattern: /, "")}`);
    }
  }

  /** The first occurrence after this instant, in milliseconds since the epoch; undefined: it never comes again. */
  after(instant: number): number | undefined {
    return this.#cron.nextRun(new Date(instant))?.getTime();
  }

  /** The first occurrences after this instant. */
  next(count: number, instant: number): readonly number[] {
    const found: number[] = [];
    for (let at = this.after(instant); at !== undefined && found.length < count; at = this.after(at)) {
      found.push(at);
    }
    return found;
  }

  /** The last occurrences up to this instant, itself included, that are not before `from`; in order. */
  last(count: number, instant: number, from: number): readonly number[] {
    // Before the next second: an occurrence is a whole second, and what is asked for includes it.
    return this.#cron
      .previousRuns(count, new Date(Math.floor(instant / 1_000) * 1_000 + 1_000))
      .map((date) => date.getTime())
      .filter((at) => at >= from && at <= instant)
      .sort((one, other) => one - other);
  }

  /** The shortest time between two of the next occurrences, in milliseconds; undefined: there are not two. */
  shortestInterval(instant: number): number | undefined {
    const next = this.next(LOOKED_AT, instant);
    const gaps = next.slice(1).map((at, index) => at - (next[index] ?? at));
    return gaps.length === 0 ? undefined : Math.min(...gaps);
  }
}

/** Whether this names a time zone. */
export function isTimezone(name: string): boolean {
  // An offset such as "+02:00" is no zone: it knows no summer time.
  if (!/^[A-Za-z][A-Za-z0-9_+\-/]{0,63}$/.test(name)) return false;
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}
