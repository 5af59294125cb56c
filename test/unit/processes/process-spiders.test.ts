import { afterEach, describe, expect, it } from "vitest";
import { isAlive, until } from "../../support/children-under-test.js";
import { itemsOf, type PageEnd, ProcessSpiderUnderTest } from "../../support/process-spider-under-test.js";
import { COMMAND, expectIsolated } from "../../support/processes/misbehaviour.js";

let under: ProcessSpiderUnderTest | undefined;
afterEach(async () => {
  await under?.dispose();
  under = undefined;
});

async function start(
  manifest: Readonly<Record<string, unknown>> = {},
  options: Parameters<typeof ProcessSpiderUnderTest.start>[1] = {},
): Promise<ProcessSpiderUnderTest> {
  under = await ProcessSpiderUnderTest.start({ command: COMMAND, ...manifest }, options);
  return under;
}

/** The one item of a page. */
async function itemOf(end: Promise<PageEnd>): Promise<Record<string, unknown>> {
  const [item, ...more] = itemsOf(await end);
  expect(more).toEqual([]);
  return item ?? {};
}

describe("a process spider", () => {
  it("is told of its crawl, and of each page", async () => {
    const { run } = bound(await start());
    expect(await itemOf(run("http://a/1", "opened"))).toEqual({
      type: "open",
      crawl: "crawl",
      spider: "tested",
      version: "3",
      node: "node-1",
      params: { depth: "deep" },
      mode: "pages",
    });
    expect(await itemOf(run("http://a/2", "echo", { meta: { a: 1 }, callback: "book" }))).toEqual({
      type: "page",
      id: 2,
      url: "http://a/2",
      status: 200,
      headers: { "content-type": "text/plain" },
      depth: 1,
      meta: { a: 1 },
      callback: "book",
      text: "echo",
    });
  });

  it("is given what is no text as base64, and links and title if it wants them", async () => {
    const { run } = bound(await start({ links: true }));
    const image = { headers: { "content-type": "image/png" } };
    const bytes = new Uint8Array([0x89, 0, 255]);
    expect(await itemOf(run("http://a/1", bytes, image))).toMatchObject({ body: "iQD/", links: [] });
    const html = { headers: { "content-type": "text/html; charset=utf-8" } };
    const given = await itemOf(run("http://a/b/", "echo <title> T </title><a href=c>", html));
    expect(given).toMatchObject({ title: "T", links: ["http://a/b/c"] });
  });

  it("finds in its environment what it is for, and nothing of the worker's", async () => {
    process.env.WARREN_TEST_SECRET = "hush";
    const { run } = bound(await start({ env: { GIVEN: "yes" } }));
    const environment = await itemOf(run("http://a/", "environment"));
    expect(environment).toMatchObject({
      GIVEN: "yes",
      WARREN_CRAWL_ID: "crawl",
      WARREN_SPIDER: "tested",
      WARREN_VERSION: "3",
      WARREN_NODE_ID: "node-1",
      WARREN_PARAMS: '{"depth":"deep"}',
      WARREN_MODE: "pages",
    });
    expect(Object.keys(environment)).not.toContain("WARREN_TEST_SECRET");
  });

  it("yields items, requests and files, in its order", async () => {
    const { run } = bound(await start());
    expect(await run("http://a/", "outputs")).toEqual({
      outputs: [
        { request: { url: "/next", meta: { a: 1 }, priority: 9, callback: "book" } },
        { file: { url: "/a.pdf" } },
        { item: { a: 1 } },
      ],
    });
  });

  it("gets several pages at a time, and need not say which it is about", async () => {
    const { run } = bound(await start({ limits: { processes: 1, pagesAtOnce: 4 } }));
    const urls = Array.from({ length: 40 }, (_, index) => `http://a/${index}`);
    const items = await Promise.all(urls.map((url) => itemOf(run(url, "unnumbered"))));
    expect(items.map(({ url }) => url)).toEqual(urls);
  });

  it("has more processes when one has enough to do, and no more than it may", async () => {
    const { run, children } = bound(await start({ limits: { processes: 3, pagesAtOnce: 1 } }));
    const pages = Array.from({ length: 12 }, (_, index) => run(`http://a/${index}`, "slow 30"));
    await until("all processes are there", () => children.running === 3);
    await Promise.all(pages);
    expect(children.running).toBe(3);
  });

  it("has no process when there is nothing to do", async () => {
    const { run, children } = bound(await start({ limits: { idleMs: 20 } }));
    const first = await itemOf(run("http://a/", "well"));
    await until("its process has ended", () => children.running === 0);
    expect(await itemOf(run("http://a/", "well"))).not.toEqual(first);
  });

  it("keeps state that all processes of a crawl share", async () => {
    const { run } = bound(await start());
    expect(await itemOf(run("http://a/", "state"))).toEqual({
      before: expect.objectContaining({ value: null }),
      after: expect.objectContaining({ value: { urls: ["http://a/"] } }),
      sums: [expect.objectContaining({ value: 1 }), expect.objectContaining({ value: 5 })],
      deleted: expect.objectContaining({ value: null }),
      wrong: expect.objectContaining({ error: expect.stringContaining("1 to 200 characters") }),
    });
  });

  it("counts, and its counts are in the crawl's state when it is closed at the latest", async () => {
    const at = await start();
    await at.run("http://a/1", "stats");
    await at.run("http://a/2", "stats");
    await at.run("http://a/3", "stats fails");
    await at.spider.close(at.context);
    expect(await at.state.get("stats.books")).toBe(10.5);
  });

  it("logs by messages, and by whatever else it writes", async () => {
    const at = await start();
    await at.run("http://a/", "logs");
    await until("both streams are read", () => at.log.some(({ stream }) => stream === "stderr"));
    expect(at.log).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ level: "warn", msg: "careful", price: 3 }),
        expect.objectContaining({ level: "info", msg: '{"not":"text"}' }),
        expect.objectContaining({ level: "info", msg: "a plain line", stream: "stdout" }),
        expect.objectContaining({ level: "info", msg: "a line on standard error", stream: "stderr" }),
      ]),
    );
  });

  it.each([
    ["items", `{"a": "$line"}`, [{ a: "one" }]],
    ["log", `{"a": "$line"}`, []],
  ])("may be a script that reads one page and ends: stdout %s", async (stdout, _, items) => {
    const code = `
      let text = "";
      process.stdin.on("data", (chunk) => text += chunk).on("end", () => {
        console.log("read " + text.split("\\n").length);
        console.log(JSON.stringify({ a: JSON.parse(text).text }));
      });`;
    const at = await start({ command: [process.execPath, "-e", code], stdout });
    expect(itemsOf(await at.run("http://a/", "one"))).toEqual(items);
    expect(at.log.map(({ msg }) => msg)).toContain("read 2");
  });

  it("that is such a script fails a page by its exit code", async () => {
    const at = await start({ command: ["sh", "-c", "cat >&2; echo '{\"a\":1}'; exit 4"], stdout: "items" });
    expect(await at.run("http://a/", "one")).toEqual({
      failed: expect.stringMatching(/^the process exited with code 4.*"text":"one"/s),
    });
  });
});

