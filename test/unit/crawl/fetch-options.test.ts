import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ConnectionsBusyError, FetchError } from "../../../src/crawl/errors.js";
import { CookieJars } from "../../../src/crawl/fetch/cookie-jars.js";
import { fetchOptions, withoutSecrets } from "../../../src/crawl/fetch/fetch-options.js";
import type { Fetched } from "../../../src/crawl/fetch/fetcher.js";
import { statusInWords } from "../../../src/crawl/fetch/status-words.js";
import { DEFAULT_TASK_LIMITS, type TaskLimits } from "../../../src/crawl/limits.js";
import { AttemptJudge } from "../../../src/crawl/outcome.js";
import type { Task } from "../../../src/crawl/task.js";
import { requestAt } from "../../../src/crawl/task-request.js";
import { ManualClock } from "../../../src/lib/clock.js";
import { ProxyServer } from "../../support/proxy-server.js";
import { crawlStandalone } from "../../support/standalone-under-test.js";
import { startWildSite, type WildSite } from "../../support/wild-site.js";

let site: WildSite;
const OTHER = "127.0.0.2";
beforeAll(async () => {
  site = await startWildSite({ alsoOn: [OTHER] });
});
beforeEach(() => {
  site.requests.length = 0;
});
afterAll(() => site.close());

const sentTo = (path: string, host?: string) =>
  site.requests
    .filter((request) => request.path === path && (host === undefined || request.host.startsWith(host)))
    .map(({ headers }) => headers);
const redirectTo = (location: string, status = 302, headers: Record<string, string> = {}) => ({
  body: "",
  status,
  headers: { location, ...headers },
});

describe("a crawl's fetch options", () => {
  it.each<[string, unknown]>([
    ["unknown", { unknown: 1 }],
    ["headers.host", { headers: { host: "x" } }],
    ["headers.Content-Length", { headers: { "Content-Length": "1" } }],
    ["headers.transfer-encoding", { headers: { "transfer-encoding": "chunked" } }],
    ["headers.proxy-authorization", { headers: { "proxy-authorization": "x" } }],
    ["headers.authorization", { headers: { authorization: "x" } }],
    ["headers.Cookie", { headers: { Cookie: "a=b" } }],
    ["headers.x", { headers: { x: "a\r\nb: c" } }],
    ["headers.x", { headers: { x: "\u0100" } }],
    ["headers.a b", { headers: { "a b": "c" } }],
    ["userAgent", { userAgent: "" }],
    ["userAgent", { userAgent: "a\nb" }],
    ["auth.ftp://a.example", { auth: { "ftp://a.example": { bearer: "x" } } }],
    ["auth.https://a.example/path", { auth: { "https://a.example/path": { bearer: "x" } } }],
    ["auth.https://u@a.example", { auth: { "https://u@a.example": { bearer: "x" } } }],
    ["auth.a.example.username", { auth: { "a.example": { username: "a:b", password: "c" } } }],
    ["auth.a.example.bearer", { auth: { "a.example": { bearer: "two words" } } }],
    ["auth.a.example.headers.host", { auth: { "a.example": { headers: { host: "x" } } } }],
    ["proxies.0", { proxies: ["socks5://p.example:1080"] }],
    ["proxies.0", { proxies: ["p.example:3128"] }],
    ["proxies.0", { proxies: ["http://p.example:3128/path"] }],
    ["proxies.0", { proxies: ["http://u:%ff@p.example:3128"] }],
    ["timeoutMs", { timeoutMs: 1 }],
    ["maxPageBytes", { maxPageBytes: 2 ** 31 }],
    ["maxAttempts", { maxAttempts: 0 }],
    ["retry.other", { retry: { other: {} } }],
    ["retry.dns.attempts", { retry: { dns: { attempts: 0 } } }],
  ])("are refused by name: %s in %j", (field, options) => {
    const parsed = fetchOptions.safeParse(options);
    expect(parsed.success).toBe(false);
    const fields = parsed.error?.issues.flatMap((issue) =>
      issue.code === "unrecognized_keys"
        ? issue.keys.map((key) => [...issue.path, key].join("."))
        : [issue.path.join(".")],
    );
    expect(fields).toContain(field);
  });

  it("take a host alone for its https origin, and spell origins in one way", () => {
    const bearer = { bearer: "t" };
    const { auth } = fetchOptions.parse({
      auth: { "A.example": bearer, "http://b.example:80": bearer, "c.example:8443": bearer },
    });
    expect(Object.keys(auth ?? {})).toEqual([
      "https://a.example",
      "http://b.example",
      "https://c.example:8443",
    ]);
  });

  it("are shown without anything that is secret", () => {
    const options = fetchOptions.parse({
      headers: { "x-api-key": "s3cret" },
      auth: {
        "a.example": { username: "me", password: "s3cret" },
        "b.example": { bearer: "s3cret" },
        "c.example": { headers: { cookie: "s3cret" } },
      },
      proxies: ["http://me:s3cret@p.example:3128"],
      timeoutMs: 1_000,
    });
    const shown = withoutSecrets(options);
    expect(JSON.stringify(shown)).not.toContain("s3cret");
    expect(shown).toEqual({
      headers: { "x-api-key": "***" },
      auth: {
        "https://a.example": { username: "me", password: "***" },
        "https://b.example": { bearer: "***" },
        "https://c.example": { headers: { cookie: "***" } },
      },
      proxies: ["http://p.example:3128"],
      timeoutMs: 1_000,
    });
  });
});

