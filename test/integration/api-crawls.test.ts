import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type ApiMaster, startApiMaster } from "./api-master.js";

let master: ApiMaster;

beforeAll(async () => {
  master = await startApiMaster("api_crawls");
});

afterAll(async () => {
  await master.dispose();
});

const SEEDS = ["http://site.test/"];

describe("a crawl's fetch options", () => {
  it("are kept, and shown without what is secret", async () => {
    const fetch = {
      headers: { "x-key": "s3cret" },
      auth: { "site.test": { username: "me", password: "s3cret" }, "http://b.test": { bearer: "s3cret" } },
      proxies: ["http://me:s3cret@proxy.test:3128"],
      cookies: true,
      retry: { dns: { attempts: 5 } },
    };
    const { status, body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS, fetch });
    expect(status).toBe(201);
    const shown = (await master.get(`/api/v1/crawls/${crawl.id}`)).body;
    const list = (await master.get("/api/v1/crawls")).body;
    expect(JSON.stringify([crawl, shown, list])).not.toContain("s3cret");
    expect(shown.fetch).toEqual({
      headers: { "x-key": "***" },
      auth: {
        "https://site.test": { username: "me", password: "***" },
        "http://b.test": { bearer: "***" },
      },
      proxies: ["http://proxy.test:3128"],
      cookies: true,
      retry: { dns: { attempts: 5 } },
    });
  });

  it("are refused by name, without their secrets", async () => {
    const fetch = { proxies: ["socks5://me:s3cret@proxy.test"], headers: { authorization: "s3cret" } };
    const answer = await master.post("/api/v1/crawls", { seeds: SEEDS, fetch });
    expect(answer.status).toBe(400);
    const fields = answer.body.errors.map((error: { field: string }) => error.field);
    expect(fields.sort()).toEqual(["fetch.headers.authorization", "fetch.proxies.0"]);
    expect(JSON.stringify(answer.body)).not.toContain("s3cret");
  });
});

describe("PATCH /crawls/:id", () => {
  it("changes what is named, takes away what is null, and leaves the rest", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", {
      seeds: SEEDS,
      name: "first",
      limits: { maxDepth: 3, maxPages: 10 },
      politeness: { delayMs: 250, delayFactor: 2 },
    });

    const changed = await master.patch(`/api/v1/crawls/${crawl.id}`, {
      name: null,
      priority: 9,
      politeness: { delayFactor: null, maxBytesPerSecond: 5_000 },
      limits: { maxDepth: null, maxBytes: 1_000_000 },
    });

    expect(changed.status).toBe(200);
    expect(changed.body).toMatchObject({ name: null, priority: 9, status: "running", generation: 1 });
    expect(changed.body.politeness).toEqual({
      delayMs: 250,
      maxConcurrencyPerHost: 4,
      obeyRobots: true,
      maxBytesPerSecond: 5_000,
    });
    expect(changed.body.limits).toEqual({ maxPages: 10, maxBytes: 1_000_000 });
    expect((await master.get(`/api/v1/crawls/${crawl.id}`)).body).toMatchObject(changed.body);
    expect((await master.patch(`/api/v1/crawls/${crawl.id}`, {})).body).toMatchObject(changed.body);
  });

  it.each([
    ["an unknown member", { spider: "pdf" }, "spider"],
    ["an unknown option", { politeness: { delay: 1 } }, "politeness.delay"],
    ["a delay that cannot be taken away", { politeness: { delayMs: null } }, "politeness.delayMs"],
    ["a negative factor", { politeness: { delayFactor: -1 } }, "politeness.delayFactor"],
    ["no bytes at all", { politeness: { maxBytesPerSecond: 0 } }, "politeness.maxBytesPerSecond"],
    ["half a page", { limits: { maxPages: 0.5 } }, "limits.maxPages"],
    ["a priority of ten", { priority: 10 }, "priority"],
  ])("refuses %s, naming the member", async (_what, body, field) => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS });
    const answer = await master.patch(`/api/v1/crawls/${crawl.id}`, body);
    expect(answer.status).toBe(400);
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toContain(field);
  });

  it("knows no crawl of another name", async () => {
    expect((await master.patch("/api/v1/crawls/nonesuch", { priority: 1 })).status).toBe(404);
  });
});

