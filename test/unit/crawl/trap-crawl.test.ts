import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { crawlStandalone, type StandaloneOutcome } from "../../support/standalone-under-test.js";

let server: Server | undefined;
afterEach(async () => {
  const closing = server;
  server = undefined;
  if (closing === undefined) return;
  await new Promise((resolve) => {
    closing.close(resolve);
    closing.closeAllConnections();
  });
});

/** A site whose every page is made of its URL; a page is given as its links. */
async function siteOf(linksOf: (url: URL) => readonly string[] | undefined) {
  const asked: string[] = [];
  server = createServer((request, response) => {
    const links =
      request.url === "/robots.txt" ? undefined : linksOf(new URL(request.url ?? "/", "http://site"));
    if (links === undefined) {
      response.writeHead(404).end();
      return;
    }
    asked.push(request.url ?? "/");
    response.writeHead(200, { "content-type": "text/html" });
    response.end(`<title>p</title>${links.map((href) => `<a href="${href}">x</a>`).join("")}`);
  });
  const listening = server;
  await new Promise<void>((resolve) => listening.listen(0, "127.0.0.1", resolve));
  const { port } = listening.address() as AddressInfo;
  return { origin: `http://127.0.0.1:${port}`, asked };
}

const trapsIn = ({ log }: StandaloneOutcome) =>
  log.flatMap(({ kind, level }) => (kind ? [[level, kind]] : []));
const isOver = { active: 0, queued: 0, failed: 0 };

describe("a crawl of a site that never ends is over by itself", () => {
  it("where a calendar has a next and a previous month for ever", async () => {
    const { origin, asked } = await siteOf(({ pathname }) => {
      if (pathname === "/") return ["/calendar/2026-11", "/about"];
      const found = /^\/calendar\/(\d+)-(\d+)$/.exec(pathname);
      if (found === null) return pathname === "/about" ? ["/"] : undefined;
      const month = Number(found[1]) * 12 + Number(found[2]) - 1;
      const at = (other: number) =>
        `/calendar/${Math.floor(other / 12)}-${String((other % 12) + 1).padStart(2, "0")}`;
      return ["/", at(month - 1), at(month + 1)];
    });
    const links = { traps: { pastYears: 3 } };
    const outcome = await crawlStandalone({ seeds: [origin], links });
    expect(outcome.counts).toMatchObject({ ...isOver, skipped: 2 });
    // The months from three years ago to two years ahead, whatever this one is.
    expect(asked.length).toBeLessThan(2 + 6 * 12);
    expect(asked.length).toBeGreaterThan(2 + 4 * 12);
    expect(trapsIn(outcome)).toEqual([["warn", "calendar"]]);
  });

  it("where every page leads to further combinations of its parameters", async () => {
    const names = "abcdefghij";
    const { origin, asked } = await siteOf(({ pathname, searchParams }) => {
      if (pathname !== "/shop") return ["/shop?a=1"];
      const links = [];
      for (const name of names) {
        const next = new URLSearchParams(searchParams);
        next.set(name, String((Number(next.get(name) ?? 0) + 1) % 7));
        links.push(`/shop?${next}`);
      }
      return ["/", ...links.map((href) => href.replaceAll("&", "&amp;"))];
    });
    const links = { traps: { queries: 300 } };
    const outcome = await crawlStandalone({ seeds: [origin], links });
    expect(outcome.counts).toMatchObject(isOver);
    expect(asked.length).toBeGreaterThan(200);
    expect(asked.length).toBeLessThan(500);
    expect(outcome.counts.skipped).toBeGreaterThan(100);
    expect(trapsIn(outcome)).toEqual([["warn", "query-explosion"]]);
  });

  it("where relative links lead ever deeper", async () => {
    const { origin, asked } = await siteOf(() => ["a/", "b/"]);
    const outcome = await crawlStandalone({ seeds: [origin], limits: { maxPages: 3_000 } });
    expect(outcome.counts.queued + outcome.counts.active).toBe(0);
    // Without the guard there are 2^50 of them.
    expect(asked.length).toBeLessThan(3_000);
    expect(asked.length).toBeGreaterThan(30);
    expect(outcome.finishReason).toBe("completed");
    expect(trapsIn(outcome)).toEqual([["warn", "repeating-path"]]);
  });

  it("where every page has links with a session of its own", async () => {
    let sessions = 0;
    const { origin, asked } = await siteOf(({ pathname }) => {
      sessions += 1;
      if (!/^\/(?:[abc](?:;jsessionid=\d+)?)?$/.test(pathname)) return undefined;
      return ["a", "b", "c"].map((page) => `/${page};jsessionid=${sessions}`);
    });
    const outcome = await crawlStandalone({ seeds: [origin] });
    expect(outcome.counts).toMatchObject(isOver);
    expect(asked.length).toBe(1 + 3 * 3);
    expect(trapsIn(outcome)).toEqual([["warn", "session-ids"]]);

    asked.length = 0;
    const merged = await crawlStandalone({ seeds: [origin], urls: { dropSessionIds: true } });
    expect(asked.length).toBe(1 + 3);
    expect(merged.counts).toMatchObject({ ...isOver, skipped: 0 });
  });
});

describe("a crawl of a site that only is big", () => {
  it("comes to its last page", async () => {
    const topics = 200;
    const { origin, asked } = await siteOf(({ pathname, searchParams }) => {
      const topic = Number(searchParams.get("t"));
      if (pathname === "/") return Array.from({ length: 40 }, (_, n) => `/viewforum.php?f=${n}`);
      if (pathname === "/viewforum.php") {
        const forum = Number(searchParams.get("f"));
        const inForum = Array.from({ length: topics / 40 }, (_, n) => forum * (topics / 40) + n);
        return inForum.map((t) => `/viewtopic.php?f=${forum}&amp;t=${t}`);
      }
      if (pathname !== "/viewtopic.php" || searchParams.has("start")) return [];
      return [
        `${pathname}?f=${searchParams.get("f")}&amp;t=${topic}&amp;start=20`,
        `/2026/05/${topic % 28}/post`,
      ];
    });
    const outcome = await crawlStandalone({ seeds: [origin] });
    expect(outcome.counts).toMatchObject({ ...isOver, skipped: 0 });
    expect(asked.length).toBe(1 + 40 + topics * 2 + 28);
    expect(trapsIn(outcome)).toEqual([]);
  });

  it("is not looked at for traps when it is told so", async () => {
    const { origin, asked } = await siteOf(({ pathname }) => (pathname.length < 60 ? [`${pathname}a/`] : []));
    const outcome = await crawlStandalone({ seeds: [origin], links: { traps: false } });
    expect(outcome.counts).toMatchObject({ ...isOver, skipped: 0 });
    expect(asked.length).toBe(31);
  });
});