describe("a crawl", () => {
  it("sends its headers everywhere, and credentials to their origin only, whatever redirects say", async () => {
    site.page("/", `<a href="/own"><a href="${site.originOn(OTHER)}/other"><a href="/away">`);
    site.page("/own", "own");
    site.page("/other", "other");
    site.page("/away", redirectTo(`${site.originOn(OTHER)}/landed`));
    site.page("/landed", "landed");
    const { counts } = await crawlStandalone({
      seeds: [site.url],
      scope: "any",
      fetch: {
        headers: { "x-crawl": "yes" },
        userAgent: "Special/2.0",
        auth: {
          [site.origin]: { username: "me", password: "pass" },
          [site.originOn(OTHER)]: { headers: { cookie: "k=v" } },
        },
      },
    });
    expect(counts).toMatchObject({ done: 4, failed: 0 });
    const basic = `Basic ${Buffer.from("me:pass").toString("base64")}`;
    for (const path of ["/", "/own", "/away"]) {
      expect(sentTo(path)[0]).toMatchObject({
        authorization: basic,
        "x-crawl": "yes",
        "user-agent": "Special/2.0",
      });
      expect(sentTo(path)[0]).not.toHaveProperty("cookie");
    }
    for (const path of ["/other", "/landed"]) {
      expect(sentTo(path)[0]).toMatchObject({ cookie: "k=v", "x-crawl": "yes" });
      expect(sentTo(path)[0]).not.toHaveProperty("authorization");
    }
    expect(sentTo("/robots.txt")[0]).not.toHaveProperty("authorization");
  });

  it("keeps cookies when it is told to: those of redirects too, for the host that set them", async () => {
    site.page("/login", redirectTo("/home", 302, { "set-cookie": "session=1; Path=/; HttpOnly" }));
    site.page("/home", `<a href="/in"><a href="${site.originOn(OTHER)}/out">`);
    site.page("/in", { body: "in", headers: { "set-cookie": "session=; Max-Age=0" } });
    site.page("/out", "out");
    const seeds = [`${site.origin}/login`];
    await crawlStandalone({ seeds, scope: "any", fetch: { cookies: true } });
    expect(sentTo("/login")[0]).not.toHaveProperty("cookie");
    expect(sentTo("/home")[0]?.cookie).toBe("session=1");
    expect(sentTo("/in")[0]?.cookie).toBe("session=1");
    expect(sentTo("/out")[0]).not.toHaveProperty("cookie");
    site.requests.length = 0;
    await crawlStandalone({ seeds, scope: "any" });
    expect(sentTo("/in")[0]).not.toHaveProperty("cookie");
  });

  it("goes by limits of its own", async () => {
    site.page(
      "/",
      '<a href="/size/5000"><a href="/redirect/3"><a href="/status/503"><a href="/never-headers?own">',
    );
    const { counts } = await crawlStandalone({
      seeds: [site.url],
      fetch: {
        maxPageBytes: 4_096,
        maxRedirects: 2,
        maxAttempts: 2,
        timeoutMs: 150,
        retry: { timeout: { attempts: 1 }, status5xx: { attempts: 4, delayMs: 1 } },
      },
    });
    expect(counts).toMatchObject({ done: 1, failed: 4 });
    expect(sentTo("/status/503")).toHaveLength(4);
    expect(sentTo("/never-headers?own")).toHaveLength(1);
    expect(sentTo("/redirect/0")).toHaveLength(0);
  });

  it("reaches its hosts through its proxies, for their robots.txt too", async () => {
    const proxy = await ProxyServer.start();
    site.page("/", '<a href="/a">');
    site.page("/a", "a");
    const before = site.requests.length;
    const { counts } = await crawlStandalone({ seeds: [site.url], fetch: { proxies: [proxy.url] } });
    expect(counts).toMatchObject({ done: 2, failed: 0 });
    expect(site.requests.length - before).toBe(3);
    expect(new Set(proxy.asked)).toEqual(new Set([`127.0.0.1:${site.port}`]));
    await proxy.close();
  });
});