describe("POST /crawls/:id/recrawl", () => {
  const URLS = ["http://site.test/", "http://site.test/a", "http://site.test/b"];
  const ended = async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: URLS });
    await master.finish(crawl.id);
    return { id: crawl.id as string, path: `/api/v1/crawls/${crawl.id}/recrawl` };
  };

  it("has some URLs of a finished crawl fetched again, and the crawl runs again", async () => {
    const { id, path } = await ended();

    const answer = await master.post(path, { urls: [URLS[1], URLS[1], "http://site.test/unknown"] });

    expect([answer.status, answer.body]).toEqual([202, { opened: 1 }]);
    const { body: crawl } = await master.get(`/api/v1/crawls/${id}`);
    expect(crawl).toMatchObject({ status: "running", counts: { queued: 1, done: 2 }, finishedAt: null });
    const { body: urls } = await master.get(`/api/v1/crawls/${id}/urls?state=queued`);
    expect(urls.items).toMatchObject([{ url: URLS[1], round: 1, attempts: 0 }]);
    await master.finish(id);
    expect((await master.get(`/api/v1/crawls/${id}`)).body).toMatchObject({
      status: "finished",
      counts: { queued: 0, done: 3 },
    });
  });

  it("has all URLs fetched again that ended so long ago", async () => {
    const { id, path } = await ended();

    expect((await master.post(path, { olderThanMs: 3_600_000 })).body).toEqual({ opened: 0 });
    expect((await master.get(`/api/v1/crawls/${id}`)).body.status).toBe("finished");
    await new Promise((resolve) => setTimeout(resolve, 2));
    expect((await master.post(path, { olderThanMs: 0 })).body).toEqual({ opened: 3 });
    expect((await master.post(path, { olderThanMs: 0 })).body).toEqual({ opened: 0 });
  });

  it.each([
    ["nothing", {}],
    ["both", { urls: URLS, olderThanMs: 0 }],
    ["no URLs", { urls: [] }],
    ["a negative age", { olderThanMs: -1 }],
    ["an unknown member", { urls: URLS, depth: 1 }],
  ])("is refused with %s", async (_, body) => {
    const { path } = await ended();
    expect((await master.post(path, body)).status).toBe(400);
  });

  it("is refused for a crawl that is closed, or that there is not", async () => {
    const { id, path } = await ended();
    await master.post(`/api/v1/crawls/${id}/close`, {});
    expect((await master.post(path, { olderThanMs: 0 })).status).toBe(409);
    expect((await master.post("/api/v1/crawls/nonesuch/recrawl", { olderThanMs: 0 })).status).toBe(404);
  });
});