describe("a process that misbehaves takes no other page along:", () => {
  // The others are with the tests of faults, for they take their time.
  it.each(["exits 3", "hangs", "item-flood", "garbage", "late", "wrong-item"])("%s", (text) =>
    expectIsolated(text),
  );

  it("a command that is not there", async () => {
    const { run } = bound(await start({ command: ["no-such-program"] }));
    const ends = await Promise.all([run("http://a/1", "well"), run("http://a/2", "well")]);
    const failed = expect.stringMatching(/^the process could not be started: no-such-program: .*ENOENT/);
    expect(ends).toEqual([{ failed }, { failed }]);
  });

  it("a process that logs without end is read no faster than it may log", async () => {
    const at = await start({ limits: { pageTimeoutMs: 1_500 } }, { maxLogLinesPerSecond: 100 });
    expect(await at.run("http://a/", "flood 1000000")).toEqual({
      failed: expect.stringContaining("within 1500 ms"),
    });
    expect(at.log.filter(({ msg }) => msg.startsWith("line ")).length).toBeLessThan(50_000);
  });
});

describe("the processes of a crawl that is over", () => {
  it.each(["hangs", "ignores-term", "grandchild", "endless", "closes-stdin"])(
    "end with all that they have started, while a page %s",
    async (text) => {
      const at = await start();
      const stop = new AbortController();
      const bad = at.run("http://a/bad", text, { signal: stop.signal });
      const good = at.run("http://a/good", "well", { signal: stop.signal });
      await until("it is at it", () => at.children.running === 1);
      if (text === "grandchild")
        await until("it has one", () => at.log.some(({ msg }) => /^grandchild/.test(msg)));
      stop.abort();
      expect(await Promise.all([bad, good])).toEqual(
        [1, 2].map(() => ({ failed: "the page is not wanted any more" })),
      );
      await at.spider.close(at.context);
      expect(at.children.running).toBe(0);
      const grandchildren = at.log.flatMap(({ msg }) => /^grandchild (\d+)$/.exec(msg)?.[1] ?? []);
      expect(grandchildren.map(Number).filter(isAlive)).toEqual([]);
    },
  );

  it("are asked to end when they have nothing to do, and made to", async () => {
    const at = await start({ command: [...COMMAND, "--stays"], limits: { graceMs: 50 } });
    await at.run("http://a/", "well");
    await at.spider.close(at.context);
    expect(at.children.running).toBe(0);
  });

  it("come again when the crawl goes on", async () => {
    const at = await start();
    const first = await itemOf(at.run("http://a/", "well"));
    await at.spider.close(at.context);
    at.spider.open(at.context);
    expect((await itemOf(at.run("http://a/", "well"))).pid).not.toBe(first.pid);
  });

  it("a page that is not wanted any more leaves the others alone", async () => {
    const { run } = bound(await start({ limits: { processes: 1 } }));
    const stop = new AbortController();
    const slow = run("http://a/slow", "slow 300", { signal: stop.signal });
    const other = itemOf(run("http://a/other", "well"));
    stop.abort();
    expect(await slow).toEqual({ failed: "the page is not wanted any more" });
    expect(await other).toMatchObject({ url: "http://a/other" });
  });
});

function bound(at: ProcessSpiderUnderTest) {
  return { run: at.run.bind(at), children: at.children };
}