describe("cookies", () => {
  it.each<[string, string, string, string | undefined]>([
    ["a=1", "https://www.a.example/", "https://www.a.example/x", "a=1"],
    ["a=1", "https://www.a.example/", "https://a.example/", undefined],
    ["a=1; Domain=a.example", "https://www.a.example/", "https://b.a.example/", "a=1"],
    ["a=1; Domain=example", "https://www.a.example/", "https://www.a.example/", undefined],
    ["a=1; Domain=co.uk", "https://a.co.uk/", "https://b.co.uk/", undefined],
    ["a=1; Domain=github.io", "https://a.github.io/", "https://b.github.io/", undefined],
    ["a=1; Domain=other.test", "https://a.example/", "https://other.test/", undefined],
    ["a=1; Secure", "https://a.example/", "http://a.example/", undefined],
    ["a=1; Path=/in", "https://a.example/", "https://a.example/out", undefined],
    ["a=1; Max-Age=0", "https://a.example/", "https://a.example/", undefined],
    ["a=1", "http://127.0.0.1:8080/", "http://127.0.0.1:8081/", "a=1"],
    ["a=1; Domain=0.0.1", "http://127.0.0.1/", "http://127.0.0.1/", undefined],
    [`a=${"x".repeat(5_000)}`, "https://a.example/", "https://a.example/", undefined],
    ["=; ; ;", "https://a.example/", "https://a.example/", undefined],
    ["__Host-a=1; Secure; Path=/", "https://a.example/", "https://a.example/", "__Host-a=1"],
  ])("%s from %s: to %s goes %j", async (cookie, from, to, expected) => {
    const jars = new CookieJars();
    await jars.take(from, [cookie]);
    expect(await jars.headerFor(to)).toBe(expected);
  });

  it("are bounded by number and by what is sent", async () => {
    const jars = new CookieJars();
    for (let n = 0; n < 100; n += 1) await jars.take("https://a.example/", [`c${n}=1`]);
    const sent = (await jars.headerFor("https://a.example/"))?.split("; ");
    expect(sent).toHaveLength(50);
    expect(sent).toContain("c99=1");
    for (let n = 0; n < 50; n += 1) await jars.take("https://b.example/", [`c${n}=${"x".repeat(2_000)}`]);
    expect((await jars.headerFor("https://b.example/"))?.length).toBeLessThan(8_193);
    await jars.take(
      "https://c.example/",
      Array.from({ length: 1_000 }, (_, n) => `d${n}=1`),
    );
    expect((await jars.headerFor("https://c.example/"))?.split("; ")).toHaveLength(50);
  });
});

describe("a request after redirects", () => {
  const task = {
    url: "https://a.example/form",
    request: {
      method: "POST",
      headers: { Authorization: "secret", "Content-Type": "text/plain", "X-Own": "1" },
      body: "body",
    },
  } as unknown as Task;

  it.each<[string, boolean, readonly string[], boolean]>([
    // where to, as a GET; headers, body
    ["https://a.example/form", false, ["Authorization", "Content-Type", "X-Own"], true],
    ["https://a.example/other", false, ["Authorization", "Content-Type", "X-Own"], true],
    ["https://a.example/other", true, ["Authorization", "X-Own"], false],
    ["https://b.example/other", false, ["Content-Type"], true],
    ["https://b.example/other", true, [], false],
    ["https://a.example:8443/", false, ["Content-Type"], true],
    ["https://www.a.example/", false, ["Content-Type"], true],
    ["http://a.example/form", false, [], false],
    ["http://b.example/form", false, [], false],
    ["http://a.example/form", true, [], false],
  ])("to %s (as a GET: %j) has headers %j and a body: %j", (url, asGet, headers, hasBody) => {
    const request = requestAt(url, task, asGet);
    expect(Object.keys(request.headers ?? {})).toEqual(headers);
    expect(request.body).toBe(hasBody ? "body" : undefined);
    expect(request.method).toBe(asGet ? undefined : "POST");
  });

  it("keeps its headers when the same host asks for TLS", () => {
    const plain = { ...task, url: "http://a.example/" };
    expect(requestAt("https://a.example/", plain, true).headers).toHaveProperty("Authorization");
    expect(requestAt("https://b.example/", plain, true).headers).toBeUndefined();
    expect(requestAt("https://a.example:444/", plain, true).headers).toBeUndefined();
  });

  it.each([
    [307, "POST", "body"],
    [308, "POST", "body"],
    [301, "GET", ""],
    [302, "GET", ""],
    [303, "GET", ""],
  ])(
    "of status %i is a %s with body %j, on another host and at a second attempt too",
    async (status, method, body) => {
      const seen: unknown[] = [];
      let failures = 1;
      site.page(`/from/${status}`, redirectTo(`${site.originOn(OTHER)}/to/${status}`, status));
      site.page(`/to/${status}`, (request, response) => {
        let text = "";
        request.on("data", (chunk) => {
          text += String(chunk);
        });
        request.on("end", () => {
          seen.push([request.method, text, request.headers.authorization]);
          response.writeHead(failures > 0 ? 500 : 200).end("done");
          failures -= 1;
        });
      });
      const url = `${site.origin}/from/${status}`;
      const spider = {
        name: "poster",
        *parse(page: { readonly url: string }) {
          if (!page.url.endsWith("/start")) return;
          const headers = { authorization: "secret", "content-type": "text/plain" };
          yield { request: { url, method: "POST" as const, body: "body", headers } };
        },
      };
      site.page("/start", "start");
      const { counts } = await crawlStandalone(
        {
          seeds: [`${site.origin}/start`],
          scope: "any",
          spider: "poster",
          fetch: { retry: { status5xx: { delayMs: 1 } } },
        },
        { spiders: [spider] },
      );
      expect(counts).toMatchObject({ done: 2, failed: 0 });
      expect(seen).toEqual([
        [method, body, undefined],
        [method, body, undefined],
      ]);
    },
  );
});