describe("POST /crawls", () => {
  it("starts a crawl with defaults filled in and its seeds queued", async () => {
    const { status, headers, body } = await master.post("/api/v1/crawls", {
      seeds: [...SEEDS, "http://SITE.test:80/#top"],
    });

    expect(status).toBe(201);
    expect(headers.get("location")).toBe(`/api/v1/crawls/${body.id}`);
    expect(body).toMatchObject({
      name: null,
      spider: "links",
      status: "running",
      seeds: ["http://site.test/"],
      scope: "host",
      limits: {},
      politeness: { delayMs: 0, maxConcurrencyPerHost: 4, obeyRobots: true },
      priority: 5,
      params: {},
      finishedAt: null,
      finishReason: null,
    });
    expect(body.startedAt).toMatch(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    expect((await master.get(`/api/v1/crawls/${body.id}`)).body.counts).toEqual({
      queued: 1,
      active: 0,
      done: 0,
      failed: 0,
      skipped: 0,
      items: 0,
      invalidItems: 0,
      files: 0,
      bytes: 0,
    });
    const urls = await master.get(`/api/v1/crawls/${body.id}/urls`);
    expect(urls.body).toMatchObject({
      items: [
        {
          url: "http://site.test/",
          state: "queued",
          depth: 0,
          host: "site.test",
          attempts: 0,
          waitReason: "no worker",
        },
      ],
      next: null,
    });
  });

  it.each([
    ["no seeds", {}, "seeds"],
    ["an empty list of seeds", { seeds: [] }, "seeds"],
    ["seeds that are no list", { seeds: "http://a.test/" }, "seeds"],
    ["a seed that is no text", { seeds: [SEEDS[0], 7] }, "seeds.1"],
    ["a relative seed", { seeds: [SEEDS[0], "/about"] }, "seeds.1"],
    ["a seed that is not of the web", { seeds: ["ftp://a.test/"] }, "seeds.0"],
    ["a seed of script", { seeds: ["javascript:alert(1)"] }, "seeds.0"],
    ["too many seeds", { seeds: Array.from({ length: 10_001 }, (_, n) => `http://a.test/${n}`) }, "seeds"],
    ["a seed without end", { seeds: [`http://a.test/${"x".repeat(9_000)}`] }, "seeds.0"],
    ["an unknown spider", { seeds: SEEDS, spider: "nonesuch" }, "spider"],
    ["a spider that is no name", { seeds: SEEDS, spider: "../secret" }, "spider"],
    ["a name that is no text", { seeds: SEEDS, name: 3 }, "name"],
    ["an unknown scope", { seeds: SEEDS, scope: "planet" }, "scope"],
    ["a scope with an unknown member", { seeds: SEEDS, scope: { allow: [], forbid: [] } }, "scope.forbid"],
    ["a scope with a bad glob", { seeds: SEEDS, scope: { allow: ["*", 4] } }, "scope.allow.1"],
    ["a negative depth", { seeds: SEEDS, limits: { maxDepth: -1 } }, "limits.maxDepth"],
    ["half a page", { seeds: SEEDS, limits: { maxPages: 1.5 } }, "limits.maxPages"],
    ["no pages at all", { seeds: SEEDS, limits: { maxPages: 0 } }, "limits.maxPages"],
    ["a limit as text", { seeds: SEEDS, limits: { maxBytes: "12" } }, "limits.maxBytes"],
    ["an unknown limit", { seeds: SEEDS, limits: { maxpages: 1 } }, "limits.maxpages"],
    ["a negative delay", { seeds: SEEDS, politeness: { delayMs: -5 } }, "politeness.delayMs"],
    ["robots as text", { seeds: SEEDS, politeness: { obeyRobots: "no" } }, "politeness.obeyRobots"],
    [
      "no concurrency",
      { seeds: SEEDS, politeness: { maxConcurrencyPerHost: 0 } },
      "politeness.maxConcurrencyPerHost",
    ],
    ["a priority of ten", { seeds: SEEDS, priority: 10 }, "priority"],
    ["a priority of null", { seeds: SEEDS, priority: null }, "priority"],
    ["a choice of no nodes", { seeds: SEEDS, nodes: { mode: "selected", ids: [] } }, "nodes.ids"],
    ["an unknown way to choose nodes", { seeds: SEEDS, nodes: { mode: "some" } }, "nodes.mode"],
    ["params that are a list", { seeds: SEEDS, params: [] }, "params"],
    ["params that are too large", { seeds: SEEDS, params: { text: "x".repeat(70_000) } }, "params"],
    [
      "params that are too deep",
      { seeds: SEEDS, params: JSON.parse(`{"a":${"[".repeat(500)}${"]".repeat(500)}}`) },
      "params",
    ],
    ["an unknown member", { seeds: SEEDS, colour: "red" }, "colour"],
  ])("refuses %s, naming the member", async (_what, body, field) => {
    const answer = await master.post("/api/v1/crawls", body);

    expect(answer.status).toBe(400);
    expect(answer.headers.get("content-type")).toContain("application/problem+json");
    expect(answer.body).toMatchObject({ status: 400, code: "invalid", type: "urn:warren:problem:invalid" });
    expect(answer.body.errors.map((error: { field: string }) => error.field)).toContain(field);
    expect(answer.body.detail).toContain(field);
  });

  it.each([
    ["broken JSON", '{"seeds": [', "invalid", 400],
    [
      "JSON that reaches for prototypes",
      '{"seeds":["http://a.test/"],"__proto__":{"admin":true}}',
      "invalid",
      400,
    ],
    ["a list", "[]", "invalid", 400],
    ["nothing", "", "invalid", 400],
  ])("refuses %s", async (_what, text, code, status) => {
    const answer = await master.send("POST", "/api/v1/crawls", {
      body: text,
      headers: { "content-type": "application/json" },
    });

    expect(answer.status).toBe(status);
    expect(answer.body).toMatchObject({ code, status });
  });

  it("refuses bodies of other types and endless ones", async () => {
    const form = await master.send("POST", "/api/v1/crawls", {
      body: "seeds=http://a.test/",
      headers: { "content-type": "application/x-www-form-urlencoded" },
    });
    const huge = await master.post("/api/v1/crawls", { name: "x".repeat(9 * 1024 * 1024) });

    expect(form).toMatchObject({ status: 415, body: { code: "unsupported-media-type" } });
    expect(huge).toMatchObject({ status: 413, body: { code: "too-large" } });
  });

  it("answers the same key and body with the same crawl, and refuses another body", async () => {
    const headers = { "idempotency-key": "order-1" };
    const body = { seeds: ["http://idempotent.test/"] };

    const answers = await Promise.all(
      Array.from({ length: 8 }, () => master.post("/api/v1/crawls", body, headers)),
    );
    const explicit = await master.post("/api/v1/crawls", { ...body, priority: 5 }, headers);
    const other = await master.post("/api/v1/crawls", { seeds: ["http://other.test/"] }, headers);
    const nonsense = await master.post("/api/v1/crawls", body, { "idempotency-key": "a b" });

    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([201]));
    expect(new Set([...answers, explicit].map(({ body: crawl }) => crawl.id)).size).toBe(1);
    expect(other).toMatchObject({ status: 422, body: { code: "key-reused" } });
    expect(nonsense).toMatchObject({ status: 400, body: { errors: [{ field: "Idempotency-Key" }] } });
    const urls = await master.get(`/api/v1/crawls/${explicit.body.id}/urls`);
    expect(urls.body.items).toHaveLength(1);
  });

  it("begins with the spider's own seeds when it is given none", async () => {
    const { status, body } = await master.post("/api/v1/crawls", { spider: "seeded" });

    expect(status).toBe(201);
    expect(body.seeds).toEqual(["http://seeded.test/one", "http://seeded.test/two"]);
  });

  it("takes for one URL what the crawl, or else its spider, takes for one", async () => {
    const urls = { sortQuery: false };
    const seeds = ["http://one.test/?utm_source=x", "http://one.test/"];
    const limits = { maxPages: 7 };
    const { body: crawl } = await master.post("/api/v1/crawls", { spider: "seeded", seeds, urls, limits });
    expect(crawl).toMatchObject({
      limits: { maxDepth: 5, maxPages: 7 },
      urls: { sortQuery: false, dropTracking: true },
      counts: { queued: 1 },
    });
    expect(JSON.stringify(crawl)).not.toContain("s3cret");
    const shown = await master.get("/api/v1/spiders/seeded");
    expect(shown.body.settings).toMatchObject({ limits: { maxDepth: 5, maxPages: 1_000 } });
    expect(JSON.stringify(shown.body)).not.toContain("s3cret");

    const added = await master.post(`/api/v1/crawls/${crawl.id}/urls`, {
      urls: ["http://one.test/?gclid=1", "http://one.test/?a&b", "http://one.test/?b&a&utm_term=y"],
    });

    expect(added.body).toEqual({ accepted: 2, known: 1 });
    const rows = (await master.get(`/api/v1/crawls/${crawl.id}/urls`)).body.items;
    expect(rows.map(({ url }: { url: string }) => url).sort()).toEqual([
      "http://one.test/?a&b",
      "http://one.test/?b&a&utm_term=y",
      "http://one.test/?utm_source=x",
    ]);
  });

  it.each([
    [
      "an expression that goes back",
      { scope: { allow: [], denyPatterns: ["(a)\\1"] } },
      "scope.denyPatterns.0",
    ],
    ["a scope's unknown member", { scope: { paths: ["/a"] } }, "scope.paths"],
    ["a link option that is none", { links: { canonical: "yes" } }, "links.canonical"],
    ["a trap's number", { links: { traps: { segments: 0 } } }, "links.traps.segments"],
    ["a URL option that is none", { urls: { dropSlash: true } }, "urls.dropSlash"],
  ])("refuses %s, naming the member", async (_what, body, field) => {
    const answer = await master.post("/api/v1/crawls", { seeds: SEEDS, ...body });

    expect(answer).toMatchObject({ status: 400, body: { errors: [{ field }] } });
  });
});

