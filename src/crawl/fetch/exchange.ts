import { isAscii, isUtf8 } from "node:buffer";
import { type Dispatcher, errors } from "undici";
import type { ExchangeTap } from "../archive/archive.js";
import { FetchError, type FetchPhase } from "../errors.js";
import type { WireHeader } from "../records.js";
import { ContentDecoder } from "./content-coding.js";
import { failureOf, type PhaseLimits } from "./fetch-failure.js";
import type { Metered } from "./rate-watch.js";
import { type FetchedBody, ResponseBody } from "./response-body.js";

export type Fetched = {
  readonly url: string;
  readonly statusCode: number;
  /** Names in lower case; values of a repeated header joined with a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Each `set-cookie` by itself; absent when there is none. */
  readonly setCookies?: readonly string[];
  /** Type and subtype in lower case, without parameters; absent when there is none of that form. */
  readonly contentType?: string;
  /** Must be read, streamed or discarded; else the total time-out ends it. */
  readonly body: FetchedBody;
};

/** What holds for each response, whoever asked. */
export type ExchangeLimits = PhaseLimits & {
  readonly maxHeaderBytes: number;
  readonly maxHeaders: number;
};

export type ExchangeOptions = {
  readonly url: string;
  /** For all of it, in milliseconds. */
  readonly timeoutMs: number;
  readonly limits: ExchangeLimits;
  readonly signal?: AbortSignal | undefined;
  readonly tap?: ExchangeTap | undefined;
};

/** Who is told how an exchange goes. */
export interface ExchangeWatcher {
  /** Its body begins. */
  bodyBegins(exchange: Exchange): void;
  /** It is over, one way or another. */
  ended(exchange: Exchange): void;
}

/** Headers of which only the first counts when a server sends several. */
const SINGLE_HEADERS = new Set(["content-type", "content-length", "location", "retry-after"]);
/** Responses that only announce another (RFC 9110, 15.2) before it must come. */
const MAX_INTERIM = 20;

/** One request and its response, from the dispatch to the end of the body. */
export class Exchange implements Dispatcher.DispatchHandler, Metered {
  readonly response: Promise<Fetched>;
  readonly #options: ExchangeOptions;
  readonly #watcher: ExchangeWatcher;
  readonly #timer: NodeJS.Timeout;
  readonly #onAbort = () => this.#stop(this.#aborted());
  #resolve: (fetched: Fetched) => void = () => {};
  #reject: (error: FetchError) => void = () => {};
  #controller: Dispatcher.DispatchController | undefined;
  #body: ResponseBody | undefined;
  /** Why it was ended from here. */
  #stopped: FetchError | undefined;
  #interim = 0;
  #isOver = false;
  #hasNoBody = false;

  constructor(options: ExchangeOptions, watcher: ExchangeWatcher) {
    this.#options = options;
    this.#watcher = watcher;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    const { url, timeoutMs, signal } = options;
    this.#timer = setTimeout(() => {
      this.#stop(new FetchError("timeout", `${url}: not finished within ${timeoutMs} ms`, { phase: "all" }));
    }, timeoutMs);
    if (signal?.aborted === true) this.#stop(this.#aborted());
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  meter(): number | undefined {
    return this.#body?.meter();
  }

  tooSlow(bytes: number, ms: number): void {
    const told = `${this.#options.url}: too slow: ${bytes} bytes of the body in ${ms} ms`;
    this.#stop(new FetchError("timeout", told, { phase: "body" }));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#stopped !== undefined) controller.abort(this.#stopped);
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    statusCode: number,
    rawHeaders: Record<string, string | string[] | undefined>,
    statusText = "",
  ): void {
    const { url, limits, tap } = this.#options;
    if (this.#isOver) return;
    if (statusCode < 200) {
      this.#interim += 1;
      if (this.#interim > MAX_INTERIM) {
        const told = `${url}: more than ${MAX_INTERIM} interim responses`;
        this.#stop(new FetchError("network", told, { phase: "headers" }));
      }
      return;
    }
    let head: Head;
    let decoder: ContentDecoder | undefined;
    try {
      head = headOf(rawHeaders, url, limits);
      decoder = ContentDecoder.for(head.headers["content-encoding"], url);
    } catch (error) {
      this.#stop(error as FetchError);
      return;
    }
    const { headers, setCookies } = head;
    tap?.responseBegan({ statusCode, statusText, headers: wireHeaders(controller) });
    // These end with their headers, whatever length they name (RFC 9112, 6.3): a 304 may name the page's.
    this.#hasNoBody = statusCode === 204 || statusCode === 304;
    const declaredBytes = this.#hasNoBody ? 0 : declaredLength(headers);
    this.#body = new ResponseBody({
      url,
      controller,
      readsOn: tap !== undefined,
      ...(decoder !== undefined && { decoder }),
      ...(declaredBytes !== undefined && { declaredBytes }),
    });
    this.#watcher.bodyBegins(this);
    const contentType = essenceOf(headers["content-type"]);
    this.#resolve({
      url,
      statusCode,
      headers,
      ...(setCookies !== undefined && { setCookies }),
      ...(contentType !== undefined && { contentType }),
      body: this.#body,
    });
    // Neither has a body, whatever its Content-Length says (RFC 9110, 6.4.1 and 8.6), which undici would wait for.
    if (statusCode === 204 || statusCode === 304) {
      this.#finish(undefined);
      this.#body.end();
    }
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#isOver) return;
    this.#options.tap?.bodyReceived(chunk);
    this.#body?.push(chunk);
  }

  onResponseEnd(): void {
    if (this.#body === undefined) {
      const told = `${this.#options.url}: its answer ended before its headers did`;
      this.#fail(new FetchError("network", told, { phase: "headers" }));
      return;
    }
    this.#finish(undefined);
    this.#body.end();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#hasNoBody && error instanceof errors.ResponseContentLengthMismatchError) {
      this.onResponseEnd();
      return;
    }
    const { url, limits } = this.#options;
    this.#fail(this.#stopped ?? failureOf(error, url, this.#phase, limits));
  }

  /** How far it has come. */
  get #phase(): FetchPhase {
    if (this.#controller === undefined) return "connect";
    return this.#body === undefined ? "headers" : "body";
  }

  #aborted(): FetchError {
    const { url, signal } = this.#options;
    return new FetchError("network", `${url}: stopped`, { cause: signal?.reason });
  }

  /** Ends it from here, whether or not a connection was found for it. */
  #stop(failure: FetchError): void {
    if (this.#isOver) return;
    this.#stopped = failure;
    this.#fail(failure);
    this.#controller?.abort(failure);
  }

  #fail(failure: FetchError): void {
    if (this.#isOver) return;
    this.#finish(failure);
    if (this.#body === undefined) this.#reject(failure);
    else this.#body.fail(failure);
  }

  #finish(failure: FetchError | undefined): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#watcher.ended(this);
    this.#options.tap?.ended(failure);
  }
}

