import { describe, expect, it } from "vitest";
import { type Crawl, DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import {
  type ForeignResult,
  type Objection,
  type ResultUrl,
  toObjectedResult,
  toTaskResult,
} from "../../../src/crawl/foreign-result.js";
import { DEFAULT_TASK_LIMITS } from "../../../src/crawl/limits.js";
import { MemoryFrontier } from "../../../src/crawl/memory-frontier.js";

const NOW = 1_700_000_000_000;
const CRAWL: Crawl = {
  ...{ id: "c", spider: "theirs", seeds: ["http://h/"], scope: "host", limits: { maxDepth: 2 } },
  ...{ politeness: DEFAULT_POLITENESS, priority: 5, params: {}, status: "running", generation: 1 },
  startedAt: 0,
};
const URL: ResultUrl = {
  ...{ id: "c:1", crawl: "c", url: "http://h/a", host: "h", depth: 1, attempts: 0, round: 2 },
};

function resultOf(found: Omit<ForeignResult, "node">, about: Partial<ResultUrl> = {}) {
  const deps = { claims: new MemoryFrontier(), limits: DEFAULT_TASK_LIMITS, now: NOW };
  return toTaskResult({ node: "theirs-1", ...found }, { ...URL, ...about }, "t", CRAWL, deps);
}

describe("what a worker in another language found", () => {
  it("is put on record as a page of ours is", async () => {
    const { ending, end, pages, items, links } = await resultOf({
      statusCode: 200,
      contentType: "text/html",
      bytes: 9,
      items: [{ a: 1 }, { a: 2 }],
      links: ["/b", "/b#again", { url: "/c", callback: "product" }, "mailto:x"],
    });

    expect(ending).toEqual({
      ...{ id: "c:1", crawl: "c", token: "t", state: "done", attempts: 1, statusCode: 200 },
      ...{ items: 2, files: 0, isRemembered: true },
    });
    expect(end).toMatchObject({ host: "h", endedAt: NOW, answered: true });
    expect(pages).toMatchObject([{ id: "c:1.2", statusCode: 200, bytes: 9, node: "theirs-1" }]);
    expect(items).toMatchObject([
      { id: "c:1.2.0", spider: "theirs", node: "theirs-1", data: { a: 1 } },
      { id: "c:1.2.1", data: { a: 2 } },
    ]);
    expect(links).toMatchObject([
      { url: "http://h/b", depth: 2 },
      { url: "http://h/c", request: { callback: "product" } },
    ]);
  });

  it.each([
    [{ statusCode: 404 }, { state: "failed", reason: "http-status", node: "theirs-1" }],
    [{ statusCode: 500 }, { state: "queued", attempts: 1, reason: expect.stringContaining("500") }],
    [{ error: { code: "network", message: "m" } }, { state: "queued", attempts: 1, reason: "m" }],
    [{ error: { code: "decode", message: "m" } }, { state: "failed", reason: "decode", error: "m" }],
    [{ error: { code: "spider-error", message: "m" }, statusCode: 404 }, { reason: "http-status" }],
    [{ error: { code: "spider-error", message: "m" }, statusCode: 200 }, { reason: "spider-error" }],
    [{ error: { code: "expired", message: "" } }, { state: "queued", attempts: 0, readyAt: NOW + 1_000 }],
    [
      { statusCode: 302, redirect: "/b" },
      { state: "queued", attempts: 0, target: { url: "http://h/b" } },
    ],
    [
      { statusCode: 302, redirect: "http://x/" },
      { state: "skipped", reason: "scope" },
    ],
    [
      { statusCode: 302, redirect: "mailto:x" },
      { state: "failed", reason: "http-status" },
    ],
    [
      { statusCode: 200, url: "http://x/" },
      { state: "skipped", reason: "scope" },
    ],
    [{ statusCode: 304 }, { state: "done" }],
  ] as const)("is judged as a fetch of ours is: %j", async (found, ending) => {
    expect((await resultOf(found)).ending).toMatchObject(ending);
  });

  it.each([
    [{ statusCode: 503 }, { attempts: 2 }, { state: "failed", reason: "http-status", attempts: 3 }],
    [
      { statusCode: 301, redirect: "/b" },
      { target: { url: "http://h/t", hops: 10 } },
      { state: "failed", reason: "too-many-redirects" },
    ],
    [
      { statusCode: 301, redirect: "b" },
      { target: { url: "http://h/t/", hops: 1 }, request: { method: "POST" } },
      { target: { url: "http://h/t/b", hops: 2, asGet: true } },
    ],
  ] as const)("is judged by what was before: %j", async (found, about, ending) => {
    expect((await resultOf(found, about)).ending).toMatchObject(ending);
  });

  it("has a host left alone that asks for it, and tells why", async () => {
    const { end, hostState } = await resultOf({ statusCode: 429, retryAfter: "60" });

    const backoffUntil = NOW + 60_000;
    expect(end).toMatchObject({
      backoffUntil,
      trouble: { kind: "asked" },
      queuedAgain: { readyAt: backoffUntil },
    });
    expect(hostState).toEqual({ host: "h", lastEndedAt: NOW, backoffUntil });
  });

  it.each<[Objection, object]>([
    [
      { reason: "robots", error: "e" },
      { state: "skipped", reason: "robots", attempts: 0 },
    ],
    [
      { reason: "address", error: "e" },
      { state: "skipped", reason: "address", attempts: 0 },
    ],
    [
      { reason: "network", error: "e" },
      { state: "failed", reason: "network", attempts: 0 },
    ],
    [
      { reason: "robots", error: "e", mayPass: "timeout" },
      { state: "queued", reason: "e", attempts: 1 },
    ],
  ])("is not asked for when something speaks against it: %j", (objection, ending) => {
    const deps = { limits: DEFAULT_TASK_LIMITS, now: NOW };
    expect(toObjectedResult(objection, URL, "t", deps).ending).toMatchObject(ending);
  });

  it.each([
    ["robots", { state: "skipped", reason: "robots" }],
    ["timeout", { state: "failed", reason: "timeout" }],
  ] as const)("is given up when what speaks against it does not pass: %s", (mayPass, ending) => {
    const deps = { limits: DEFAULT_TASK_LIMITS, now: NOW };
    const objection = { reason: "robots", error: "e", mayPass } as const;
    const tried = { ...URL, attempts: 2 };
    expect(toObjectedResult(objection, tried, "t", deps).ending).toMatchObject({ ...ending, attempts: 3 });
  });
});
