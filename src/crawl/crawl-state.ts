import { CrawlError } from "./errors.js";

/**
 * Values that a spider keeps for a crawl, the same on every node. A name has 1 to 200 characters; a value is JSON of
 * 16 KiB at most; a crawl has 1,000 of them at most. What is read may have changed by the time it is used: to count,
 * use `add`.
 */
export interface CrawlState {
  /** undefined when there is none of that name. */
  get(name: string): Promise<unknown>;
  /** @throws CrawlStateError if the name or the value is not to be kept */
  set(name: string, value: unknown): Promise<void>;
  /** Adds to a number, from 0 on; in one step, whoever else does so. @returns the sum @throws CrawlStateError */
  add(name: string, by?: number): Promise<number>;
  delete(name: string): Promise<void>;
}

/** Where the states of crawls are kept. */
export interface CrawlStates {
  of(crawl: string): CrawlState;
}

export const MAX_STATE_VALUES = 1_000;
const MAX_NAME_CHARACTERS = 200;
const MAX_VALUE_BYTES = 16_384;

/** A spider wanted to keep what cannot be kept: for the spider's author. */
export class CrawlStateError extends CrawlError {
  readonly code = "CRAWL_STATE";

  static tooMany(name: string): CrawlStateError {
    return new CrawlStateError(`state "${name}": a crawl keeps ${MAX_STATE_VALUES} values at most`);
  }
}

/** The value as it will be read again. @throws CrawlStateError */
export function checkedStateValue(name: string, value: unknown): unknown {
  if (typeof name !== "string" || name === "" || name.length > MAX_NAME_CHARACTERS || name.includes("\0")) {
    throw new CrawlStateError(
      `a state's name must have 1 to ${MAX_NAME_CHARACTERS} characters, none of them NUL`,
    );
  }
  let json: string | undefined;
  try {
    json = JSON.stringify(value);
  } catch (error) {
    throw new CrawlStateError(`state "${name}" must be JSON`, { cause: error });
  }
  if (json === undefined) throw new CrawlStateError(`state "${name}" must be JSON, not ${typeof value}`);
  if (Buffer.byteLength(json) > MAX_VALUE_BYTES) {
    throw new CrawlStateError(
      `state "${name}" has ${Buffer.byteLength(json)} bytes of JSON; ${MAX_VALUE_BYTES} at most are kept`,
    );
  }
  return JSON.parse(json) as unknown;
}

/** @throws CrawlStateError unless both are numbers */
export function sumOf(name: string, value: unknown, by: unknown): number {
  if (typeof value !== "number" || typeof by !== "number" || !Number.isFinite(value + by)) {
    throw new CrawlStateError(`state "${name}": only numbers can be added`);
  }
  return value + by;
}
