import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { FetchError } from "../../../src/crawl/errors.js";
import { Fetcher } from "../../../src/crawl/fetch/fetcher.js";
import type { RobotsRecord, RobotsStore } from "../../../src/crawl/records.js";
import { parseRobots, Robots, type RobotsOptions } from "../../../src/crawl/robots/robots.js";
import { ManualClock } from "../../../src/lib/clock.js";
import { type SitePage, startWildSite, type WildSite } from "../../support/wild-site.js";

const ORIGIN = "http://example.com";

function allows(body: string, path: string, userAgent = "Warren/0.1 (+https://example.org/)"): boolean {
  return parseRobots(ORIGIN, body).allows(ORIGIN + path, userAgent);
}

describe("a robots.txt", () => {
  describe("is for the crawlers it names", () => {
    const body =
      "User-agent: Warren\nDisallow: /w\n\nUser-agent: Other\nDisallow: /o\n\nUser-agent: *\nDisallow: /all\n";

    it.each([
      ["Warren/0.1", "/w", false],
      ["Warren/0.1", "/o", true],
      ["Warren/0.1", "/all", true],
      ["wArReN", "/w", false],
      ["Warren (+https://example.org/)", "/w", false],
      ["WarrenExtra/1", "/w", true],
      ["WarrenExtra/1", "/all", false],
      ["War/1", "/all", false],
      ["Other", "/o", false],
      ["Nobody/2", "/all", false],
      ["Nobody/2", "/w", true],
    ])("%s on %s: %j", (userAgent, path, expected) => {
      expect(allows(body, path, userAgent)).toBe(expected);
    });

    it.each([
      [
        "merges groups of one name",
        "User-agent: warren\nDisallow: /a\nUser-agent: x\nDisallow: /x\nUser-agent: Warren\nDisallow: /b",
        "/b",
        false,
      ],
      [
        "merges groups of one name, keeping the first",
        "User-agent: warren\nDisallow: /a\nUser-agent: x\nDisallow: /x\nUser-agent: Warren\nDisallow: /b",
        "/a",
        false,
      ],
      [
        "merges groups of *",
        "User-agent: *\nDisallow: /a\nUser-agent: x\nDisallow: /x\nUser-agent: *\nDisallow: /b",
        "/a",
        false,
      ],
      ["shares rules among names in a row", "User-agent: x\nUser-agent: warren\nDisallow: /a", "/a", false],
      ["is not for others", "User-agent: x\nDisallow: /", "/a", true],
      [
        "lets an empty group of one's own stand against *",
        "User-agent: warren\nDisallow:\n\nUser-agent: *\nDisallow: /",
        "/a",
        true,
      ],
      [
        "lets a group of one's own without any rule stand against *",
        "User-agent: *\nDisallow: /\n\nUser-agent: warren",
        "/a",
        true,
      ],
      ["passes over rules before any name", "Disallow: /a\nUser-agent: *\nDisallow: /b", "/a", true],
      [
        "keeps a list of names together over blank lines",
        "User-agent: warren\n\n\nUser-agent: x\nDisallow: /a",
        "/a",
        false,
      ],
      [
        "keeps a list of names together over comments",
        "User-agent: warren\n# who\nUser-agent: x\nDisallow: /a",
        "/a",
        false,
      ],
      [
        "keeps a list of names together over a sitemap",
        "User-agent: warren\nSitemap: /s.xml\nUser-agent: x\nDisallow: /a",
        "/a",
        false,
      ],
      [
        "keeps a list of names together over what it does not know",
        "User-agent: warren\nNoindex: /z\nUser-agent: x\nDisallow: /a",
        "/a",
        false,
      ],
      [
        "keeps a group together over blank lines",
        "User-agent: warren\n\nDisallow: /a\n\nDisallow: /b",
        "/b",
        false,
      ],
      [
        "keeps a group together over a sitemap",
        "User-agent: warren\nDisallow: /b\nSitemap: /s.xml\nDisallow: /a",
        "/a",
        false,
      ],
      ["takes the name's version for no part of it", "User-agent: Warren/2.0\nDisallow: /a", "/a", false],
      ["takes the name's first word", "User-agent: Warren crawler\nDisallow: /a", "/a", false],
      ["takes * with a word after it for *", "User-agent: * all\nDisallow: /a", "/a", false],
    ])("%s", (_claim, robots, path, expected) => {
      expect(allows(robots, path)).toBe(expected);
    });
  });

  describe("may be written in any way", () => {
    it.each([
      ["with a byte order mark", "\uFEFFUser-agent: *\nDisallow: /a"],
      ["with carriage returns and line feeds", "User-agent: *\r\nDisallow: /a\r\n"],
      ["with carriage returns alone", "User-agent: *\rDisallow: /a\r"],
      ["in any letter case", "USER-AGENT: *\ndisALLOW: /a"],
      ["with white space about", "  User-agent \t:\t* \n \tDisallow : \t/a  "],
      ["without white space", "User-agent:*\nDisallow:/a"],
      ["with comments", "# x\nUser-agent: * # all\nDisallow: /a # b"],
      ["without colons", "User-agent *\nDisallow /a"],
      ["after lines of garbage", "<html>\n\u0000\u0001: ::\n\nUser-agent: *\nDisallow: /a"],
    ])("%s", (_how, body) => {
      expect([allows(body, "/a"), allows(body, "/b")]).toEqual([false, true]);
    });

    it.each([
      "",
      "\n\n",
      "# nothing",
      "<!doctype html><p>Not found</p>",
      "\uFEFF",
      "User-agent: *",
      "Disallow",
    ])("and allows all when it is %j", (body) => {
      expect(allows(body, "/a")).toBe(true);
    });
  });

  describe("matches paths", () => {
    it.each([
      // RFC 9309, 2.2.2 and 5.2: the longest match wins, allow wins a tie.
      ["/", "/anything", true],
      ["/fish", "/fish", true],
      ["/fish", "/fish.html", true],
      ["/fish", "/fish/salmon.html", true],
      ["/fish", "/fishheads/yummy.html", true],
      ["/fish", "/fish.php?id=anything", true],
      ["/fish", "/Fish.asp", false],
      ["/fish", "/catfish", false],
      ["/fish", "/?id=fish", false],
      ["/fish", "/desert/fish", false],
      ["/fish*", "/fishheads", true],
      ["/fish*", "/fish", true],
      ["/fish/", "/fish/", true],
      ["/fish/", "/fish/?salmon", true],
      ["/fish/", "/fish", false],
      ["/fish/", "/fish.html", false],
      ["/*.php", "/index.php", true],
      ["/*.php", "/folder/filename.php?parameters", true],
      ["/*.php", "/folder/any.php.file.html", true],
      ["/*.php", "/", false],
      ["/*.php", "/windows.PHP", false],
      ["/*.php$", "/filename.php", true],
      ["/*.php$", "/folder/filename.php", true],
      ["/*.php$", "/filename.php?parameters", false],
      ["/*.php$", "/filename.php/", false],
      ["/*.php$", "/filename.php5", false],
      ["/fish*.php", "/fish.php", true],
      ["/fish*.php", "/fishheads/catfish.php?parameters", true],
      ["/fish*.php", "/Fish.PHP", false],
      ["*", "/a", true],
      ["*a", "/xa", true],
      ["/$", "/", true],
      ["/$", "/a", false],
      ["/a$b", "/a$b", true],
      ["/a$b", "/a", false],
      ["/a*$", "/abc", true],
      ["/a**b", "/axb", true],
      ["/*/*/c", "/a/b/c", true],
      ["/*/*/c", "/a/c", false],
      ["/ab*ba$", "/aba", false],
      ["/?", "/?x", true],
      ["/?", "/x", false],
      ["/a?b=c", "/a?b=c&d", true],
      ["fish", "/fish", false],
      ["http://example.com/fish", "/fish", false],
      // RFC 9309, 2.2.2: octets that need it are compared encoded, those that do not are compared decoded.
      ["/foo/bar?baz=quz", "/foo/bar?baz=quz", true],
      ["/foo/bar/ツ", "/foo/bar/%E3%83%84", true],
      ["/foo/bar/%E3%83%84", "/foo/bar/ツ", true],
      ["/foo/bar/%e3%83%84", "/foo/bar/%E3%83%84", true],
      ["/foo/bar/%62%61%7A", "/foo/bar/baz", true],
      ["/foo/bar/baz", "/foo/bar/%62%61%7A", true],
      ["/a%2Fb", "/a/b", false],
      ["/a%2fb", "/a%2Fb", true],
      ["/a b", "/a%20b", true],
      ["/~joe", "/%7Ejoe", true],
      ["/a'b", "/a'b", true],
      ["/?a'b", "/?a'b", true],
      // 2.2.3: encoded, the special characters mean themselves.
      ["/a%2Ab", "/a*b", true],
      ["/a%2Ab", "/axb", false],
      ["/a%24", "/a$", true],
      ["/a%24", "/a$x", true],
      ["/a%24", "/a", false],
    ])("%s on %s: %j", (pattern, path, matches) => {
      expect(allows(`User-agent: *\nDisallow: ${pattern}`, path)).toBe(!matches);
    });

    it.each([
      [["Allow: /p", "Disallow: /"], "/page", true],
      [["Disallow: /", "Allow: /p"], "/page", true],
      [["Allow: /folder", "Disallow: /folder"], "/folder/page", true],
      [["Disallow: /folder", "Allow: /folder"], "/folder/page", true],
      [["Allow: /page", "Disallow: /*.htm"], "/page.htm", false],
      [["Allow: /page", "Disallow: /*.ph"], "/page.php5", true],
      [["Allow: /$", "Disallow: /"], "/", true],
      [["Allow: /$", "Disallow: /"], "/page.htm", false],
      [["Disallow: /x/", "Allow: /x/page.html"], "/x/page.html", true],
      [["Disallow: /x/page.html", "Allow: /x/"], "/x/page.html", false],
      [["Disallow:"], "/a", true],
      [["Allow:", "Disallow: /"], "/a", false],
      [["Disallow: /", "Disallow:"], "/a", false],
      [["Disallow: /"], "/robots.txt", true],
      [["Disallow: /robots.txt"], "/robots.txt", true],
      [["Disallow: /"], "/robots.txt.html", false],
    ])("by %j on %s: %j", (rules, path, expected) => {
      expect(allows(`User-agent: *\n${rules.join("\n")}`, path)).toBe(expected);
    });

    it("in time that no pattern can stretch", () => {
      const body = `User-agent: *\n${`Disallow: /${"*a".repeat(500)}*b\n`.repeat(200)}`;
      const rules = parseRobots(ORIGIN, body).rulesFor("Warren");
      for (let n = 0; n < 10; n += 1) expect(rules.allows(`/${"a".repeat(8_000)}`)).toBe(true);
    });
  });

  it.each([
    ["User-agent: *\nCrawl-delay: 2", 2_000],
    ["User-agent: *\nCrawl-delay: 0.5", 500],
    ["User-agent: *\nCrawl-delay: 86400", 60_000],
    ["User-agent: *\nCrawl-delay: Infinity", 60_000],
    ["User-agent: *\nCrawl-delay: 0", 0],
    ["User-agent: *\nCrawl-delay: -5", 0],
    ["User-agent: *\nCrawl-delay: soon", 0],
    ["User-agent: *\nCrawl-delay:", 0],
    ["User-agent: *\nCrawl-delay: 2\nDisallow: /x\nCrawl-delay: 3", 3_000],
    ["User-agent: Warren\nCrawl-delay: 3\nUser-agent: *\nCrawl-delay: 9", 3_000],
    ["User-agent: x\nCrawl-delay: 9\nUser-agent: Warren\nDisallow: /y", 0],
    ["User-agent: *\nCrawl-delay: 9\nDisallow: /\nUser-agent: Warren\nDisallow: /y", 0],
    ["Crawl-delay: 9", 0],
  ])("asks for a delay: %j gives %i ms", (body, expected) => {
    expect(parseRobots(ORIGIN, body).crawlDelayMs("Warren/0.1")).toBe(expected);
  });

  it("names sitemaps, wherever they stand", () => {
    const body =
      "Sitemap: http://other.example/a.xml\nUser-agent: *\nDisallow: /\nsitemap: /b.xml.gz\nSitemap: mailto:x";
    expect(parseRobots(ORIGIN, body).sitemaps).toEqual([
      "http://other.example/a.xml",
      "http://example.com/b.xml.gz",
    ]);
  });
});

