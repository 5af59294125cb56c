import { z } from "zod";
import { type RobotsPoliteness, robotsPoliteness } from "./robots/robots-options.js";

/** How a crawl treats the hosts that it visits. Of crawls that share a host the strictest counts. */
export type Politeness = RobotsPoliteness & {
  /** From the end of one fetch to the start of the next on a host, in milliseconds. @default 0 */
  readonly delayMs: number;
  /** Fetches at once on a host. @default 4 */
  readonly maxConcurrencyPerHost: number;
  /** Whether robots.txt is asked and obeyed. @default true */
  readonly obeyRobots: boolean;
  /**
   * The delay after a fetch is at least so many times as long as the fetch took, as Heritrix's `delayFactor`: a host
   * that gets slower is asked less often. @default 0
   */
  readonly delayFactor?: number;
  /** A delay that follows from `delayFactor` is no longer than this, in milliseconds. @default 30_000 */
  readonly maxDelayMs?: number;
  /** Body bytes a second that are asked of a host at most, over any while. @default no limit */
  readonly maxBytesPerSecond?: number;
};

export const DEFAULT_POLITENESS: Politeness = { delayMs: 0, maxConcurrencyPerHost: 4, obeyRobots: true };

/** @see Politeness.maxDelayMs */
export const DEFAULT_MAX_DELAY_MS = 30_000;

const DAY_MS = 86_400_000;

const members = z.strictObject({
  delayMs: whole(0, DAY_MS),
  maxConcurrencyPerHost: whole(1, 1_000),
  obeyRobots: z.boolean(),
  delayFactor: z
    .number()
    .min(0, "must be from 0 to 1000")
    .max(1_000, "must be from 0 to 1000")
    .exactOptional(),
  maxDelayMs: whole(0, DAY_MS).exactOptional(),
  maxBytesPerSecond: whole(1, Number.MAX_SAFE_INTEGER).exactOptional(),
  ...robotsPoliteness,
});

/** As it comes from outside, for a new crawl. */
export const politeness = members.extend({
  delayMs: members.shape.delayMs.default(DEFAULT_POLITENESS.delayMs),
  maxConcurrencyPerHost: members.shape.maxConcurrencyPerHost.default(
    DEFAULT_POLITENESS.maxConcurrencyPerHost,
  ),
  obeyRobots: members.shape.obeyRobots.default(DEFAULT_POLITENESS.obeyRobots),
});

/** What of it may change while a crawl runs; null takes an option away. */
export const politenessChanges = z.strictObject({
  delayMs: members.shape.delayMs.exactOptional(),
  maxConcurrencyPerHost: members.shape.maxConcurrencyPerHost.exactOptional(),
  obeyRobots: members.shape.obeyRobots.exactOptional(),
  delayFactor: members.shape.delayFactor.unwrap().nullable().exactOptional(),
  maxDelayMs: members.shape.maxDelayMs.unwrap().nullable().exactOptional(),
  maxBytesPerSecond: members.shape.maxBytesPerSecond.unwrap().nullable().exactOptional(),
  ignoreRobotsOn: members.shape.ignoreRobotsOn.unwrap().nullable().exactOptional(),
  obeyMetaRobots: members.shape.obeyMetaRobots.unwrap().nullable().exactOptional(),
});

function whole(least: number, most: number) {
  const bounds = `must be from ${least} to ${most}`;
  return z.int().min(least, bounds).max(most, bounds);
}