describe("the life of a crawl", () => {
  it("is paused, resumed, closed, and resumed again", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS });
    const change = (what: string) => master.send("POST", `/api/v1/crawls/${crawl.id}/${what}`);

    expect((await change("pause")).body).toMatchObject({ id: crawl.id, status: "paused" });
    expect((await change("pause")).body.status).toBe("paused");
    expect((await change("resume")).body.status).toBe("running");
    const closed = await change("close");
    expect(closed.body).toMatchObject({ status: "closed", generation: crawl.generation + 1 });
    expect(await change("pause")).toMatchObject({ status: 409, body: { code: "conflict" } });
    expect(await master.post(`/api/v1/crawls/${crawl.id}/urls`, { urls: SEEDS })).toMatchObject({
      status: 409,
    });
    expect((await change("resume")).body.status).toBe("running");
  });

  it("takes back what is dispatched when it is closed, and tells every worker", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS });
    const { body: urls } = await master.get(`/api/v1/crawls/${crawl.id}/urls`);
    const now = Date.now();
    await master.store.frontier.dispatch([urls.items[0].id], {
      token: "1.test.1",
      generation: 1,
      dispatchedAt: now,
      notAfter: now + 60_000,
    });
    expect((await master.get(`/api/v1/crawls/${crawl.id}/urls?state=active`)).body.items).toHaveLength(1);

    const closed = await master.send("DELETE", `/api/v1/crawls/${crawl.id}`);

    expect(closed).toMatchObject({
      status: 200,
      body: { status: "closed", counts: { queued: 1, active: 0 } },
    });
  });

  it("removes all that a purged crawl left behind", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS });

    const purged = await master.send("DELETE", `/api/v1/crawls/${crawl.id}?purge=true`);

    expect(purged.status).toBe(204);
    expect((await master.get(`/api/v1/crawls/${crawl.id}`)).status).toBe(404);
    expect(await master.store.urls.list(crawl.id)).toMatchObject({ items: [] });
  });

  it("counts added URLs once each, records those out of scope, and runs again when it had finished", async () => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS, limits: { maxDepth: 2 } });
    const path = `/api/v1/crawls/${crawl.id}/urls`;
    await master.finish(crawl.id);
    expect((await master.get(`/api/v1/crawls/${crawl.id}`)).body).toMatchObject({
      status: "finished",
      finishReason: "completed",
    });

    const added = await master.post(path, {
      urls: [...SEEDS, "http://site.test/new", "http://site.test/new#again", "http://elsewhere.test/"],
    });
    const tooDeep = await master.post(path, { urls: ["http://site.test/deep"], depth: 3 });

    expect(added).toMatchObject({ status: 202, body: { accepted: 2, known: 1 } });
    expect(tooDeep.body).toEqual({ accepted: 1, known: 0 });
    expect((await master.get(`/api/v1/crawls/${crawl.id}`)).body).toMatchObject({
      status: "running",
      finishedAt: null,
      counts: { queued: 1, skipped: 2 },
    });
    const skipped = await master.get(`${path}?state=skipped`);
    expect(
      skipped.body.items.map((row: { url: string; reason: string }) => [row.url, row.reason]).sort(),
    ).toEqual([
      ["http://elsewhere.test/", "scope"],
      ["http://site.test/deep", "depth"],
    ]);
  });

  it.each([
    ["no URLs", { urls: [] }, "urls"],
    ["a relative URL", { urls: ["b.html"] }, "urls.0"],
    ["a bad depth", { urls: SEEDS, depth: -1 }, "depth"],
    ["an unknown member", { urls: SEEDS, url: "x" }, "url"],
  ])("refuses to add %s, naming the member", async (_what, body, field) => {
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds: SEEDS });

    const answer = await master.post(`/api/v1/crawls/${crawl.id}/urls`, body);

    expect(answer).toMatchObject({ status: 400, body: { errors: [{ field }] } });
  });
});

