import { isUtf8 } from "node:buffer";
import type { BrowserContext, Page, Request, Route } from "playwright-core";
import { FetchError } from "../errors.js";
import type { Fetched, Fetcher } from "../fetch/fetcher.js";
import { canonicalUrl } from "../urls/url.js";
import type { PagePart, PartCache } from "./part-cache.js";
import { Places } from "./places.js";
import type { BlockableType } from "./render-options.js";

/** What one rendered page may ask of the network, beside its document. */
export type PageNetworkLimits = {
  /** Requests in all. @default 300 */
  readonly maxRequests: number;
  /** Body bytes of them in all, decoded. @default 32 MiB */
  readonly maxBytes: number;
  /** Frames in the page. @default 20 */
  readonly maxFrames: number;
  /** At the same time. @default 6 */
  readonly requestsAtOnce: number;
};

export const PAGE_NETWORK_DEFAULTS: PageNetworkLimits = {
  maxRequests: 300,
  maxBytes: 32 * 2 ** 20,
  maxFrames: 20,
  requestsAtOnce: 6,
};

/** A fetched document that a page is made from. */
export type FetchedDocument = Pick<Fetched, "url" | "statusCode" | "headers" | "setCookies"> & {
  readonly body: Buffer;
};

export type PageNetworkInput = {
  readonly page: Page;
  readonly context: BrowserContext;
  readonly document: FetchedDocument;
  /** The crawl's id. */
  readonly crawl: string;
  /** What pages of the crawl have in common. */
  readonly cache: PartCache;
  readonly fetch: Fetcher["fetch"];
  /** Whether robots.txt has nothing against a URL. */
  readonly mayFetch: (url: string) => Promise<boolean>;
  readonly blockedTypes: readonly BlockableType[];
  readonly limits: PageNetworkLimits;
  readonly signal: AbortSignal;
  /** The page wants to be elsewhere. */
  readonly onLeave: (url: string) => void;
};

/** Kinds of requests that bring nothing into the document. */
const NEVER_FETCHED: ReadonlySet<string> = new Set([
  "cspreport",
  "cspviolationreport",
  "eventsource",
  "manifest",
  "ping",
  "prefetch",
  "texttrack",
  "websocket",
]);

const REDIRECTS = new Set([301, 302, 303, 307, 308]);
const MAX_REDIRECTS = 10;

/** Request headers of the browser's that our fetcher sets itself, or that would tell of another browser. */
const OWN_REQUEST_HEADERS =
  /^(sec-|accept-encoding$|cookie$|user-agent$|upgrade-insecure-requests$|purpose$|host$)/;

/**
 * Response headers that are no longer true of a decoded body, or that would have the browser find other ways into the
 * network.
 */
const DROPPED_RESPONSE_HEADERS = new Set([
  "alt-svc",
  "connection",
  "content-encoding",
  "content-length",
  "keep-alive",
  "link",
  "nel",
  "report-to",
  "reporting-endpoints",
  "strict-transport-security",
  "trailer",
  "transfer-encoding",
]);

/**
 * The network as a rendered page sees it: nothing but what our own fetcher brings.
 *
 * The document itself was fetched before, as every page is, and is handed over. Whatever else the page asks for is
 * judged (kind, number, robots.txt), fetched with the same address rules, limits and time as all fetches, redirects
 * followed here hop by hop, and handed over as well. When the page wants to be another document that is told, and not
 * done: the engine judges it as a redirect.
 */
export class PageNetwork {
  readonly #input: PageNetworkInput;
  readonly #places: Places;
  readonly #blocked: ReadonlySet<string>;
  #isServed = false;
  #requests = 0;
  #frames = 0;
  #bytes = 0;

  constructor(input: PageNetworkInput) {
    this.#input = input;
    this.#places = new Places(input.limits.requestsAtOnce);
    this.#blocked = new Set(input.blockedTypes);
  }

  /** Body bytes that were fetched for the page, its document not counted. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Requests that were made for the page, its document not counted. */
  get requests(): number {
    return this.#requests;
  }

