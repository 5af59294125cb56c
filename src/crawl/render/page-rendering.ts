import type { Clock } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Crawl } from "../crawl.js";
import { NoBrowserError, StorageError } from "../errors.js";
import type { Fetched, Fetcher } from "../fetch/fetcher.js";
import { fileNameOf } from "../file-types.js";
import type { Outcome } from "../outcome.js";
import type { FileStore } from "../records.js";
import type { Robots } from "../robots/robots.js";
import type { Task } from "../task.js";
import type { Findings } from "../task-result.js";
import { type Rendering, renderingOf } from "./render-options.js";
import type { PageRenderer, RenderedPage, RenderPlace } from "./renderer.js";

/** A page as its spider gets it. */
export type PageContent = Pick<Fetched, "statusCode" | "headers" | "setCookies" | "contentType"> & {
  readonly url: string;
  readonly body: Buffer;
  readonly rendered?: true;
};

export type PageRenderingDeps = {
  /** Without one, no page can be rendered. */
  readonly renderer?: PageRenderer;
  readonly fetcher: Fetcher;
  readonly robots: Robots;
  readonly files: FileStore;
  readonly clock: Clock;
};

/** What became of a page in the browser. `bytes`: fetched for it besides. */
export type PageRendered =
  | { readonly kind: "page"; readonly content: PageContent; readonly bytes: number }
  /** It wants to be elsewhere. */
  | { readonly kind: "left"; readonly to: string; readonly bytes: number };

/** Wait of a task for which no place to render came free, in milliseconds. */
const NO_PLACE_WAIT_MS = 2_000;
const HTML_TYPES = new Set(["text/html", "application/xhtml+xml"]);

/** The rendering of one task's page, where its crawl or its request asks for that. */
export class PageRendering {
  readonly #deps: PageRenderingDeps;
  readonly #crawl: Crawl;
  readonly #task: Task;
  readonly #rendering: Rendering;
  #place: RenderPlace | undefined;

  /** Undefined when the page is not to be rendered. */
  static of(task: Task, crawl: Crawl, deps: PageRenderingDeps): PageRendering | undefined {
    const rendering = task.kind === "page" ? renderingOf(crawl.render, task.request?.render) : undefined;
    return rendering === undefined ? undefined : new PageRendering(task, crawl, rendering, deps);
  }

  private constructor(task: Task, crawl: Crawl, rendering: Rendering, deps: PageRenderingDeps) {
    this.#task = task;
    this.#crawl = crawl;
    this.#rendering = rendering;
    this.#deps = deps;
  }

  /** Runs a task with a place in the browser: taken before the fetch, so that nothing is fetched and then waits. */
  async hold(signal: AbortSignal, run: () => Promise<Outcome>): Promise<Outcome> {
    const { clock, renderer } = this.#deps;
    try {
      if (renderer === undefined) throw new NoBrowserError("this process does not render");
      this.#place = await renderer.place(signal);
      if (this.#place !== undefined) return await run();
      const endedAt = clock.now();
      const reason = "waits for a place to be rendered";
      const readyAt = endedAt + NO_PLACE_WAIT_MS;
      return { state: "queued", reason, endedAt, readyAt, untouched: true, counts: false };
    } catch (error) {
      if (!(error instanceof NoBrowserError)) throw error;
      const reason = "spider-error";
      return { state: "failed", reason, error: error.message, endedAt: clock.now(), counts: false };
    } finally {
      this.#place?.leave();
    }
  }

  /**
   * What a browser makes of a page; the page as it is when that is no document. Its picture is among the findings then.
   * @throws RenderError @throws NoBrowserError @throws StorageError
   */
  async apply(page: PageContent, findings: Findings, signal: AbortSignal): Promise<PageRendered> {
    if (this.#place === undefined || !isDocument(page)) return { kind: "page", content: page, bytes: 0 };
    const rendered = await this.#place.render({
      document: page,
      crawl: this.#crawl.id,
      rendering: this.#rendering,
      fetch: (request) => this.#deps.fetcher.fetch(request),
      mayFetch: (url) => this.#mayFetch(url, signal),
      signal,
    });
    if (rendered.kind === "left") return rendered;
    if (rendered.screenshot !== undefined) await this.#keep(rendered.screenshot, page.url, findings);
    return { kind: "page", content: asRendered(page, rendered), bytes: rendered.bytes };
  }

  async #mayFetch(url: string, signal: AbortSignal): Promise<boolean> {
    if (!this.#crawl.politeness.obeyRobots) return true;
    const { allowed } = await this.#deps.robots.check(url, signal);
    return allowed;
  }

  async #keep(png: Buffer, url: string, findings: Findings): Promise<void> {
    const { files, clock } = this.#deps;
    const contentType = "image/png";
    const name = `${fileNameOf(url)}.png`;
    const content = await files.save(once(png), { name, contentType }).catch((error: unknown) => {
      throw new StorageError(`the picture of ${url} could not be stored: ${messageOf(error)}`, {
        cause: error,
      });
    });
    const { id, round, crawl, url: found } = this.#task;
    const record = { id: `${id}.${round}.screenshot`, crawl, url: found, name, contentType, at: clock.now() };
    findings.files.push({ ...record, ...content });
  }
}

/** Whether a browser would show it as a document of its own, with scripts. */
function isDocument({ contentType, statusCode, body }: PageContent): boolean {
  if (statusCode === 304 || body.length === 0) return false;
  return contentType === undefined || HTML_TYPES.has(contentType);
}

function asRendered(
  { statusCode, headers, contentType = "text/html" }: PageContent,
  { url, body }: RenderedPage & { readonly kind: "rendered" },
): PageContent {
  const encoded = { ...headers, "content-type": `${contentType}; charset=utf-8` };
  return { statusCode, headers: encoded, contentType, url, body, rendered: true };
}

async function* once(bytes: Buffer): AsyncGenerator<Buffer, void> {
  yield bytes;
}