describe("failed attempts", () => {
  const judged = (
    limits: Partial<TaskLimits>,
    attempts: number,
    failure: FetchError | number,
    random = 0,
  ) => {
    const clock = new ManualClock(0);
    const judge = new AttemptJudge(clock, { ...DEFAULT_TASK_LIMITS, ...limits }, () => random);
    const task = { attempts } as Task;
    if (failure instanceof FetchError) return judge.fetchFailed(failure, task);
    return judge.badStatus({ statusCode: failure, headers: {} } as Fetched, task);
  };

  it("are made again after twice as long each time, and a little by chance", () => {
    const failure = new FetchError("network", "x");
    expect([0, 1].map((attempts) => judged({}, attempts, failure))).toMatchObject([
      { state: "queued", readyAt: 1_000 },
      { state: "queued", readyAt: 2_000 },
    ]);
    expect(judged({}, 0, failure, 0.999)).toMatchObject({ readyAt: 1_250 });
    expect(judged({}, 2, failure)).toMatchObject({ state: "failed", reason: "network" });
    const late = { maxAttempts: 50, maxRetryDelayMs: 5_000 };
    expect(judged(late, 40, failure, 0.999)).toMatchObject({ readyAt: 5_000 });
  });

  it.each<[FetchError | number, string]>([
    [new FetchError("network", "x"), "network"],
    [new FetchError("network", "x", { phase: "dns" }), "dns"],
    [new FetchError("timeout", "x", { phase: "dns" }), "dns"],
    [new FetchError("timeout", "x", { phase: "headers" }), "timeout"],
    [408, "status4xx"],
    [425, "status4xx"],
    [429, "status429"],
    [500, "status5xx"],
    [503, "status5xx"],
  ])("by %s are of class %s, which has its own number and waits", (failure, retryClass) => {
    const others = Object.fromEntries(
      ["network", "dns", "timeout", "status429", "status4xx", "status5xx"].map((name) => [
        name,
        { attempts: 1 },
      ]),
    );
    const rule = { attempts: 2, delayMs: 70, maxDelayMs: 70 };
    const limits = { retry: { ...others, [retryClass]: rule } };
    expect(judged(limits, 0, failure, 0.5)).toMatchObject({ state: "queued", readyAt: 70 });
    expect(judged(limits, 1, failure)).toMatchObject({ state: "failed" });
    expect(judged({ retry: { [retryClass]: { attempts: 1 } } }, 0, failure)).toMatchObject({
      state: "failed",
    });
  });

  it("end in the standards' words", () => {
    expect([404, 413, 422, 503, 418, 509, 599].map(statusInWords)).toEqual([
      "status 404 Not Found",
      "status 413 Content Too Large",
      "status 422 Unprocessable Content",
      "status 503 Service Unavailable",
      "status 418",
      "status 509",
      "status 599",
    ]);
    expect(judged({ maxAttempts: 1 }, 0, 503)).toMatchObject({ error: "status 503 Service Unavailable" });
  });

  it("for want of a connection of ours are not taken for the host's silence", () => {
    const cause = new ConnectionsBusyError(1, 1);
    const busy = new FetchError("timeout", "x", { phase: "connect", cause });
    expect(judged({}, 0, busy)).not.toHaveProperty("trouble");
    expect(judged({}, 0, new FetchError("timeout", "x"))).toHaveProperty("trouble.kind", "silent");
  });
});