  /** From here on every request of the context comes through here. */
  async open(): Promise<void> {
    await this.#input.context.route(
      () => true,
      (route) => this.#answer(route).catch(() => this.#refuse(route)),
    );
  }

  async #answer(route: Route): Promise<void> {
    const request = route.request();
    const { page, document, onLeave } = this.#input;
    switch (placeOf(request, page)) {
      case "elsewhere":
        return this.#refuse(route);
      case "document": {
        if (!this.#isServed) {
          this.#isServed = true;
          const { statusCode, body } = document;
          // Known to be a document, whatever it says of how it is to be opened.
          const passed: Record<string, string> = { "content-type": "text/html", ...headersOf(document) };
          delete passed["content-disposition"];
          return route.fulfill({ status: statusCode, headers: passed, body });
        }
        if (request.method() === "GET") onLeave(request.url());
        // Aborted, not failed: the document that is there stays.
        return route.abort("aborted");
      }
      case "frame":
        this.#frames += 1;
        if (this.#frames > this.#input.limits.maxFrames) return this.#refuse(route);
    }
    if (!this.#isWanted(request)) return this.#refuse(route);
    this.#requests += 1;
    const leave = await this.#places.take(this.#input.signal);
    try {
      if (leave === undefined) return await this.#refuse(route);
      const part = await this.#partFor(request);
      await route.fulfill({ status: part.statusCode, headers: headersOf(part), body: part.body });
    } finally {
      leave?.();
    }
  }

  #isWanted(request: Request): boolean {
    const { limits, signal } = this.#input;
    const type = request.resourceType();
    return (
      !signal.aborted &&
      !NEVER_FETCHED.has(type) &&
      !this.#blocked.has(type) &&
      // Looked up by the browser alone, and shown by no document.
      !request.url().endsWith("/favicon.ico") &&
      this.#requests < limits.maxRequests &&
      this.#bytes < limits.maxBytes
    );
  }

  /** What answers a request: kept from another page, or fetched. @throws FetchError */
  async #partFor(request: Request): Promise<PagePart> {
    const { crawl, cache, mayFetch } = this.#input;
    const [type, url] = [request.resourceType(), request.url()];
    if (request.method() !== "GET") return this.#fetch(request);
    const kept = cache.get(crawl, type, url);
    if (kept !== undefined && (await mayFetch(url))) return kept;
    const part = await this.#fetch(request);
    cache.keep(crawl, type, url, part);
    return part;
  }

  /** Fetches what a request asks for, redirects followed. @throws FetchError */
  async #fetch(request: Request): Promise<PagePart> {
    const { fetch, mayFetch, limits, signal } = this.#input;
    const origin = new URL(request.url()).origin;
    let url = request.url();
    let method = methodOf(request);
    let payload = payloadOf(request);
    for (let hops = 0; hops <= MAX_REDIRECTS; hops += 1) {
      if (!(await mayFetch(url)))
        throw new FetchError("network", `${url}: robots.txt forbids it`, { retryable: false });
      const fetched = await fetch({
        url,
        method,
        headers: await this.#headersFor(request, url, new URL(url).origin === origin),
        ...(payload !== undefined && { body: payload }),
        signal,
      });
      const location = REDIRECTS.has(fetched.statusCode) ? fetched.headers.location : undefined;
      if (location === undefined) {
        // Read within what is left of all; requests under way at the same time may pass that once.
        const body = await fetched.body.read(Math.max(1, limits.maxBytes - this.#bytes));
        this.#bytes += body.length;
        return { ...fetched, body };
      }
      fetched.body.discard();
      const target = canonicalUrl(location, url);
      if (target === undefined)
        throw new FetchError("network", `${url}: redirects to ${location.slice(0, 200)}`);
      url = target.url;
      // RFC 9110, 15.4: as browsers do.
      if (fetched.statusCode === 303 || (method === "POST" && fetched.statusCode < 303)) {
        method = "GET";
        payload = undefined;
      }
    }
    throw new FetchError("network", `${request.url()}: more than ${MAX_REDIRECTS} redirects`, {
      retryable: false,
    });
  }

  async #headersFor(request: Request, url: string, isSameOrigin: boolean): Promise<Record<string, string>> {
    const headers: Record<string, string> = {};
    for (const [name, value] of Object.entries(request.headers())) {
      if (OWN_REQUEST_HEADERS.test(name)) continue;
      if (name === "authorization" && !isSameOrigin) continue;
      headers[name] = value;
    }
    const cookies = await this.#input.context.cookies(url);
    if (cookies.length > 0) headers.cookie = cookies.map(({ name, value }) => `${name}=${value}`).join("; ");
    return headers;
  }

  async #refuse(route: Route): Promise<void> {
    // It may be answered already, or its page gone.
    await route.abort("blockedbyclient").catch(() => {});
  }
}

/** What a request is for: the page's document, a document in one of its frames, something in it, or another page. */
function placeOf(request: Request, page: Page): "document" | "frame" | "part" | "elsewhere" {
  try {
    const frame = request.frame();
    if (frame.page() !== page) return "elsewhere";
    if (!request.isNavigationRequest()) return "part";
    return frame === page.mainFrame() ? "document" : "frame";
  } catch {
    // A window that is just opening, or a service worker: neither belongs to the page.
    return "elsewhere";
  }
}

/** @throws FetchError for a method that is not fetched: nothing is to be changed on a server */
function methodOf(request: Request): "GET" | "HEAD" | "POST" {
  const method = request.method();
  if (method === "GET" || method === "HEAD" || method === "POST") return method;
  throw new FetchError("network", `${request.url()}: ${method} is not fetched`, { retryable: false });
}

/** @throws FetchError for a body that is no text */
function payloadOf(request: Request): string | undefined {
  const payload = request.postDataBuffer();
  if (payload === null) return undefined;
  if (!isUtf8(payload))
    throw new FetchError("network", `${request.url()}: its body is no text`, { retryable: false });
  return payload.toString("utf8");
}

/** A response's headers as the browser takes them. */
function headersOf({ headers, setCookies }: Pick<Fetched, "headers" | "setCookies">): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!DROPPED_RESPONSE_HEADERS.has(name)) passed[name] = value;
  }
  // The driver takes several as lines.
  if (setCookies !== undefined) passed["set-cookie"] = setCookies.join("\n");
  return passed;
}