describe("lists", () => {
  it("leads through all URLs page by page", async () => {
    const seeds = Array.from({ length: 25 }, (_, n) => `http://pages.test/${n}`);
    const { body: crawl } = await master.post("/api/v1/crawls", { seeds });
    const found: string[] = [];

    for (let cursor: string | null = ""; cursor !== null; ) {
      const more: string = cursor === "" ? "" : `&cursor=${cursor}`;
      const { body } = await master.get(`/api/v1/crawls/${crawl.id}/urls?limit=10${more}`);
      found.push(...body.items.map((row: { url: string }) => row.url));
      cursor = body.next;
    }

    expect(found.sort()).toEqual(seeds.sort());
  });

  it("leads through all crawls, newest first", async () => {
    const { body: newest } = await master.post("/api/v1/crawls", { seeds: SEEDS });

    const { body } = await master.get("/api/v1/crawls?limit=1");
    const rest = await master.get(`/api/v1/crawls?limit=1000&cursor=${body.next}`);

    expect(body.items.map((crawl: { id: string }) => crawl.id)).toEqual([newest.id]);
    expect(rest.body.items.map((crawl: { id: string }) => crawl.id)).not.toContain(newest.id);
    expect(rest.body.next).toBeNull();
  });

  it.each([
    ["/api/v1/crawls?limit=0", "limit"],
    ["/api/v1/crawls?limit=many", "limit"],
    ["/api/v1/crawls?limit=5000", "limit"],
    ["/api/v1/crawls?status=lost", "status"],
    ["/api/v1/crawls?page=2", "page"],
    ["/api/v1/crawls/a%24b", "id"],
    ["/api/v1/crawls/abc/urls?state=dispatched", "state"],
    ["/api/v1/crawls/abc/items?format=xml", "format"],
    ["/api/v1/events?type=.*", "type.0"],
  ])("refuses %s, naming the member", async (path, field) => {
    const answer = await master.get(path);

    expect(answer).toMatchObject({ status: 400, body: { code: "invalid", errors: [{ field }] } });
  });

  it("refuses paths that cannot be read", async () => {
    expect(await master.get("/api/v1/crawls/%zz")).toMatchObject({ status: 400, body: { code: "invalid" } });
  });

  it("refuses cursors that it did not give", async () => {
    expect(await master.get("/api/v1/crawls?cursor=bm9uc2Vuc2U")).toMatchObject({
      status: 400,
      body: { code: "invalid" },
    });
  });
});

