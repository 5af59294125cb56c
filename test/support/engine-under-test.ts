import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { MemoryContentIndex } from "../../src/crawl/content-index.js";
import { type Crawl, DEFAULT_POLITENESS } from "../../src/crawl/crawl.js";
import { Engine, type EngineDeps } from "../../src/crawl/engine.js";
import { Fetcher } from "../../src/crawl/fetch/fetcher.js";
import type { TaskLimits } from "../../src/crawl/limits.js";
import { MemoryCrawlStates } from "../../src/crawl/memory-crawl-state.js";
import { MemoryFrontier } from "../../src/crawl/memory-frontier.js";
import { RECRAWL_DEFAULTS } from "../../src/crawl/recrawl-options.js";
import { Robots } from "../../src/crawl/robots/robots.js";
import type { Task } from "../../src/crawl/task.js";
import type { TaskResult } from "../../src/crawl/task-result.js";
import { canonicalUrl, fingerprint, urlId } from "../../src/crawl/urls/url.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { bundledSpiders } from "../../src/spiders/index.js";
import { FolderFileStore } from "../../src/worker/folder-file-store.js";

export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** An engine of its own, with a folder for files and a server whose answers a test chooses, path by path. */
export class EngineUnderTest {
  readonly answers = new Map<string, Answer>();
  /** What the server was asked, in order. */
  readonly asked: { readonly path: string; readonly headers: IncomingMessage["headers"] }[] = [];
  readonly contents = new MemoryContentIndex();
  readonly engine: Engine;
  readonly folder: string;
  readonly #server: Server;
  readonly #fetcher: Fetcher;
  #origin = "";

  private constructor(folder: string, limits: Partial<TaskLimits>, parts: Partial<EngineDeps>) {
    this.folder = folder;
    this.#server = createServer((request, response) => {
      const path = request.url ?? "";
      this.asked.push({ path, headers: request.headers });
      const answer = this.answers.get(path);
      if (answer === undefined) response.writeHead(404).end();
      else answer(request, response);
    });
    const userAgent = "warren-test";
    this.#fetcher = new Fetcher({ userAgent, allowedNetworks: ["127.0.0.0/8"] });
    const records = { get: async () => undefined, put: async () => {} };
    this.engine = new Engine(
      {
        fetcher: this.#fetcher,
        robots: new Robots({
          fetcher: this.#fetcher,
          store: records,
          clock: systemClock,
          userAgent,
          logger: silentLogger,
        }),
        files: new FolderFileStore(folder),
        contents: this.contents,
        spiders: bundledSpiders,
        states: new MemoryCrawlStates(),
        claims: new MemoryFrontier(),
        clock: systemClock,
        logger: silentLogger,
        node: "test",
        random: () => 0.5,
        ...parts,
      },
      { retryDelayMs: 4, ...limits },
    );
  }

  /** @param parts instead of those that it would have */
  static async start(
    limits: Partial<TaskLimits> = {},
    parts: Partial<EngineDeps> = {},
  ): Promise<EngineUnderTest> {
    const under = new EngineUnderTest(await mkdtemp(path.join(tmpdir(), "warren-engine-")), limits, parts);
    under.#server.listen(0, "127.0.0.1");
    await once(under.#server, "listening");
    under.#origin = `http://127.0.0.1:${(under.#server.address() as AddressInfo).port}`;
    return under;
  }

  async dispose(): Promise<void> {
    await this.engine.stop();
    await this.#fetcher.close();
    this.#server.closeAllConnections();
    this.#server.close();
    await rm(this.folder, { recursive: true, force: true });
  }

  url(path: string): string {
    return this.#origin + path;
  }

  crawl(about: Partial<Crawl> = {}): Crawl {
    return {
      id: "crawl",
      spider: "links",
      seeds: [this.url("/")],
      scope: "any",
      limits: {},
      politeness: { ...DEFAULT_POLITENESS, obeyRobots: false },
      priority: 5,
      params: {},
      status: "running",
      generation: 1,
      startedAt: 0,
      ...about,
    };
  }

  /** A crawl whose URLs are fetched again. */
  recrawl(about: Partial<Crawl> = {}): Crawl {
    return this.crawl({ recrawl: { ...RECRAWL_DEFAULTS, jitter: 0 }, ...about });
  }

  task(path: string, about: Partial<Task> = {}): Task {
    const url = canonicalUrl(this.url(path));
    if (url === undefined) throw new Error(`${path} makes no URL`);
    const now = Date.now();
    return {
      id: urlId("crawl", fingerprint(url.key)),
      crawl: "crawl",
      generation: 1,
      url: url.url,
      host: url.host,
      kind: "page",
      depth: 0,
      attempts: 0,
      round: 0,
      token: "1.a.1",
      shard: 0,
      epoch: 1,
      dispatchedAt: now,
      notAfter: now + 60_000,
      delayMs: 0,
      ...about,
    };
  }

  /** Runs a task to its end. */
  async run(task: Task, crawl: Crawl): Promise<TaskResult> {
    const result = await this.engine.run(task, crawl, new AbortController().signal);
    if (result === undefined) throw new Error("the task was stopped");
    return result;
  }

  /** The same URL in its next round, with what was learnt in this one. */
  async next(task: Task, result: TaskResult): Promise<Task> {
    const { ending } = result;
    if (ending.state === "queued" || ending.nextVisit === undefined) throw new Error("it has no next visit");
    return { ...task, round: task.round + 1, revisit: ending.nextVisit.revisit };
  }
}
