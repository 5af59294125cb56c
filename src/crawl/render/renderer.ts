import type { BrowserContext, CDPSession, Page } from "playwright-core";
import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import { RenderError } from "../errors.js";
import type { Fetcher } from "../fetch/fetcher.js";
import { canonicalUrl } from "../urls/url.js";
import type { Browser, BrowserOptions, OpenContext } from "./browser.js";
import {
  type FetchedDocument,
  PAGE_NETWORK_DEFAULTS,
  PageNetwork,
  type PageNetworkLimits,
} from "./page-network.js";
import { PartCache } from "./part-cache.js";
import { type LeavePlace, Places } from "./places.js";
import type { Rendering } from "./render-options.js";

export type RendererOptions = PageNetworkLimits & {
  /** Pages at once. @default 2 */
  readonly maxPages: number;
  /** How long a task waits for one of these places before it is handed back, in milliseconds. @default 15_000 */
  readonly placeTimeoutMs: number;
  /** The document as it is in the end, in bytes of UTF-8. @default 16 MiB */
  readonly maxDocumentBytes: number;
  /** How pages are told who is there. */
  readonly userAgent: string;
};

/** All that a process decides about rendering. */
export type RenderingOptions = {
  readonly browser: Partial<BrowserOptions>;
  readonly renderer: Partial<RendererOptions> & Pick<RendererOptions, "userAgent">;
};

export const RENDERER_DEFAULTS: Omit<RendererOptions, "userAgent"> = {
  ...PAGE_NETWORK_DEFAULTS,
  maxPages: 2,
  placeTimeoutMs: 15_000,
  maxDocumentBytes: 16 * 2 ** 20,
};

export type RendererDeps = {
  readonly browser: Browser;
  readonly clock: Clock;
};

/** One page to be rendered. */
export type RenderInput = {
  readonly document: FetchedDocument;
  /** The crawl's id: pages of one share the scripts and styles that they have in common. */
  readonly crawl: string;
  readonly rendering: Rendering;
  /** Gets what the page asks for, one request at a time, with all rules of fetches. @throws FetchError */
  readonly fetch: Fetcher["fetch"];
  /** Whether robots.txt has nothing against a URL that the page asks for. */
  readonly mayFetch: (url: string) => Promise<boolean>;
  readonly signal: AbortSignal;
};

export type RenderedPage =
  | {
      readonly kind: "rendered";
      /** Where the document says it is: a page may give itself another path, without a fetch. */
      readonly url: string;
      /** The document, serialised, in UTF-8. */
      readonly body: Buffer;
      /** Body bytes fetched for it, its document not counted. */
      readonly bytes: number;
      /** A PNG, if it was asked for. */
      readonly screenshot?: Buffer;
    }
  /** The page wanted to be elsewhere before it was done. */
  | { readonly kind: "left"; readonly to: string; readonly bytes: number };

/** The right to render pages, one after the other. */
export interface RenderPlace {
  /** @throws RenderError @throws NoBrowserError */
  render(input: RenderInput): Promise<RenderedPage>;
  leave(): void;
}

/** Renders pages, some at once. */
export interface PageRenderer {
  /**
   * A place, when one is free.
   * @returns undefined when none came free in time, or the signal ended the wait
   */
  place(signal: AbortSignal): Promise<RenderPlace | undefined>;
}

const VIEWPORT = { width: 1_280, height: 1_024 };
/** For everything beside the wait for the page: opening it, taking the document, a picture. In milliseconds. */
const GRACE_MS = 8_000;
/** For what a scroll brings, in milliseconds. */
const SCROLL_WAIT_MS = 1_000;
/** Pictures show no more of a page than this, in CSS pixels from the top. */
const MAX_SCREENSHOT_HEIGHT = 8_000;

/** Runs in every document before its own scripts: windows are not opened, and nothing is connected directly. */
const BEFORE_SCRIPTS = `(() => {
  window.open = () => null;
  window.close = () => {};
  window.print = () => {};
  for (const name of ["RTCPeerConnection", "webkitRTCPeerConnection", "WebTransport"]) delete window[name];
})()`;

/**
 * Makes pages of fetched documents with a browser: each in a context of its own (no cookies, storage or cache of
 * another), with the network that `PageNetwork` lets it have, within bounds of time, memory, number and size.
 * Downloads, pop-ups, dialogs, service workers and permissions are refused.
 */