describe("what is not there", () => {
  it.each([
    ["GET", "/api/v1/crawls/nonesuch", 404],
    ["POST", "/api/v1/crawls/nonesuch/pause", 404],
    ["DELETE", "/api/v1/crawls/nonesuch", 404],
    ["GET", "/api/v1/crawls/nonesuch/urls", 404],
    ["GET", "/api/v1/crawls/nonesuch/items", 404],
    ["GET", "/api/v1/crawls/nonesuch/items?format=csv", 404],
    ["GET", "/api/v1/crawls/nonesuch/files", 404],
    ["GET", "/api/v1/files/nonesuch", 404],
    ["GET", "/api/v1/nodes/nonesuch", 404],
    ["GET", "/api/v1/spiders/nonesuch", 404],
    ["GET", "/nowhere", 404],
    ["GET", "/api/v1/schedules/nonesuch", 404],
    ["GET", "/api/v1/schedules/nonesuch/runs", 404],
    ["PUT", "/api/v1/crawls", 405],
    ["DELETE", "/healthz", 405],
    ["GET", "/crawler/resource", 405],
  ])("%s %s is a problem with status %i", async (method, path, status) => {
    const answer = await master.send(method, path);

    expect(answer.status).toBe(status);
    expect(answer.headers.get("content-type")).toContain("application/problem+json");
    expect(answer.body).toMatchObject({ status, code: status === 404 ? "not-found" : "method-not-allowed" });
    if (status === 405) expect(answer.headers.get("allow")).toBeTruthy();
  });
});

