import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { Task } from "../../../src/crawl/task.js";
import type { TaskResult } from "../../../src/crawl/task-result.js";
import { EngineUnderTest } from "../../support/engine-under-test.js";

let site: EngineUnderTest;

beforeEach(async () => {
  site = await EngineUnderTest.start();
});
afterEach(() => site.dispose());

const PAGE = '<title>One</title><a href="/x">x</a>';
const LONG_AGO = "Sun, 06 Nov 1994 08:49:37 GMT";

/** Fetches a path in two rounds; what the server says may change in between. */
async function twice(path: string, between: () => void = () => {}) {
  const crawl = site.recrawl();
  const task = site.task(path);
  const first = await site.run(task, crawl);
  between();
  const second = await site.run(await site.next(task, first), crawl);
  return { first, second, sent: site.asked.at(-1)?.headers ?? {} };
}

const intervalOf = ({ ending }: TaskResult) =>
  ending.state === "queued" ? undefined : ending.nextVisit?.revisit.intervalMs;

function serve(path: string, body: string, headers: Record<string, string> = {}): void {
  site.answers.set(path, (_, response) => {
    response.writeHead(200, { "content-type": "text/html", ...headers }).end(body);
  });
}

/** Says 304 to whoever has what there is. */
function serveIfChanged(path: string, body: string, etag: string): void {
  site.answers.set(path, (request, response) => {
    if (request.headers["if-none-match"] === etag) response.writeHead(304, { etag }).end();
    else response.writeHead(200, { "content-type": "text/html", etag }).end(body);
  });
}

describe("a page that is fetched again", () => {
  it("is asked for by its validators, and a 304 leaves everything as it was", async () => {
    serveIfChanged("/", PAGE, 'W/"1"');

    const { first, second, sent } = await twice("/");

    expect(first.items).toHaveLength(1);
    expect(first.links).toHaveLength(1);
    expect(sent["if-none-match"]).toBe('W/"1"');
    expect(second).toMatchObject({
      ending: { state: "done", statusCode: 304, isUnchanged: true },
      pages: [{ id: `${site.task("/").id}.1`, statusCode: 304, notModified: true, bytes: 0 }],
      items: [],
      files: [],
      links: [],
    });
    expect(intervalOf(second)).toBe((intervalOf(first) ?? 0) * 2);
  });

  it("goes to the spider again when it has changed, and is looked at sooner", async () => {
    serveIfChanged("/", PAGE, '"1"');

    const { first, second } = await twice("/", () => serveIfChanged("/", "<title>Two</title>", '"2"'));

    expect(second).toMatchObject({
      ending: { state: "done", statusCode: 200 },
      items: [{ id: `${site.task("/").id}.1.0`, data: { title: "Two" } }],
    });
    expect(second.ending).not.toHaveProperty("isUnchanged");
    expect(intervalOf(second)).toBe((intervalOf(first) ?? 0) / 2);
  });

  it("is told by its body when the server has no validators, or always says 200", async () => {
    for (const headers of [{}, { etag: '"always"' }, { "last-modified": LONG_AGO }]) {
      serve("/", PAGE, headers);
      const { second } = await twice("/");
      expect(second).toMatchObject({
        ending: { state: "done", statusCode: 200, isUnchanged: true },
        pages: [{ isUnchanged: true, bytes: PAGE.length, contentHash: expect.stringMatching(/^[\w-]{21}$/) }],
        items: [],
        links: [],
      });
      expect(second.pages[0]).not.toHaveProperty("notModified");
    }
  });

  it("has changed when its body has, whatever its entity tag says", async () => {
    serve("/", PAGE, { etag: '"always"' });

    const { second } = await twice("/", () => serve("/", "<title>Two</title>", { etag: '"always"' }));

    expect(second.items).toMatchObject([{ data: { title: "Two" } }]);
  });

  it("is asked for whole when its validators are garbage, or its date is in the future", async () => {
    serve("/", PAGE, { etag: "unquoted", "last-modified": "Thu, 01 Jan 2099 00:00:00 GMT" });

    const { sent } = await twice("/");

    expect(sent).not.toHaveProperty("if-none-match");
    expect(sent).not.toHaveProperty("if-modified-since");
  });

  it("is asked for by its date when it has no entity tag", async () => {
    serve("/", PAGE, { "last-modified": LONG_AGO });

    const { sent } = await twice("/");

    expect(sent["if-modified-since"]).toBe(LONG_AGO);
  });

  it("fails by a 304 that nobody asked for", async () => {
    site.answers.set("/", (_, response) => response.writeHead(304).end());

    const { ending } = await site.run(site.task("/"), site.recrawl());

    expect(ending).toMatchObject({ state: "failed", reason: "http-status", statusCode: 304 });
  });

  it("is asked for by its validators where redirects lead, and not before", async () => {
    site.answers.set("/", (_, response) => response.writeHead(302, { location: "/moved" }).end());
    serveIfChanged("/moved", PAGE, '"1"');

    const { second } = await twice("/");

    const [, , from, to] = site.asked;
    expect([from?.path, from?.headers["if-none-match"]]).toEqual(["/", undefined]);
    expect([to?.path, to?.headers["if-none-match"]]).toEqual(["/moved", '"1"']);
    expect(second.ending).toMatchObject({ state: "done", statusCode: 304 });
  });

  it("is gone after some rounds in which it was gone, and comes back if it does before", async () => {
    const crawl = site.recrawl();
    serveIfChanged("/", PAGE, '"1"');
    let task: Task = site.task("/");
    let result = await site.run(task, crawl);
    const states: string[] = [];
    for (const status of [404, 200, 410, 404, 404]) {
      if (status === 200) serveIfChanged("/", PAGE, '"1"');
      else site.answers.set("/", (_, response) => response.writeHead(status).end());
      task = await site.next(task, result);
      result = await site.run(task, crawl);
      states.push(`${result.ending.state} ${"nextVisit" in result.ending}`);
    }

    expect(states).toEqual(["failed true", "done true", "failed true", "failed true", "failed false"]);
  });

  it("is tried again in its round when the server is in trouble, and goes on as before", async () => {
    serveIfChanged("/", PAGE, '"1"');
    const crawl = site.recrawl();
    const task = site.task("/");
    const first = await site.run(task, crawl);
    site.answers.set("/", (_, response) => response.writeHead(500).end());
    const again = await site.next(task, first);

    const retried = await site.run(again, crawl);
    const failed = await site.run({ ...again, attempts: 2 }, crawl);

    expect(retried.ending).toMatchObject({ state: "queued", attempts: 1 });
    expect(failed.ending).toMatchObject({ state: "failed", reason: "http-status" });
    expect(failed.ending).toMatchObject({ nextVisit: { revisit: { etag: '"1"' } } });
  });

  it("costs a crawl without recrawl nothing: neither hash nor validators nor next visit", async () => {
    serveIfChanged("/", PAGE, '"1"');

    const { ending, pages, end } = await site.run(site.task("/"), site.crawl());

    expect(ending).not.toHaveProperty("nextVisit");
    expect(end).not.toHaveProperty("nextVisitAt");
    expect(pages[0]).not.toHaveProperty("contentHash");
  });
});