class RememberingStore implements RobotsStore {
  readonly records = new Map<string, RobotsRecord>();
  gets = 0;

  async get(origin: string): Promise<RobotsRecord | undefined> {
    this.gets += 1;
    return this.records.get(origin);
  }

  async put(record: RobotsRecord): Promise<void> {
    this.records.set(record.origin, record);
  }
}

describe("asking a host", () => {
  let site: WildSite;
  const fetchers: Fetcher[] = [];
  beforeAll(async () => {
    site = await startWildSite({ alsoOn: ["127.0.0.2"] });
  });
  afterEach(async () => {
    for (const fetcher of fetchers.splice(0)) await fetcher.close();
  });
  afterAll(() => site.close());

  function setup(robotsTxt: string | SitePage | undefined, options: Partial<RobotsOptions> = {}) {
    site.robots = robotsTxt;
    site.requests.length = 0;
    const userAgent = "Warren/0.1";
    const fetcher = new Fetcher({ userAgent, allowedNetworks: ["127.0.0.0/8"], timeoutMs: 2_000 });
    fetchers.push(fetcher);
    const store = new RememberingStore();
    const clock = new ManualClock();
    const deps = { fetcher, store, clock, userAgent };
    return { robots: new Robots(deps, options), another: () => new Robots(deps, options), store, clock };
  }
  const asked = () => site.requestsOf("/robots.txt").length;
  const redirectTo = (location: string): SitePage => ({ status: 302, headers: { location }, body: "" });

  it("obeys what it says", async () => {
    const { robots, clock } = setup("User-agent: *\nDisallow: /private\nCrawl-delay: 3");
    expect(await robots.check(`${site.origin}/a`)).toEqual({
      allowed: true,
      crawlDelayMs: 3_000,
      verdict: "rules",
      fetchedAt: clock.now(),
    });
    expect(await robots.check(`${site.origin}/private/x?y#z`)).toMatchObject({
      allowed: false,
      verdict: "rules",
    });
    expect(await robots.check(site.origin)).toMatchObject({ allowed: true });
  });

  it.each([
    ["/private/x", "Disallow: /private"],
    ["/a.pdf", "Disallow: /*.pdf$"],
    ["/one", "Disallow: /one$"],
    ["/caf%c3%a9/x", "Disallow: /caf%C3%A9"],
  ])("names the line that forbids %s", async (path, line) => {
    const rules = ["/private", "/*.pdf$", "/one$", "/caf\u00e9", "/p"].map(
      (pattern) => `Disallow: ${pattern}`,
    );
    const { robots } = setup(["User-agent: *", ...rules].join("\n"));
    expect(await robots.check(site.origin + path)).toMatchObject({ allowed: false, line });
    expect(await robots.check(`${site.origin}/open`)).not.toHaveProperty("line");
  });

  it("asks once for each origin, however many want to know", async () => {
    const { robots } = setup("User-agent: *\nDisallow: /b");
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, n) => robots.check(`${site.origin}/${n % 2 === 0 ? "a" : "b"}`)),
    );
    expect(answers.filter(({ allowed }) => allowed)).toHaveLength(25);
    await robots.check(`${site.originOn("127.0.0.2")}/a`);
    expect(site.requests.map(({ host }) => host)).toEqual([
      `127.0.0.1:${site.port}`,
      `127.0.0.2:${site.port}`,
    ]);
  });

  it("asks again after a day and not before", async () => {
    const { robots, clock } = setup("User-agent: *\nDisallow: /a");
    await robots.check(`${site.origin}/a`);
    clock.advance(86_399_999);
    await robots.check(`${site.origin}/a`);
    expect(asked()).toBe(1);
    site.robots = "";
    clock.advance(1);
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: true });
    expect(asked()).toBe(2);
  });

  it("shares what was read through the store", async () => {
    const { robots, another, store, clock } = setup("User-agent: *\nDisallow: /a");
    await robots.check(`${site.origin}/a`);
    expect(store.records.get(site.origin)).toEqual({
      origin: site.origin,
      fetchedAt: clock.now(),
      expiresAt: clock.now() + 86_400_000,
      verdict: "rules",
      body: "User-agent: *\nDisallow: /a",
    });
    const other = another();
    expect(await other.check(`${site.origin}/a`)).toMatchObject({ allowed: false });
    expect(asked()).toBe(1);
    clock.advance(86_400_000);
    await other.check(`${site.origin}/a`);
    expect(asked()).toBe(2);
  });

  it("goes on when the store is away", async () => {
    const { store, robots } = setup("User-agent: *\nDisallow: /a");
    store.get = () => Promise.reject(new Error("away"));
    store.put = () => Promise.reject(new Error("away"));
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: false, verdict: "rules" });
  });

  it.each([400, 401, 403, 404, 410, 418, 429, 451])("allows all on status %i", async (status) => {
    const { robots, store } = setup({ status, body: "User-agent: *\nDisallow: /" });
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: true, verdict: "allow" });
    expect(store.records.get(site.origin)).toMatchObject({ verdict: "allow" });
  });

  it.each([500, 502, 503, 599])("allows nothing on status %i, until it answers", async (status) => {
    const { robots, clock, store } = setup({ status, body: "" });
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({
      allowed: false,
      verdict: "disallow",
      error: expect.stringContaining(`status ${status}`),
    });
    expect(store.records.size).toBe(0);
    site.robots = "";
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: false });
    clock.advance(500);
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: true });
    expect(asked()).toBe(2);
  });

  it("asks a failing host less and less, but at least once a minute", async () => {
    const { robots, clock } = setup({ status: 500, body: "" });
    const askedAt: number[] = [];
    const startedAt = clock.now();
    for (let second = 0; second < 300; second += 0.5) {
      const before = asked();
      await robots.check(`${site.origin}/a`);
      if (asked() > before) askedAt.push((clock.now() - startedAt) / 1_000);
      clock.advance(500);
    }
    expect(askedAt).toEqual([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 63.5, 123.5, 183.5, 243.5]);
  });

  it("says how a host that does not answer failed", async () => {
    site.page("/robots.txt", (request) => request.socket.destroy());
    const { robots } = setup(undefined);
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({
      allowed: false,
      verdict: "disallow",
      failure: "network",
    });
    site.page("/robots.txt", (_request, response) => response.end("User-agent: *\nDisallow: /cut"));
  });

  it("keeps to the rules it had when they cannot be had anew", async () => {
    const { robots, clock } = setup(undefined);
    site.page("/robots.txt", "User-agent: *\nDisallow: /a");
    await robots.check(`${site.origin}/a`);
    site.page("/robots.txt", { status: 503, body: "" });
    clock.advance(86_400_000);
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: false, verdict: "rules" });
    expect(await robots.check(`${site.origin}/b`)).toMatchObject({ allowed: true, verdict: "rules" });
    site.page("/robots.txt", "");
    clock.advance(500);
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: true });
  });

  it.each([
    ["", 86_400_000],
    ["max-age=7200", 7_200_000],
    ["public, max-age=7200, must-revalidate", 7_200_000],
    ["max-age=60", 3_600_000],
    ["no-cache", 3_600_000],
    ["No-Store", 3_600_000],
    ["max-age=31536000", 86_400_000],
    ["max-age=soon", 86_400_000],
    ["s-max-age=60, x-no-cache", 86_400_000],
  ])("is told by cache-control %j to use it for %i ms", async (control, ageMs) => {
    const { robots, store, clock } = setup(undefined);
    site.page("/robots.txt", { body: "", headers: control === "" ? {} : { "cache-control": control } });
    await robots.check(`${site.origin}/a`);
    expect(store.records.get(site.origin)?.expiresAt).toBe(clock.now() + ageMs);
    site.page("/robots.txt", {
      status: 404,
      body: "",
      headers: control === "" ? {} : { "cache-control": control },
    });
    await robots.check(`${site.originOn("127.0.0.2")}/a`);
    expect(store.records.get(site.originOn("127.0.0.2"))?.expiresAt).toBe(clock.now() + ageMs);
  });

  it.each([
    [429, undefined, 60_000],
    [429, "7200", 7_200_000],
    [429, "864000", 86_400_000],
    [408, undefined, 60_000],
    [404, "7200", 86_400_000],
  ])("asks again after status %i with retry-after %j in %i ms", async (status, retryAfter, ageMs) => {
    const { robots, store, clock } = setup(undefined);
    const headers = retryAfter === undefined ? {} : { "retry-after": retryAfter };
    site.page("/robots.txt", { status, headers, body: "" });
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: true, verdict: "allow" });
    expect(store.records.get(site.origin)?.expiresAt).toBe(clock.now() + ageMs);
  });

  it.each([
    ["2", 2_000],
    ["3600", 600_000],
  ])("leaves a failing host alone as long as it asks: %s s", async (seconds, backoffMs) => {
    const { robots, clock } = setup(undefined);
    site.page("/robots.txt", { status: 503, headers: { "retry-after": seconds }, body: "" });
    const backoffUntil = clock.now() + backoffMs;
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ verdict: "disallow", backoffUntil });
    site.page("/robots.txt", "");
    clock.advance(backoffMs - 1);
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ allowed: false, backoffUntil });
    clock.advance(1);
    const answer = await robots.check(`${site.origin}/a`);
    expect(answer).toMatchObject({ allowed: true });
    expect(answer).not.toHaveProperty("backoffUntil");
    expect(asked()).toBe(2);
  });

  it("keeps to the rules that another process had, when they cannot be had anew", async () => {
    const { robots, another, clock } = setup(undefined);
    site.page("/robots.txt", "User-agent: *\nDisallow: /a\nCrawl-delay: 2");
    await robots.check(`${site.origin}/a`);
    clock.advance(7 * 86_400_000);
    site.page("/robots.txt", (request) => request.socket.destroy());
    const other = another();
    expect(await other.check(`${site.origin}/a`)).toMatchObject({ allowed: false, verdict: "rules" });
    expect(await other.check(`${site.origin}/b`)).toMatchObject({ allowed: true, crawlDelayMs: 2_000 });
    const askedBefore = asked();
    clock.advance(500);
    expect(await other.check(`${site.origin}/b`)).toMatchObject({ allowed: true });
    expect(asked()).toBe(askedBefore + 1);
    site.page("/robots.txt", "User-agent: *\nDisallow: /b");
    clock.advance(1_000);
    expect(await other.check(`${site.origin}/b`)).toMatchObject({ allowed: false });
  });

  it("reads a bounded number of files at once", async () => {
    const { robots } = setup(undefined, { maxAtOnce: 2 });
    const held: (() => void)[] = [];
    site.page("/robots.txt", (_request, response) => {
      held.push(() => response.end(""));
    });
    const addresses = ["127.0.0.1", "127.0.0.2", "localhost"];
    const answers = Promise.all(addresses.map((address) => robots.check(`http://${address}:${site.port}/a`)));
    await site.arrived(2, "/robots.txt");
    expect(held).toHaveLength(2);
    held.shift()?.();
    await site.arrived(3, "/robots.txt");
    for (const answer of held) answer();
    expect((await answers).map(({ allowed }) => allowed)).toEqual([true, true, true]);
    expect(site.maxInFlight()).toBeLessThanOrEqual(2);
  });

  it("tells the sitemaps that a host names", async () => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", "Sitemap: /a.xml\nSitemap: https://elsewhere.example/b.xml\n");
    expect(await robots.sitemaps(`${site.origin}/x`)).toEqual([
      `${site.origin}/a.xml`,
      "https://elsewhere.example/b.xml",
    ]);
    await robots.check(`${site.origin}/x`);
    expect(asked()).toBe(1);
    site.page("/robots.txt", { status: 404, body: "" });
    expect(await robots.sitemaps(`${site.originOn("127.0.0.2")}/x`)).toEqual([]);
  });

  it("knows no sitemaps of a host that does not answer", async () => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", { status: 500, body: "" });
    expect(await robots.sitemaps(`${site.origin}/x`)).toBeUndefined();
  });

  it("holds rules that are larger than all it may hold, rather than asking for each URL", async () => {
    const { robots, store } = setup(undefined, { maxCharacters: 1_000 });
    site.page(
      "/robots.txt",
      `User-agent: *\n${Array.from({ length: 500 }, (_, n) => `Disallow: /${n}\n`).join("")}`,
    );
    for (let n = 0; n < 5; n += 1) await robots.check(`${site.origin}/x`);
    expect([asked(), store.gets]).toEqual([1, 1]);
  });

  it.each([
    [5, "rules", false],
    [6, "allow", true],
  ])("follows %i redirects to the verdict %s", async (hops, verdict, allowed) => {
    const { robots } = setup(undefined);
    for (let hop = 1; hop < hops; hop += 1) site.page(`/hop/${hop}`, redirectTo(`/hop/${hop + 1}`));
    site.page(`/hop/${hops}`, "User-agent: *\nDisallow: /");
    site.page("/robots.txt", redirectTo("/hop/1"));
    expect(await robots.check(`${site.origin}/a`)).toMatchObject({ verdict, allowed });
  });

  it("follows a redirect to another host, and applies what it finds to the one that was asked", async () => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", (request, response) => {
      if (request.headers.host?.startsWith("127.0.0.2") === true) response.end("User-agent: *\nDisallow: /x");
      else response.writeHead(301, { location: `${site.originOn("127.0.0.2")}/robots.txt` }).end();
    });
    expect(await robots.check(`${site.origin}/x`)).toMatchObject({ allowed: false, verdict: "rules" });
  });

  it.each(["mailto:a@b.example", ""])("takes a redirect to %j for no robots.txt", async (location) => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", { status: 302, headers: location === "" ? {} : { location }, body: "" });
    expect(await robots.check(`${site.origin}/x`)).toMatchObject({ allowed: true, verdict: "allow" });
  });

  it("allows nothing when a redirect leads to an address that may not be fetched", async () => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", redirectTo("http://169.254.169.254/robots.txt"));
    const answer = await robots.check(`${site.origin}/x`);
    expect(answer).toMatchObject({ allowed: false, verdict: "disallow" });
    expect(answer).not.toHaveProperty("failure");
  });

  it("reads 500 KiB, to the end of a line", async () => {
    const { robots, store } = setup(undefined);
    const start = "User-agent: *\nDisallow: /early\n";
    const filler = `#${"x".repeat(98)}\n`;
    const lines = Math.floor((512_000 - start.length) / filler.length);
    // The next line begins within the limit and ends beyond it.
    site.page(
      "/robots.txt",
      `${start}${filler.repeat(lines)}Disallow: /${"l".repeat(200)}\nDisallow: /late\n`,
    );
    expect(await robots.check(`${site.origin}/early`)).toMatchObject({ allowed: false });
    expect(await robots.check(`${site.origin}/late`)).toMatchObject({ allowed: true });
    expect(await robots.check(`${site.origin}/${"l".repeat(200)}`)).toMatchObject({ allowed: true });
    expect(store.records.get(site.origin)?.body?.length).toBe(start.length + lines * filler.length);
  });

  it("does not wait for the end of an endless one", async () => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", (_request, response) => {
      const line = Buffer.from("User-agent: *\nDisallow: /private\n".repeat(2_000));
      const go = () => {
        while (!response.destroyed && response.write(line));
      };
      response.on("drain", go);
      go();
    });
    expect(await robots.check(`${site.origin}/private`)).toMatchObject({ allowed: false, verdict: "rules" });
  });

  it("reads one that is encoded, or in no valid UTF-8", async () => {
    const { robots } = setup(undefined);
    site.page("/robots.txt", {
      body: Buffer.concat([
        Buffer.from("User-agent: *\nDisallow: /"),
        Buffer.from([0xff]),
        Buffer.from("\nDisallow: /b"),
      ]),
    });
    expect(await robots.check(`${site.origin}/b`)).toMatchObject({ allowed: false });
  });

  it("refuses a host whose address may not be connected to", async () => {
    const { robots } = setup(undefined);
    const error: unknown = await robots.check("http://10.0.0.1/a").catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(FetchError);
    expect(error).toMatchObject({ reason: "address" });
  });

  it("lets one who waits leave, and the others have their answer", async () => {
    const { robots } = setup(undefined);
    let answer: () => void = () => {};
    site.page("/robots.txt", (_request, response) => {
      answer = () => response.end("User-agent: *\nDisallow: /a");
    });
    const stop = new AbortController();
    const leaving = robots.check(`${site.origin}/a`, stop.signal).catch((thrown: unknown) => thrown);
    const staying = robots.check(`${site.origin}/a`, new AbortController().signal);
    await site.arrived(1, "/robots.txt");
    stop.abort();
    expect(await leaving).toBeInstanceOf(FetchError);
    answer();
    expect(await staying).toMatchObject({ allowed: false });
  });

  it("holds a bounded number of origins", async () => {
    const { robots, store } = setup(undefined, { maxOrigins: 1 });
    site.page("/robots.txt", "User-agent: *\nDisallow: /a");
    for (const address of ["127.0.0.1", "127.0.0.2", "127.0.0.1"]) {
      expect(await robots.check(`${site.originOn(address)}/a`)).toMatchObject({ allowed: false });
    }
    expect([store.gets, asked()]).toEqual([3, 2]);
  });
});
