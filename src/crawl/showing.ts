import type { Clock } from "../lib/clock.js";
import type { Logger } from "../lib/logger.js";
import { traceFields } from "../lib/trace-context.js";
import type { Crawl } from "./crawl.js";
import type { CrawlStates } from "./crawl-state.js";
import { fileNameOf } from "./file-types.js";
import type { Frontier } from "./frontier.js";
import type { TaskLimits } from "./limits.js";
import type { LinkAdmission } from "./link-admission.js";
import type { Documents } from "./pages/documents.js";
import { FileView } from "./pages/file-view.js";
import { PageView } from "./pages/page-view.js";
import type { FileRecord, FileStore, StoredContent } from "./records.js";
import type { PageContent } from "./render/page-rendering.js";
import type { RobotsDirectives } from "./robots/robots-directives.js";
import type { RobotsGate } from "./robots/robots-gate.js";
import type { Spider } from "./spider.js";
import { SpiderRun } from "./spider-run.js";
import type { Task } from "./task.js";
import type { Findings } from "./task-result.js";

export type ShowingParts = {
  readonly files: FileStore;
  readonly documents: Documents;
  readonly states: CrawlStates;
  readonly claims: Pick<Frontier, "claim">;
  readonly gate: RobotsGate;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly pageLog?: (task: Task, crawl: Crawl, spider: Spider) => Logger;
  readonly node: string;
};

/** To whom, and on what task's behalf. */
export type ShowingInput = {
  readonly task: Task;
  readonly crawl: Crawl;
  readonly spider: Spider;
  readonly admission: LinkAdmission;
  /** Takes what the spider yields. */
  readonly findings: Findings;
  readonly limits: TaskLimits;
  readonly signal: AbortSignal;
};

/** Shows what a task has fetched to its spider. */
export class Showing {
  readonly #parts: ShowingParts;
  readonly #input: ShowingInput;

  constructor(parts: ShowingParts, input: ShowingInput) {
    this.#parts = parts;
    this.#input = input;
  }

  /**
   * @returns the canonical URL of the page if that is another one, and the page is left to it
   * @throws SpiderError
   */
  async page({
    url,
    body,
    statusCode,
    headers,
    contentType,
    rendered,
  }: PageContent): Promise<string | undefined> {
    const { task, crawl, spider, limits, signal } = this.#input;
    const { documents, states, gate } = this.#parts;
    const page = new PageView({
      task,
      crawl,
      url,
      status: statusCode,
      headers,
      contentType,
      body,
      ...(rendered !== undefined && { rendered }),
      documents,
      state: states.of(crawl.id),
      log: () => this.#logOf(url),
      signal,
    });
    const isBig = body.length > limits.bigPageBytes;
    if (isBig || spider.tree !== undefined) await page.prepare(spider.tree, isBig);
    if (crawl.links?.canonical === "duplicate") {
      const canonical = await this.#knownCanonical(page);
      if (canonical !== undefined) return canonical;
    }
    await this.#run(gate.directivesOf({ headers }, crawl, page)).onPage(page);
    return undefined;
  }

  /** Puts a stored body on record, and shows it if the spider wants to see files. @throws SpiderError */
  async file(content: StoredContent, url: string, contentType: string): Promise<void> {
    const { task, spider, findings, signal } = this.#input;
    const { clock, files, documents } = this.#parts;
    const record: FileRecord = {
      id: `${task.id}.${task.round}`,
      crawl: task.crawl,
      url: task.url,
      ...content,
      name: fileNameOf(url),
      contentType,
      at: clock.now(),
    };
    findings.files.push(record);
    findings.archive?.bodyIsStored(content);
    if (spider.file === undefined) return;
    const foundOn = task.parent ?? task.url;
    const meta = task.request?.meta ?? {};
    const file = new FileView({ record, url, foundOn, meta, files, documents, signal });
    await this.#run().onFile(file);
  }

  /** The page's canonical URL, if that is in scope and known as a URL of its own, or through another page. */
  async #knownCanonical(page: PageView): Promise<string | undefined> {
    const { task, admission } = this.#input;
    const canonical = page.canonical();
    if (canonical === undefined || !admission.includes(canonical)) return undefined;
    const asUrl = admission.targetOf(canonical, task.depth, task.url);
    if (asUrl.id === task.id || admission.isLeftTo(task.id)) return undefined;
    if (await this.#parts.claims.claim(asUrl, task.id)) return undefined;
    admission.leaveTo(asUrl.id);
    return canonical.url;
  }

  #run(directives?: RobotsDirectives): SpiderRun {
    const { clock, node } = this.#parts;
    const { spider, task, admission, findings, limits, signal } = this.#input;
    return new SpiderRun({
      spider,
      task,
      admission,
      findings,
      limits,
      clock,
      node,
      signal,
      ...(directives !== undefined && { directives }),
    });
  }

  #logOf(url: string): Logger {
    const { task, crawl, spider } = this.#input;
    const { pageLog, logger } = this.#parts;
    return pageLog?.(task, crawl, spider) ?? loggerOf(task, logger).child({ crawl: crawl.id, url });
  }
}

/** What is logged for a task of a trace says so. */
export function loggerOf({ request }: Task, logger: Logger): Logger {
  return request?.trace === undefined ? logger : logger.child(traceFields(request.trace));
}
