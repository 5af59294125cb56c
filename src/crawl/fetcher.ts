import { isAscii, isUtf8 } from "node:buffer";
import { buildConnector, type Dispatcher, Pool } from "undici";
import { messageOf } from "../lib/errors.js";
import { ACCEPTED_ENCODINGS, ContentDecoder } from "./content-coding.js";
import { AddressRefusedError, FetchError } from "./errors.js";
import { NetworkGuard } from "./network-guard.js";
import { type FetchedBody, ResponseBody } from "./response-body.js";

export type { FetchedBody } from "./response-body.js";

export type FetcherOptions = {
  /** How requests name themselves. */
  readonly userAgent: string;
  /** From the start of a fetch to the end of its body, in milliseconds. @default 30_000 */
  readonly timeoutMs: number;
  /** For name resolution, TCP and TLS together, in milliseconds. @default 10_000 */
  readonly connectTimeoutMs: number;
  /** From the request to the end of the response's headers, in milliseconds. @default 30_000 */
  readonly headersTimeoutMs: number;
  /** Between two pieces of a body, in milliseconds. @default 30_000 */
  readonly bodyTimeoutMs: number;
  /** Bytes of a response's headers in all. @default 65_536 */
  readonly maxHeaderBytes: number;
  /** Connections to one origin at once. Lanes set the pace; this is a bound only. @default 64 */
  readonly connectionsPerHost: number;
  /** Origins whose connections are kept; the one unused for longest goes first. @default 512 */
  readonly maxPools: number;
  /** Networks in CIDR notation that may be fetched although they are not public. @default none */
  readonly allowedNetworks: readonly string[];
};

export const FETCHER_DEFAULTS: Omit<FetcherOptions, "userAgent"> = {
  timeoutMs: 30_000,
  connectTimeoutMs: 10_000,
  headersTimeoutMs: 30_000,
  bodyTimeoutMs: 30_000,
  maxHeaderBytes: 65_536,
  connectionsPerHost: 64,
  maxPools: 512,
  allowedNetworks: [],
};

export type FetchRequest = {
  /** Absolute, http or https; a fragment is not sent. */
  readonly url: string;
  /** @default "GET" */
  readonly method?: "GET" | "HEAD" | "POST";
  /**
   * Go before the fetcher's own. Those that belong to the connection or frame the message (`host`,
   * `content-length`, `connection` and the like) are not sent.
   */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** Ends the fetch at any time, its body included. */
  readonly signal?: AbortSignal;
  /** The `accept` header. @default HTML first, then anything */
  readonly accept?: string;
};

export type Fetched = {
  readonly url: string;
  readonly statusCode: number;
  /** Names in lower case; values of a repeated header joined with a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Type and subtype in lower case, without parameters; absent when there is none of that form. */
  readonly contentType?: string;
  /** Must be read, streamed or discarded; else the total time-out ends it. */
  readonly body: FetchedBody;
};

const DEFAULT_ACCEPT = "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8";

