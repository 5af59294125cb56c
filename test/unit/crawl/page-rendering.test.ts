import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { MemoryContentIndex } from "../../../src/crawl/content-index.js";
import { type Crawl, DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import { Engine } from "../../../src/crawl/engine.js";
import { NoBrowserError, RenderError } from "../../../src/crawl/errors.js";
import { Fetcher } from "../../../src/crawl/fetch/fetcher.js";
import { MemoryCrawlStates } from "../../../src/crawl/memory-crawl-state.js";
import { MemoryFrontier } from "../../../src/crawl/memory-frontier.js";
import { DEFAULT_RENDER_OPTIONS, type RenderOptions } from "../../../src/crawl/render/render-options.js";
import type { PageRenderer, RenderedPage, RenderInput } from "../../../src/crawl/render/renderer.js";
import { Robots } from "../../../src/crawl/robots/robots.js";
import type { Page } from "../../../src/crawl/spider.js";
import type { Task } from "../../../src/crawl/task.js";
import { systemClock } from "../../../src/lib/clock.js";
import { silentLogger as logger } from "../../../src/lib/logger.js";
import { PageServer } from "../../support/page-server.js";

const USER_AGENT = "WarrenTest/1.0";

/** What the browser is told to come to; real ones are in test/browser. */
type Script = (input: RenderInput) => RenderedPage | Promise<RenderedPage>;

describe("a page that is to be rendered", () => {
  let site: PageServer;
  let fetcher: Fetcher;
  let script: Script;
  let seen: Page[];
  let saved: { name: string; contentType: string }[];
  let inUse: number;

  beforeEach(async () => {
    site = await new PageServer().start();
    site.serve("/robots.txt", "User-agent: *\nDisallow: /private").serve("/", "<title>plain</title>");
    fetcher = new Fetcher({ userAgent: USER_AGENT, allowedNetworks: ["127.0.0.0/8"] });
    script = () => rendered("<title>made</title>");
    seen = [];
    saved = [];
    inUse = 0;
  });

  afterEach(async () => {
    await fetcher.close();
    await site.stop();
    expect(inUse).toBe(0);
  });

  const rendered = (html: string, more: object = {}): RenderedPage => ({
    kind: "rendered",
    url: site.url("/"),
    body: Buffer.from(html),
    bytes: 100,
    ...more,
  });

  const browser: PageRenderer = {
    async place() {
      inUse += 1;
      return {
        render: async (input) => script(input),
        leave: () => {
          inUse -= 1;
        },
      };
    },
  };

  function run(
    task: Partial<Task> = {},
    render: Partial<RenderOptions> = { mode: "always" },
    renderer = browser,
  ) {
    const frontier = new MemoryFrontier(1);
    const store = { get: async () => undefined, put: async () => {} };
    const engine = new Engine(
      {
        fetcher,
        robots: new Robots({ fetcher, store, clock: systemClock, userAgent: USER_AGENT, logger }),
        files: {
          async save(body, about) {
            let bytes = 0;
            for await (const chunk of body) bytes += chunk.length;
            saved.push(about);
            return { contentId: about.name, bytes, sha256: "-" };
          },
          open: async (contentId) => {
            throw new Error(`${contentId} is not kept`);
          },
          discard: async () => {},
        },
        contents: new MemoryContentIndex(),
        states: new MemoryCrawlStates(),
        spiders: {
          get: () => ({
            name: "looks",
            *parse(page: Page) {
              seen.push(page);
              yield { item: { title: page.title, rendered: page.rendered } };
            },
          }),
        },
        claims: frontier,
        renderer,
        clock: systemClock,
        logger,
        node: "n",
      },
      { retryDelayMs: 1 },
    );
    const crawl: Crawl = {
      id: "c",
      status: "running",
      generation: 1,
      startedAt: 0,
      spider: "looks",
      seeds: [site.url("/")],
      scope: "host",
      limits: {},
      politeness: DEFAULT_POLITENESS,
      priority: 5,
      params: {},
      render: { ...DEFAULT_RENDER_OPTIONS, ...render },
    };
    const whole: Task = {
      id: "c:x",
      crawl: "c",
      generation: 1,
      url: site.url("/"),
      host: `127.0.0.1:${site.port}`,
      kind: "page",
      depth: 0,
      attempts: 0,
      round: 0,
      token: "t",
      shard: 0,
      epoch: 1,
      dispatchedAt: 0,
      notAfter: Number.MAX_SAFE_INTEGER,
      delayMs: 0,
      ...task,
    };
    return engine.run(whole, crawl, new AbortController().signal);
  }

  it("comes to its spider as the browser made it, in UTF-8, and says so", async () => {
    site.serve("/", (_, response) => {
      response.setHeader("content-type", "text/html; charset=koi8-r");
      response.end("<p>");
    });
    script = () => rendered("<title>ä</title>");
    const result = await run();
    expect(result?.items.map(({ data }) => data)).toEqual([{ title: "ä", rendered: true }]);
    expect(result?.pages).toMatchObject([{ statusCode: 200, bytes: 103 }]);
  });

  it.each([
    ["never", true, false],
    ["asked", undefined, false],
    ["asked", true, true],
    ["asked", {}, true],
    ["always", undefined, true],
    ["always", false, false],
  ] as const)("is rendered or not: crawl %s, request %s: %s", async (mode, asked, isRendered) => {
    const result = await run({ ...(asked !== undefined && { request: { render: asked } }) }, { mode });
    expect(result?.items.map(({ data }) => data.rendered)).toEqual([isRendered]);
  });

  it("is rendered as the crawl says, in what its request does not", async () => {
    const asked: RenderInput[] = [];
    script = (input) => {
      asked.push(input);
      return rendered("");
    };
    await run({ request: { render: { timeoutMs: 500 } } }, { waitFor: "load", timeoutMs: 9_000 });
    expect(asked[0]?.rendering).toMatchObject({ waitFor: "load", timeoutMs: 500, scroll: 0 });
  });

  it("is rendered by no browser when it is no document", async () => {
    site.serve("/", (_, response) => {
      response.setHeader("content-type", "application/json");
      response.end("{}");
    });
    const result = await run();
    expect(result?.items.map(({ data }) => data.rendered)).toEqual([false]);
  });

  it("is asked of robots.txt for all that it needs, unless the crawl does not obey", async () => {
    const answers: boolean[] = [];
    script = async ({ mayFetch }) => {
      answers.push(await mayFetch(site.url("/private/x")), await mayFetch(site.url("/public")));
      return rendered("");
    };
    await run();
    expect(answers).toEqual([false, true]);
  });

  it("has its picture stored as a file of its own", async () => {
    script = () => rendered("", { screenshot: Buffer.from("png") });
    const result = await run();
    expect(saved).toEqual([{ name: "file.png", contentType: "image/png" }]);
    expect(result?.files).toMatchObject([{ id: "c:x.0.screenshot", url: site.url("/"), bytes: 3 }]);
    expect(result?.ending).toMatchObject({ state: "done", files: 1 });
  });

  it("is judged as a redirect when it leads elsewhere: followed", async () => {
    site.serve("/there", "<title>there</title>");
    script = ({ document }) => {
      const isFirst = document.url === site.url("/");
      return isFirst
        ? { kind: "left", to: site.url("/there"), bytes: 0 }
        : rendered("<title>there</title>", { url: site.url("/there") });
    };
    const result = await run();
    expect(result?.pages).toMatchObject([{ url: site.url("/"), finalUrl: site.url("/there") }]);
    expect(result?.items[0]?.url).toBe(site.url("/there"));
  });

  it.each([
    ["scope", () => "http://other.invalid/"],
    ["robots", () => site.url("/private/page")],
  ])("is judged as a redirect when it leads elsewhere: %s", async (reason, to) => {
    script = () => ({ kind: "left", to: to(), bytes: 0 });
    expect((await run())?.ending).toMatchObject({ state: "skipped", reason });
  });

  it("is judged as a redirect when it leads elsewhere: for ever", async () => {
    let hops = 0;
    for (let hop = 1; hop < 20; hop += 1) site.serve(`/${hop}`, "<p>");
    script = () => {
      hops += 1;
      return { kind: "left", to: site.url(`/${hops}`), bytes: 0 };
    };
    expect((await run())?.ending).toMatchObject({ state: "failed", reason: "too-many-redirects" });
    expect(hops).toBe(11);
  });

  it("is judged as a redirect when it leads elsewhere: to another host's lane", async () => {
    script = () => ({ kind: "left", to: `http://127.0.0.1:1/x`, bytes: 0 });
    expect((await run())?.ending).toMatchObject({ state: "queued", host: "127.0.0.1:1", attempts: 0 });
  });

  it("waits again when no place came free, with nothing asked of its host", async () => {
    const result = await run({}, { mode: "always" }, { place: async () => undefined });
    expect(result?.ending).toMatchObject({ state: "queued", attempts: 0 });
    expect(result?.end.untouched).toBe(true);
    expect(site.requests).toEqual([]);
  });

  it("fails at once where there is no browser", async () => {
    script = () => {
      throw new NoBrowserError("this node cannot render: no browser");
    };
    expect((await run())?.ending).toMatchObject({
      state: "failed",
      reason: "spider-error",
      error: "this node cannot render: no browser",
    });
  });

  it("is tried again after a crash, and then fails", async () => {
    script = () => {
      throw new RenderError("spider-error", "it crashed", { retryable: true });
    };
    expect((await run())?.ending).toMatchObject({ state: "queued", attempts: 1 });
    expect((await run({ attempts: 2 }))?.ending).toMatchObject({ state: "failed", reason: "spider-error" });
    script = () => {
      throw new RenderError("too-large", "it is too large", { retryable: false });
    };
    expect((await run())?.ending).toMatchObject({ state: "failed", reason: "too-large", attempts: 1 });
  });
});