describe("a body that the crawl has had at another URL", () => {
  const text = (about: string) =>
    `<title>${about}</title>${Array.from({ length: 400 }, (_, n) => `word${(n * 7) % 97}`).join(" ")}<p>${about}</p>`;

  it("is skipped as a duplicate, naming the first, and neither items nor links are kept", async () => {
    for (const path of ["/a", "/b/", "/c"]) serve(path, PAGE);
    const crawl = site.crawl({ duplicates: "exact" });

    const [first, second] = [await site.run(site.task("/a"), crawl), await site.run(site.task("/b/"), crawl)];

    expect(first.ending.state).toBe("done");
    expect(second).toMatchObject({
      ending: { state: "skipped", reason: "duplicate", error: expect.stringContaining(site.url("/a")) },
      pages: [{ duplicateOf: site.url("/a") }],
      items: [],
      links: [],
    });
    expect((await site.run(site.task("/a"), crawl)).ending.state).toBe("done");
  });

  it("is a page like any other unless the crawl looks for duplicates, and of another crawl always", async () => {
    serve("/a", PAGE);
    serve("/b", PAGE);
    await site.run(site.task("/a"), site.crawl({ duplicates: "exact" }));

    expect((await site.run(site.task("/b"), site.crawl())).ending.state).toBe("done");
    const other = { ...site.task("/b"), crawl: "other", id: "other:b" };
    const crawl = site.crawl({ duplicates: "exact", id: "other" });
    expect((await site.run(other, crawl)).ending.state).toBe("done");
  });

  it("does not count when it is empty", async () => {
    serve("/a", "");
    serve("/b", "");
    const crawl = site.crawl({ duplicates: "exact" });
    await site.run(site.task("/a"), crawl);

    expect((await site.run(site.task("/b"), crawl)).ending.state).toBe("done");
  });

  it("is skipped when it is merely alike, if that is asked for", async () => {
    serve("/a", text("at ten"));
    serve("/b", text("at eleven"));
    serve("/c", text("at ten").replaceAll("word", "other"));

    for (const duplicates of ["exact", "similar"] as const) {
      const id = duplicates;
      const crawl = site.crawl({ duplicates, id });
      const states: string[] = [];
      for (const path of ["/a", "/b", "/c"]) {
        const task = { ...site.task(path), crawl: id, id: `${id}:${path}` };
        states.push((await site.run(task, crawl)).ending.state);
      }
      expect(states).toEqual(duplicates === "exact" ? ["done", "done", "done"] : ["done", "skipped", "done"]);
    }
  });

  it("is let through where its first URL has it no more", async () => {
    serve("/a", PAGE);
    serve("/b", PAGE);
    const crawl = site.recrawl({ duplicates: "exact" });
    const [a, b] = [site.task("/a"), site.task("/b")];
    const first = await site.run(a, crawl);
    const duplicate = await site.run(b, crawl);
    expect(duplicate.ending.state).toBe("skipped");
    serve("/a", "<title>Changed</title>");
    await site.run(await site.next(a, first), crawl);

    const later = await site.run(await site.next(b, duplicate), crawl);

    expect(later.ending.state).toBe("done");
    expect(later.items).toHaveLength(1);
  });
});