/** Headers that a request must not choose: they say where it goes, or where it ends. */
const OWN_HEADERS = new Set([
  "connection",
  "content-length",
  "expect",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** Headers of which only the first counts when a server sends several. */
const SINGLE_HEADERS = new Set(["content-type", "content-length", "location", "retry-after"]);

type Origin = { readonly pool: Pool; readonly origin: string; active: number; lastUse: number };

/**
 * Gets URLs, one request at a time: it follows no redirect and tries nothing twice, so that whoever asked can
 * judge each step. Whatever a server does ends in a response or in a FetchError, within the time and the
 * sizes that were set. Addresses are checked when a connection is made (`NetworkGuard`).
 */
export class Fetcher {
  readonly #options: FetcherOptions;
  readonly #guard: NetworkGuard;
  readonly #connect: buildConnector.connector;
  readonly #origins = new Map<string, Origin>();
  readonly #closing = new Set<Promise<void>>();
  readonly #plainHeaders: readonly string[];
  #uses = 0;
  #isClosed = false;

  /** @throws ConfigError when an allowed network is not in CIDR notation */
  constructor(options: Partial<FetcherOptions> & Pick<FetcherOptions, "userAgent">, guard?: NetworkGuard) {
    this.#options = { ...FETCHER_DEFAULTS, ...options };
    this.#guard = guard ?? new NetworkGuard({ allowed: this.#options.allowedNetworks });
    this.#connect = this.#guardedConnector();
    this.#plainHeaders = this.#headersOf({ url: "" });
  }

  /**
   * Sends one request; resolves when the response's headers are there.
   * @throws FetchError
   */
  fetch(request: FetchRequest): Promise<Fetched> {
    if (this.#isClosed) {
      return Promise.reject(new FetchError("network", `${request.url}: the fetcher is closed`));
    }
    const found = this.#findOrigin(request.url);
    if (found === undefined) {
      const error = new FetchError("network", `${request.url}: not an http or https URL`, {
        retryable: false,
      });
      return Promise.reject(error);
    }
    const { origin, path } = found;
    const { signal, body } = request;
    const exchange = new Exchange(request.url, this.#options.timeoutMs, signal, () => {
      origin.active -= 1;
    });
    origin.active += 1;
    this.#uses += 1;
    origin.lastUse = this.#uses;
    const isPlain = request.headers === undefined && request.accept === undefined;
    const options: Dispatcher.DispatchOptions = {
      path,
      method: request.method ?? "GET",
      headers: isPlain ? (this.#plainHeaders as string[]) : this.#headersOf(request),
      ...(body !== undefined && { body }),
    };
    if (!exchange.isOver) origin.pool.dispatch(options, exchange);
    return exchange.response;
  }

  /** How many origins' connections are held. */
  get pools(): number {
    return this.#origins.size;
  }

  /** Ends what runs and closes all connections. */
  async close(): Promise<void> {
    this.#isClosed = true;
    const pools = [...this.#origins.values()].map(({ pool }) => pool.destroy());
    this.#origins.clear();
    await Promise.all([...pools, ...this.#closing]);
  }

  #findOrigin(url: string): { origin: Origin; path: string } | undefined {
    // URLs that reach here are canonical almost always: then the pool is found without parsing.
    const pathStart = url.indexOf("/", 8);
    if (pathStart > 0) {
      const known = this.#origins.get(url.slice(0, pathStart));
      if (known !== undefined) {
        const fragment = url.indexOf("#", pathStart);
        return { origin: known, path: fragment < 0 ? url.slice(pathStart) : url.slice(pathStart, fragment) };
      }
    }
    let parsed: URL;
    try {
      parsed = new URL(url);
    } catch {
      return undefined;
    }
    if (parsed.protocol !== "http:" && parsed.protocol !== "https:") return undefined;
    return { origin: this.#open(parsed.origin), path: parsed.pathname + parsed.search };
  }

  #open(origin: string): Origin {
    const known = this.#origins.get(origin);
    if (known !== undefined) return known;
    if (this.#origins.size >= this.#options.maxPools) this.#closeLeastUsed();
    const { connectionsPerHost, headersTimeoutMs, bodyTimeoutMs, maxHeaderBytes } = this.#options;
    const pool = new Pool(origin, {
      connections: connectionsPerHost,
      connect: this.#connect,
      pipelining: 1,
      headersTimeout: headersTimeoutMs,
      bodyTimeout: bodyTimeoutMs,
      maxHeaderSize: maxHeaderBytes,
      keepAliveTimeout: 4_000,
      keepAliveMaxTimeout: 30_000,
    });
    const opened = { pool, origin, active: 0, lastUse: 0 };
    this.#origins.set(origin, opened);
    return opened;
  }

  /** Closes the pool that was unused for longest. When all are in use they are as many as tasks run. */
  #closeLeastUsed(): void {
    let least: Origin | undefined;
    for (const origin of this.#origins.values()) {
      if (origin.active === 0 && (least === undefined || origin.lastUse < least.lastUse)) least = origin;
    }
    if (least === undefined) return;
    this.#origins.delete(least.origin);
    const closing = least.pool.close().finally(() => this.#closing.delete(closing));
    this.#closing.add(closing);
  }

  /** Connects to permitted addresses only, whether the host is a name or an address. */
  #guardedConnector(): buildConnector.connector {
    const guard = this.#guard;
    const connect = buildConnector({
      timeout: this.#options.connectTimeoutMs,
      lookup: guard.lookup,
      // undici's types want the options of a whole connection here.
    } as buildConnector.BuildOptions);
    return (options, callback) => {
      try {
        guard.check(options.hostname);
      } catch (error) {
        callback(error as AddressRefusedError, null);
        return;
      }
      connect(options, callback);
    };
  }

  #headersOf({ headers, accept }: FetchRequest): string[] {
    const all = new Map([
      ["user-agent", this.#options.userAgent],
      ["accept", accept ?? DEFAULT_ACCEPT],
      ["accept-encoding", ACCEPTED_ENCODINGS],
    ]);
    for (const [name, value] of Object.entries(headers ?? {})) {
      const lower = name.toLowerCase();
      if (!OWN_HEADERS.has(lower)) all.set(lower, value);
    }
    return [...all].flat();
  }
}

/** One request and its response, from the dispatch to the end of the body. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly response: Promise<Fetched>;
  readonly #url: string;
  readonly #signal: AbortSignal | undefined;
  readonly #onOver: () => void;
  readonly #timer: NodeJS.Timeout;
  readonly #onAbort = () => this.#stop(this.#aborted());
  #resolve: (fetched: Fetched) => void = () => {};
  #reject: (error: FetchError) => void = () => {};
  #controller: Dispatcher.DispatchController | undefined;
  #body: ResponseBody | undefined;
  /** Why it was ended from here. */
  #stopped: FetchError | undefined;
  #isOver = false;

  constructor(url: string, timeoutMs: number, signal: AbortSignal | undefined, onOver: () => void) {
    this.#url = url;
    this.#signal = signal;
    this.#onOver = onOver;
    this.response = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#timer = setTimeout(() => {
      this.#stop(new FetchError("timeout", `${url}: not finished within ${timeoutMs} ms`));
    }, timeoutMs);
    if (signal?.aborted === true) this.#stop(this.#aborted());
    else signal?.addEventListener("abort", this.#onAbort, { once: true });
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    if (this.#stopped !== undefined) controller.abort(this.#stopped);
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    statusCode: number,
    rawHeaders: Record<string, string | string[] | undefined>,
  ): void {
    // Interim responses (RFC 9110, 15.2) announce the real one.
    if (this.#isOver || (statusCode >= 100 && statusCode < 200)) return;
    const headers = toHeaders(rawHeaders);
    let decoder: ContentDecoder | undefined;
    try {
      decoder = ContentDecoder.for(headers["content-encoding"], this.#url);
    } catch (error) {
      this.#stop(error as FetchError);
      return;
    }
    const declaredBytes = declaredLength(headers);
    this.#body = new ResponseBody({
      url: this.#url,
      controller,
      ...(decoder !== undefined && { decoder }),
      ...(declaredBytes !== undefined && { declaredBytes }),
    });
    const contentType = essenceOf(headers["content-type"]);
    this.#resolve({
      url: this.#url,
      statusCode,
      headers,
      ...(contentType !== undefined && { contentType }),
      body: this.#body,
    });
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#body?.push(chunk);
  }

  onResponseEnd(): void {
    this.#finish();
    this.#body?.end();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.#fail(this.#stopped ?? failureOf(error, this.#url));
  }

  #aborted(): FetchError {
    return new FetchError("network", `${this.#url}: stopped`, { cause: this.#signal?.reason });
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
    this.#finish();
    if (this.#body === undefined) this.#reject(failure);
    else this.#body.fail(failure);
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#onOver();
  }
}

function toHeaders(raw: Record<string, string | string[] | undefined>): Record<string, string> {
  const headers: Record<string, string> = {};
  for (const name of Object.keys(raw)) {
    const value = raw[name];
    if (typeof value === "string") headers[name] = value;
    else if (value !== undefined) {
      headers[name] = SINGLE_HEADERS.has(name) ? (value[0] ?? "") : value.join(", ");
    }
  }
  if (headers.location !== undefined) headers.location = asUtf8(headers.location);
  return headers;
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

const TIMEOUT_CODES = new Set([
  "UND_ERR_CONNECT_TIMEOUT",
  "UND_ERR_HEADERS_TIMEOUT",
  "UND_ERR_BODY_TIMEOUT",
  "ETIMEDOUT",
]);

/** Failures that the same request would meet again: certificates (OpenSSL's names) and requests we refuse. */
const PERMANENT_CODE =
  /^(ERR_TLS_CERT|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)|HOSTNAME_MISMATCH|UND_ERR_(INVALID_ARG|NOT_SUPPORTED))/;

/** What undici or the system reports, in our words. */
function failureOf(error: Error, url: string): FetchError {
  const refused = addressRefusal(error);
  if (refused !== undefined)
    return new FetchError("address", `${url}: ${refused.message}`, { cause: refused });
  const code = codeOf(error);
  const message = `${url}: ${messageOf(error).trim() || code || "the connection failed"}`;
  if (TIMEOUT_CODES.has(code)) return new FetchError("timeout", message, { cause: error });
  if (code === "UND_ERR_HEADERS_OVERFLOW") return new FetchError("too-large", message, { cause: error });
  return new FetchError("network", message, { cause: error, retryable: !PERMANENT_CODE.test(code) });
}

function addressRefusal(error: unknown): AddressRefusedError | undefined {
  if (error instanceof AddressRefusedError) return error;
  if (error instanceof AggregateError) {
    for (const inner of error.errors) {
      if (inner instanceof AddressRefusedError) return inner;
    }
  }
  return undefined;
}

function codeOf(error: Error): string {
  if ("code" in error && typeof error.code === "string") return error.code;
  if (error instanceof AggregateError) {
    for (const inner of error.errors) {
      if (inner instanceof Error && "code" in inner && typeof inner.code === "string") return inner.code;
    }
  }
  return "";
}