describe("/crawler/resource", () => {
  it("crawls a URL once however often it is added, closes it, and goes on with the same crawl", async () => {
    const add = () => master.post("/crawler/resource", { id: "r1", name: "http://resource.test/a" });

    const first = await add();
    const again = await add();
    const deleted = await master.send("DELETE", "/crawler/resource", {
      body: JSON.stringify({ id: "r1", name: "http://resource.test/a" }),
      headers: { "content-type": "application/json" },
    });
    const readded = await add();
    const byQuery = await master.send(
      "DELETE",
      `/crawler/resource?name=${encodeURIComponent("http://resource.test/a")}`,
    );

    expect(first).toMatchObject({
      status: 201,
      body: {
        status: "running",
        name: "http://resource.test/a",
        resource: { id: "r1", name: "http://resource.test/a" },
      },
    });
    expect(again).toMatchObject({ status: 200, body: { id: first.body.id, status: "running" } });
    expect(deleted).toMatchObject({
      status: 200,
      body: { id: first.body.id, crawl: first.body.id, status: "closed" },
    });
    expect(readded).toMatchObject({ status: 200, body: { id: first.body.id, status: "running" } });
    expect(byQuery).toMatchObject({ status: 200, body: { id: first.body.id, status: "closed" } });
  });

  it("takes a spider that has seeds of its own", async () => {
    const { status, body } = await master.post("/crawler/resource", { name: "seeded" });

    expect(status).toBe(201);
    expect(body).toMatchObject({
      spider: "seeded",
      seeds: ["http://seeded.test/one", "http://seeded.test/two"],
    });
  });

  it("makes one crawl of it when many masters are asked at the same time", async () => {
    const name = "http://race.test/";

    const answers = await Promise.all(
      Array.from({ length: 12 }, () => master.post("/crawler/resource", { name })),
    );

    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1);
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1);
    const { body: urls } = await master.get(`/api/v1/crawls/${answers[0]?.body.id}/urls`);
    expect(urls.items).toHaveLength(1);
  });

  it.each([
    ["a name that is neither", { name: "nonesuch" }, 400, "name"],
    ["a spider without seeds", { name: "links" }, 400, "name"],
    ["a URL without a host", { name: "http://" }, 400, "name"],
    ["no name", { id: "x" }, 400, "name"],
    ["an unknown member", { name: "http://a.test/", assigned: 1 }, 400, "assigned"],
  ])("refuses to add %s", async (_what, body, status, field) => {
    expect(await master.post("/crawler/resource", body)).toMatchObject({
      status,
      body: { errors: [{ field }] },
    });
  });

  it("does not find what was never added, nor delete what is not named", async () => {
    expect((await master.send("DELETE", "/crawler/resource?name=http://never.test/")).status).toBe(404);
    expect(await master.send("DELETE", "/crawler/resource")).toMatchObject({
      status: 400,
      body: { errors: [{ field: "name" }] },
    });
  });
});