export class Renderer implements PageRenderer {
  readonly #options: RendererOptions;
  readonly #deps: RendererDeps;
  readonly #places: Places;
  readonly #cache: PartCache;
  #open = 0;

  constructor(options: Partial<RendererOptions> & Pick<RendererOptions, "userAgent">, deps: RendererDeps) {
    this.#options = { ...RENDERER_DEFAULTS, ...options };
    this.#deps = deps;
    this.#places = new Places(this.#options.maxPages);
    this.#cache = new PartCache(deps.clock);
  }

  /** What a node tells of itself. `browser`: where its program is, or null. */
  async describe(): Promise<{ browser: string | null; maxPages: number; pages: number }> {
    const path = await this.#deps.browser.path;
    return { browser: path ?? null, maxPages: this.#options.maxPages, pages: this.#open };
  }

  async place(signal: AbortSignal): Promise<RenderPlace | undefined> {
    const tooLong = new AbortController();
    const stopTimer = this.#deps.clock.after(this.#options.placeTimeoutMs, () => tooLong.abort());
    let leave: LeavePlace | undefined;
    try {
      leave = await this.#places.take(AbortSignal.any([signal, tooLong.signal]));
    } finally {
      stopTimer();
    }
    if (leave === undefined) return undefined;
    return { render: (input) => this.#render(input), leave };
  }

  async #render(input: RenderInput): Promise<RenderedPage> {
    const { browser } = this.#deps;
    const { signal, document } = input;
    if (signal.aborted) throw stopped(document.url);
    const opened = await browser.open({
      userAgent: this.#options.userAgent,
      viewport: VIEWPORT,
      acceptDownloads: false,
      serviceWorkers: "block",
      permissions: [],
      locale: "en-US",
    });
    this.#open += 1;
    try {
      return await this.#inTime(opened, input);
    } finally {
      this.#open -= 1;
      await opened.close();
    }
  }

  /** The page, unless the signal, its time or a crash comes first. Whatever still runs then fails with the context. */
  async #inTime({ context }: OpenContext, input: RenderInput): Promise<RenderedPage> {
    const { clock, browser } = this.#deps;
    const { signal, document, rendering } = input;
    const over = new AbortController();
    let end: (error: RenderError) => void = () => {};
    const ended = new Promise<never>((_, reject) => {
      end = reject;
    });
    ended.catch(() => {});
    const onAbort = () => end(stopped(document.url));
    signal.addEventListener("abort", onAbort, { once: true });
    const limitMs = rendering.timeoutMs + GRACE_MS;
    const stopTimer = clock.after(limitMs, () =>
      end(
        new RenderError("timeout", `${document.url}: could not be rendered within ${limitMs} ms`, {
          retryable: true,
        }),
      ),
    );
    const onCrash = () => {
      const mebibytes = Math.round(browser.maxPageMemoryBytes / 2 ** 20);
      const message = `${document.url}: its process in the browser ended: it crashed, or took more than ${mebibytes} MiB`;
      end(new RenderError("spider-error", message, { retryable: true }));
    };
    try {
      return await Promise.race([this.#renderIn(context, input, over.signal, onCrash), ended]);
    } catch (error) {
      if (error instanceof RenderError) throw error;
      const message = `${document.url}: could not be rendered: ${firstLine(error)}`;
      throw new RenderError("spider-error", message, { retryable: true, cause: error });
    } finally {
      over.abort();
      stopTimer();
      signal.removeEventListener("abort", onAbort);
    }
  }

  async #renderIn(
    context: BrowserContext,
    { document, crawl, rendering, fetch, mayFetch }: RenderInput,
    signal: AbortSignal,
    onCrash: () => void,
  ): Promise<RenderedPage> {
    await context.addInitScript(BEFORE_SCRIPTS);
    const page = await context.newPage();
    page.on("crash", onCrash);
    page.on("close", onCrash);
    page.on("dialog", (dialog) => void dialog.dismiss().catch(() => {}));
    context.on("page", (other) => void other.close().catch(() => {}));
    let leave: (to: string) => void = () => {};
    const left = new Promise<string>((resolve) => {
      leave = resolve;
    });
    const network = new PageNetwork({
      page,
      context,
      document,
      crawl,
      cache: this.#cache,
      fetch,
      mayFetch,
      blockedTypes: rendering.blockedTypes,
      limits: this.#options,
      signal,
      onLeave: (to) => {
        const target = canonicalUrl(to, document.url);
        // To load itself anew is no way to anywhere.
        if (target !== undefined && target.url !== canonicalUrl(document.url)?.url) leave(target.url);
      },
    });
    await network.open();
    const to = await Promise.race([left, this.#settle(page, document.url, rendering)]);
    if (to !== undefined) return { kind: "left", to, bytes: network.bytes };
    const session = await context.newCDPSession(page);
    const { html, url } = await this.#serialise(session, document.url);
    const screenshot = rendering.screenshot ? await screenshotOf(session) : undefined;
    return {
      kind: "rendered",
      url: sameOrigin(url, document.url) ?? document.url,
      body: html,
      bytes: network.bytes,
      ...(screenshot !== undefined && { screenshot }),
    };
  }

  /** Loads the page and waits until it is there, or its time is up. */
  async #settle(page: Page, url: string, { waitFor, timeoutMs, scroll }: Rendering): Promise<undefined> {
    const { clock } = this.#deps;
    const until = clock.monotonic() + timeoutMs;
    const leftMs = () => Math.max(1, until - clock.monotonic());
    try {
      await page.goto(url, { waitUntil: "commit", timeout: leftMs() });
      if (typeof waitFor === "string") await page.waitForLoadState(waitFor, { timeout: leftMs() });
      else await page.waitForSelector(`css=${waitFor.css}`, { state: "attached", timeout: leftMs() });
      for (let times = 0; times < scroll && leftMs() > 1; times += 1) {
        await page.mouse.wheel(0, 100_000);
        await page.waitForTimeout(Math.min(SCROLL_WAIT_MS, leftMs()));
      }
    } catch (error) {
      // What is there when the time is up is taken.
      if (error instanceof Error && error.name === "TimeoutError") return undefined;
      throw error;
    }
    return undefined;
  }

  /** The document as it is now, read from outside the page's own world, where it cannot have changed the words. */
  async #serialise(session: CDPSession, url: string): Promise<{ html: Buffer; url: string }> {
    const { maxDocumentBytes } = this.#options;
    const { frameTree } = await session.send("Page.getFrameTree");
    const { executionContextId } = await session.send("Page.createIsolatedWorld", {
      frameId: frameTree.frame.id,
    });
    const { result } = await session.send("Runtime.evaluate", {
      contextId: executionContextId,
      expression: `(${serialised})(${maxDocumentBytes})`,
      returnByValue: true,
    });
    const { html, characters, at } = result.value as ReturnType<typeof serialised>;
    const body = Buffer.from(html ?? "", "utf8");
    if (html === null || body.length > maxDocumentBytes) {
      const message = `${url}: its rendered document has ${characters} characters; at most ${maxDocumentBytes} bytes are taken`;
      throw new RenderError("too-large", message, { retryable: false });
    }
    return { html: body, url: at };
  }
}

/** Runs in the browser: what it uses must be in it. */
function serialised(maxCharacters: number): { html: string | null; characters: number; at: string } {
  const { document, XMLSerializer } = globalThis as unknown as {
    document: { URL: string; doctype: object | null; documentElement: { outerHTML: string } | null };
    XMLSerializer: new () => { serializeToString(node: object): string };
  };
  const { doctype, documentElement } = document;
  const type = doctype === null ? "" : `${new XMLSerializer().serializeToString(doctype)}\n`;
  const html = type + (documentElement?.outerHTML ?? "");
  return { html: html.length > maxCharacters ? null : html, characters: html.length, at: document.URL };
}

async function screenshotOf(session: CDPSession): Promise<Buffer> {
  const { cssContentSize } = await session.send("Page.getLayoutMetrics");
  const width = VIEWPORT.width;
  const height = Math.min(MAX_SCREENSHOT_HEIGHT, Math.max(VIEWPORT.height, Math.ceil(cssContentSize.height)));
  const { data } = await session.send("Page.captureScreenshot", {
    format: "png",
    clip: { x: 0, y: 0, width, height, scale: 1 },
    captureBeyondViewport: true,
  });
  return Buffer.from(data, "base64");
}

function stopped(url: string): RenderError {
  return new RenderError("spider-error", `${url}: stopped while it was rendered`, { retryable: true });
}

/** A URL of the same origin in canonical form; undefined for any other. */
function sameOrigin(url: string, base: string): string | undefined {
  const target = canonicalUrl(url);
  return target !== undefined && new URL(target.url).origin === new URL(base).origin ? target.url : undefined;
}

/** Playwright's messages go on with a log of what was waited for. */
function firstLine(error: unknown): string {
  return messageOf(error).split("\n", 1)[0] ?? "";
}
