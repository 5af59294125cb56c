import { request as httpRequest } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ConfigError } from "../../src/lib/errors.js";
import { ApiServer } from "../../src/master/api/server.js";
import { type ApiMaster, startApiMaster } from "./api-master.js";

const TOKENS = [
  { role: "viewer", token: "look" },
  { role: "operator", token: "act" },
  { role: "admin", token: "rule" },
] as const;

let open: ApiMaster;
let guarded: ApiMaster;

beforeAll(async () => {
  open = await startApiMaster("api_open");
  guarded = await startApiMaster("api_guarded", { tokens: TOKENS });
});

afterAll(async () => {
  await open.dispose();
  await guarded.dispose();
});

/** `fetch` sets Host and Origin by itself; a hostile page's browser sets them too, but not to our liking. */
function raw(url: string, method: string, headers: Record<string, string>): Promise<number> {
  return new Promise((resolve, reject) => {
    const request = httpRequest(url, { method, headers }, (response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
    request.on("error", reject);
    request.end();
  });
}

describe("with tokens", () => {
  const SEEDS = { seeds: ["http://a.test/"] };

  it.each([
    ["viewer", "look", 200, 403],
    ["operator", "act", 200, 201],
    ["admin", "rule", 200, 201],
  ])("a %s reads, and writes if it may", async (_role, token, reads, writes) => {
    const headers = { authorization: `Bearer ${token}` };

    expect((await guarded.send("GET", "/api/v1/crawls", { headers })).status).toBe(reads);
    expect((await guarded.send("GET", "/metrics", { headers })).status).toBe(reads);
    expect((await guarded.post("/api/v1/crawls", SEEDS, headers)).status).toBe(writes);
  });

  it.each([
    ["no token", {}],
    ["an unknown token", { authorization: "Bearer nonesuch" }],
    ["a token's beginning", { authorization: "Bearer loo" }],
    ["another scheme", { authorization: "Basic look" }],
    ["an empty token", { authorization: "Bearer " }],
  ])("refuses %s", async (_what, headers) => {
    for (const path of ["/api/v1/crawls", "/api/v1/events", "/metrics", "/nowhere"]) {
      const answer = await guarded.send("GET", path, { headers });
      expect(answer).toMatchObject({ status: 401, body: { code: "unauthorized" } });
      expect(answer.headers.get("www-authenticate")).toContain("Bearer");
    }
  });

  it("leaves the health checks and the page open, which holds no data", async () => {
    for (const path of ["/healthz", "/readyz", "/"]) {
      expect((await fetch(guarded.url + path)).status).toBe(200);
    }
  });

  it("answers to any host name", async () => {
    expect(await raw(`${guarded.url}/healthz`, "GET", { host: "warren.example" })).toBe(200);
  });
});

describe("without tokens", () => {
  it.each(["0.0.0.0", "::", "192.0.2.1", "warren.example"])("refuses to listen on %s", (host) => {
    expect(
      () => new ApiServer({ host, port: 0, namespace: "warren", version: "0", tokens: [] }, open.parts),
    ).toThrow(ConfigError);
    expect(
      () =>
        new ApiServer({ host, port: 0, namespace: "warren", version: "0", tokens: [...TOKENS] }, open.parts),
    ).not.toThrow();
  });

  it.each(["127.0.0.1", "127.9.9.9", "::1", "localhost"])("may listen on %s", (host) => {
    expect(
      () => new ApiServer({ host, port: 0, namespace: "warren", version: "0", tokens: [] }, open.parts),
    ).not.toThrow();
  });

  it.each([
    ["the address", "127.0.0.1", 200],
    ["localhost and a port", "localhost:8080", 200],
    ["IPv6 loopback", "[::1]:8080", 200],
    ["a name that was bound to this address", "evil.example", 403],
    ["a name that only begins like loopback", "127.0.0.1.evil.example", 403],
    ["another address", "192.0.2.1", 403],
  ])("answers %s as Host accordingly", async (_what, host, status) => {
    expect(await raw(`${open.url}/api/v1/crawls`, "GET", { host })).toBe(status);
  });

  it("takes writes from its own page and from programs, but from no other site's page", async () => {
    const path = `${open.url}/api/v1/crawls/nonesuch/pause`;

    expect(await raw(path, "POST", {})).toBe(404);
    expect(await raw(path, "POST", { origin: open.url })).toBe(404);
    expect(await raw(path, "POST", { origin: "http://evil.example" })).toBe(403);
    expect(await raw(path, "POST", { origin: "http://127.0.0.1:1" })).toBe(403);
    expect(await raw(path, "POST", { origin: "null" })).toBe(403);
    expect(await raw(path, "POST", { "sec-fetch-site": "cross-site" })).toBe(403);
  });
});

describe("the server itself", () => {
  it("tells that it is ready, and of what that is made", async () => {
    expect(await open.get("/readyz")).toMatchObject({
      status: 200,
      body: { ready: true, checks: { amqp: { ok: true }, mongodb: { ok: true } } },
    });
  });

  it("serves its metrics and a page that runs only its own script", async () => {
    const metrics = await (await fetch(`${open.url}/metrics`)).text();
    const page = await fetch(open.url);
    const html = await page.text();

    expect(metrics).toContain('warren_nodes{status="online"} 0');
    expect(html).toContain("<h1>Warren</h1>");
    expect(page.headers.get("content-security-policy")).toMatch(
      /default-src 'none'; script-src 'sha256-[^']+'/,
    );
    expect(html).not.toMatch(/(src|href)="https?:/);
  });

  it("stops with streams open, and twice", async () => {
    const own = await startApiMaster("api_stopping");
    const stream = await fetch(`${own.url}/api/v1/events`);
    const ended = stream.text();

    await own.api.stop();
    await own.api.stop();

    expect(await ended).toContain("retry:");
    await expect(fetch(`${own.url}/healthz`)).rejects.toThrow();
    await own.dispose();
  });
});
