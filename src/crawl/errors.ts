import { WarrenError } from "../lib/errors.js";
import type { FailReason, SkipReason } from "./frontier.js";

/** Something went wrong with one URL. It ends that URL, or its attempt, and nothing else. */
export abstract class CrawlError extends WarrenError {}

/** What can go wrong in a fetch, in the words in which a URL's end is told. */
export type FetchFailure =
  | Extract<FailReason, "network" | "timeout" | "too-large" | "decode">
  | Extract<SkipReason, "address">;

/**
 * How far a fetch had come when it failed: `dns` resolving the name, `connect` TCP, TLS and a proxy's tunnel,
 * `headers` from the request to the end of the response's headers, `body` in it, `all` the time for all of it.
 */
export type FetchPhase = "dns" | "connect" | "headers" | "body" | "all";

export type FetchErrorOptions = ErrorOptions & {
  /** Whether another attempt might end otherwise. @default true for `network` and `timeout` */
  readonly retryable?: boolean;
  readonly phase?: FetchPhase;
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
  /** Absent when it is none of them, or cannot be told. */
  readonly phase?: FetchPhase;

  constructor(reason: FetchFailure, message: string, options: FetchErrorOptions = {}) {
    const { retryable = reason === "network" || reason === "timeout", phase, ...rest } = options;
    super(message, rest);
    this.reason = reason;
    this.retryable = retryable;
    if (phase !== undefined) this.phase = phase;
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
 * The resolver gave no answer for a name in time. Reported as the cause of a `FetchError` with reason
 * `timeout`. Not for a name that does not exist: that was answered, and is `network`.
 */
export class DnsTimeoutError extends CrawlError {
  readonly code = "DNS_TIMEOUT";

  constructor(hostname: string, timeoutMs: number) {
    super(`the name ${hostname} was not resolved within ${timeoutMs} ms`);
  }
}

/**
 * No connection came free for a request in time: as many are open as may be. Reported as the cause of a
 * `FetchError` with reason `timeout`.
 */
export class ConnectionsBusyError extends CrawlError {
  readonly code = "CONNECTIONS_BUSY";

  constructor(maxConnections: number, waitedMs: number) {
    super(`all ${maxConnections} connections were in use for ${waitedMs} ms`);
  }
}

/**
 * A proxy cannot be reached, or does not do as it is asked. Reported as the cause of a `FetchError` with reason
 * `network` when no other proxy did either. Not for a host that the proxy could not reach: that is the host's
 * fault. The proxy is named without its user and password.
 */
export class ProxyError extends CrawlError {
  readonly code = "PROXY";

  constructor(proxy: string, what: string, options?: ErrorOptions) {
    super(`proxy ${proxy}: ${what}`, options);
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

/**
 * A spider's code cannot be had here now, or not be made ready to run. Not for a spider that does not exist, nor for one
 * that fails on a page.
 */
export class SpiderUnavailableError extends CrawlError {
  readonly code = "SPIDER_UNAVAILABLE";
  /** Whether it may be otherwise a little later. */
  readonly retryable: boolean;

  /** @param options `retryable` @default true */
  constructor(message: string, options: ErrorOptions & { readonly retryable?: boolean } = {}) {
    const { retryable = true, ...rest } = options;
    super(message, rest);
    this.retryable = retryable;
  }
}

/**
 * A page was fetched and could not be rendered: its process crashed or grew too large, its document was not to be had
 * in time, or is too large. Not for a page that is merely not quiet in time: what is there then is taken.
 */
export class RenderError extends CrawlError {
  readonly code = "RENDER";
  readonly reason: Extract<FailReason, "timeout" | "too-large" | "spider-error">;
  /** Whether another attempt might end otherwise. */
  readonly retryable: boolean;

  constructor(
    reason: RenderError["reason"],
    message: string,
    options: ErrorOptions & { readonly retryable: boolean },
  ) {
    const { retryable, ...rest } = options;
    super(message, rest);
    this.reason = reason;
    this.retryable = retryable;
  }
}

/** Rendering was asked for where no browser is to be had. Not for a browser that crashed: another is started. */
export class NoBrowserError extends CrawlError {
  readonly code = "NO_BROWSER";
}

/** Why a document could not be read. */
export type DocumentFailure = "timeout" | "memory" | "too-large" | "broken" | "encrypted" | "stopped";

/**
 * An article, Markdown or a PDF could not be made or read: it took too long (`timeout`) or too much (`memory`), is
 * too large, broken, encrypted, or the program is ending (`stopped`). For the spider that asked for it, which may go
 * on without. Not for a page that simply has no article.
 */
export class DocumentError extends CrawlError {
  readonly code = "DOCUMENT";
  readonly reason: DocumentFailure;

  constructor(reason: DocumentFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.reason = reason;
  }
}
