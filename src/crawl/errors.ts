import { WarrenError } from "../lib/errors.js";
import type { FailReason, SkipReason } from "./frontier.js";

/** Something went wrong with one URL. It ends that URL, or its attempt, and nothing else. */
export abstract class CrawlError extends WarrenError {}

/** What can go wrong in a fetch, in the words in which a URL's end is told. */
export type FetchFailure =
  | Extract<FailReason, "network" | "timeout" | "too-large" | "decode">
  | Extract<SkipReason, "address">;

export type FetchErrorOptions = ErrorOptions & {
  /** Whether another attempt might end otherwise. @default true for `network` and `timeout` */
  readonly retryable?: boolean;
};

/**
 * A response could not be had, or not whole: no connection, garbage, a time-out, too many bytes, a body that
 * does not decode, an address that may not be fetched, or the caller's own signal (which the caller can
 * see). Not for a response that merely says no: a status of 404 or 503 is a result.
 */
export class FetchError extends CrawlError {
  readonly code = "FETCH";
  readonly reason: FetchFailure;
  readonly retryable: boolean;

  constructor(reason: FetchFailure, message: string, options: FetchErrorOptions = {}) {
    const { retryable = reason === "network" || reason === "timeout", ...rest } = options;
    super(message, rest);
    this.reason = reason;
    this.retryable = retryable;
  }
}

/**
 * A host's address is private, loopback, link-local or otherwise none of the public Internet's, and no
 * allowed network holds it. Thrown at connect time and reported as the cause of a `FetchError` with reason
 * `address`. Not for a name that does not resolve: that is a `FetchError` with reason `network`.
 */
export class AddressRefusedError extends CrawlError {
  readonly code = "ADDRESS";

  constructor(host: string, addresses: readonly string[]) {
    const which = addresses.length === 1 && addresses[0] === host ? "" : ` (${addresses.join(", ")})`;
    super(`${host}${which} is not a public address, and no allowed network holds it`);
  }
}

/**
 * What a task brought could not be stored for now. Not the URL's fault: it is handed back, and no attempt is
 * counted. Not for a body that broke off while it was stored: that is a `FetchError`.
 */
export class StorageError extends CrawlError {
  readonly code = "unavailable";
}

/**
 * A spider threw, took too long, or yielded something that is neither item, request nor file. Trying the page
 * again would not help. Not for a page that could not be fetched or decoded.
 */
export class SpiderError extends CrawlError {
  readonly code = "SPIDER";
}
