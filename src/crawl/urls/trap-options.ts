import { z } from "zod";

/**
 * From when on a crawl takes a URL for one of a trap: a site, or a fault in one, that makes URLs without end. A normal
 * site stays far below. From `sessions` on they are counted, in each process for itself.
 */
export type TrapOptions = {
  /** Segments of a path at most. @default 50 */
  readonly segments?: number;
  /**
   * A path is refused when a run of two or more segments comes this often in a row, a single one once more, or one
   * anywhere twice as often. @default 3
   */
  readonly repeats?: number;
  /** Parameters of a query at most. @default 50 */
  readonly parameters?: number;
  /** Years into the future that a page of one date may lead to the same of a later one. @default 2 */
  readonly futureYears?: number;
  /** Years into the past that a page of one date may lead to the same of an earlier one. @default 50 */
  readonly pastYears?: number;
  /** Spellings of one URL that differ in session ids only. @default 3 */
  readonly sessions?: number;
  /** Different queries of one path at most. @default 200_000 */
  readonly queries?: number;
  /** Different sets of parameter names in the queries of one path. @default 500 */
  readonly combinations?: number;
  /**
   * Queries of one path for each value of the parameter that has most values, from 5,000 queries on: where few values
   * make many queries, they are being combined. @default 50
   */
  readonly queriesPerValue?: number;
  /**
   * Paths of four and more segments on one host for each different segment in them, from 20,000 paths on: where few
   * segments make many paths, as relative links on every page do, they are being combined. @default 500
   */
  readonly pathsPerSegment?: number;
};

export const DEFAULT_TRAPS: Required<TrapOptions> = {
  segments: 50,
  repeats: 3,
  parameters: 50,
  futureYears: 2,
  pastYears: 50,
  sessions: 3,
  queries: 200_000,
  combinations: 500,
  queriesPerValue: 50,
  pathsPerSegment: 500,
};

function whole(least: number, most: number) {
  const bounds = `must be from ${least} to ${most}`;
  return z.int().min(least, bounds).max(most, bounds).exactOptional();
}

export const trapOptions = z.union(
  [
    z.boolean(),
    z.strictObject({
      segments: whole(1, 8_192),
      repeats: whole(2, 8_192),
      parameters: whole(1, 8_192),
      futureYears: whole(0, 1_000),
      pastYears: whole(0, 1_000),
      sessions: whole(1, 1_000),
      queries: whole(1, 1_000_000_000),
      combinations: whole(1, 1_000_000),
      queriesPerValue: whole(2, 1_000_000),
      pathsPerSegment: whole(2, 1_000_000),
    }),
  ],
  { error: "must be true, false or an object of limits" },
);