type Head = { readonly headers: Record<string, string>; readonly setCookies?: readonly string[] };

/**
 * undici bounds the headers' bytes on HTTP/1 connections only, and their number on none.
 * @throws FetchError `too-large`
 */
function headOf(
  raw: Record<string, string | string[] | undefined>,
  url: string,
  { maxHeaders, maxHeaderBytes }: ExchangeLimits,
): Head {
  const headers: Record<string, string> = {};
  let count = 0;
  let bytes = 0;
  for (const name of Object.keys(raw)) {
    const value = raw[name];
    if (value === undefined) continue;
    if (typeof value === "string") {
      headers[name] = value;
      count += 1;
      bytes += name.length + value.length;
    } else {
      headers[name] = SINGLE_HEADERS.has(name) ? (value[0] ?? "") : value.join(", ");
      count += value.length;
      for (const one of value) bytes += name.length + one.length;
    }
  }
  if (count > maxHeaders) throw headersTooLarge(url, `more than ${maxHeaders} of them`);
  if (bytes > maxHeaderBytes) throw headersTooLarge(url, `more than ${maxHeaderBytes} bytes`);
  if (headers.location !== undefined) headers.location = asUtf8(headers.location);
  const cookies = raw["set-cookie"];
  if (cookies === undefined) return { headers };
  return { headers, setCookies: typeof cookies === "string" ? [cookies] : cookies };
}

function headersTooLarge(url: string, what: string): FetchError {
  return new FetchError("too-large", `${url}: its headers are too large (${what})`, { phase: "headers" });
}

/** Header bytes come as ISO 8859-1; in a URL they are UTF-8 if they can be, as browsers read them. */
function asUtf8(value: string): string {
  const bytes = Buffer.from(value, "latin1");
  return !isAscii(bytes) && isUtf8(bytes) ? bytes.toString("utf8") : value;
}

function declaredLength(headers: Record<string, string>): number | undefined {
  const text = headers["content-length"];
  return text !== undefined && /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

function essenceOf(contentType: string | undefined): string | undefined {
  if (contentType === undefined) return undefined;
  const essence = contentType.split(/[;,]/, 1)[0]?.trim().toLowerCase() ?? "";
  return /^[^\s/]+\/[^\s/]+$/.test(essence) ? essence : undefined;
}

/** undici has them as one list of names and values. */
function wireHeaders({ rawHeaders }: Dispatcher.DispatchController): readonly WireHeader[] {
  const headers: WireHeader[] = [];
  const raw = Array.isArray(rawHeaders) ? rawHeaders : [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    headers.push([textOf(raw[index]), textOf(raw[index + 1])]);
  }
  return headers;
}

function textOf(part: unknown): string {
  return Buffer.isBuffer(part) ? part.toString("latin1") : String(part);
}
