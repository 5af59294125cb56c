import { z } from "zod";

/** How often the URLs of a crawl are fetched again. Without it each is fetched once. */
export type RecrawlOptions = {
  /** Shortest time from one fetch of a URL to the next, in milliseconds. @default 3_600_000, an hour */
  readonly minIntervalMs: number;
  /** Longest time from one fetch of a URL to the next, in milliseconds. @default 2_592_000_000, 30 days */
  readonly maxIntervalMs: number;
  /** Time from the first fetch of a URL to the second, in milliseconds. @default 86_400_000, a day */
  readonly initialIntervalMs: number;
  /**
   * By what a URL's interval is divided when it was found changed, and multiplied when it was not.
   * @default 2
   */
  readonly factor: number;
  /** Share of an interval by which chance lengthens or shortens it, so that not all come due at once. @default 0.1 */
  readonly jitter: number;
  /** Rounds in a row that a URL may be gone (404, 410) before it is not fetched again. @default 3 */
  readonly goneAfter: number;
};

const HOUR_MS = 3_600_000;

export const RECRAWL_DEFAULTS: RecrawlOptions = {
  minIntervalMs: HOUR_MS,
  maxIntervalMs: 30 * 24 * HOUR_MS,
  initialIntervalMs: 24 * HOUR_MS,
  factor: 2,
  jitter: 0.1,
  goneAfter: 3,
};

const LONGEST_MS = 3_650 * 24 * HOUR_MS;

const interval = (name: "minIntervalMs" | "maxIntervalMs" | "initialIntervalMs") => {
  const bounds = `must be from 1 to ${LONGEST_MS}`;
  return z.int().min(1, bounds).max(LONGEST_MS, bounds).default(RECRAWL_DEFAULTS[name]);
};

/** The member `recrawl` of a crawl, as it comes from outside. */
export const recrawlOptions = z
  .strictObject({
    minIntervalMs: interval("minIntervalMs"),
    maxIntervalMs: interval("maxIntervalMs"),
    initialIntervalMs: interval("initialIntervalMs"),
    factor: z
      .number()
      .min(1, "must be from 1 to 100")
      .max(100, "must be from 1 to 100")
      .default(RECRAWL_DEFAULTS.factor),
    jitter: z
      .number()
      .min(0, "must be from 0 to 0.5")
      .max(0.5, "must be from 0 to 0.5")
      .default(RECRAWL_DEFAULTS.jitter),
    goneAfter: z
      .int()
      .min(1, "must be from 1 to 1000")
      .max(1_000, "must be from 1 to 1000")
      .default(RECRAWL_DEFAULTS.goneAfter),
  })
  .superRefine(({ minIntervalMs, maxIntervalMs }, context) => {
    if (minIntervalMs <= maxIntervalMs) return;
    context.addIssue({
      code: "custom",
      path: ["maxIntervalMs"],
      message: `must not be less than minIntervalMs, ${minIntervalMs}`,
    });
  });
