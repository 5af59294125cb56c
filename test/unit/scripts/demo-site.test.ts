import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import path from "node:path";
import { createInterface } from "node:readline";
import { load } from "cheerio";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startDemoSite } from "../../../scripts/demo-site.mjs";
import { parseRobots } from "../../../src/crawl/robots/robots-txt.js";

const PROGRAM = path.resolve(import.meta.dirname, "../../../scripts/demo-site.mjs");

describe("the demo site", () => {
  let site: Awaited<ReturnType<typeof startDemoSite>>;
  beforeEach(async () => {
    site = await startDemoSite();
  });
  afterEach(() => site.close());

  const get = (place: string) => fetch(new URL(place, site.url), { redirect: "manual" });

  /** Everything that can be reached over links from the home page, robots.txt or not, without the slow page. */
  async function walk() {
    const seen = new Map<string, { status: number; type: string; text: string }>();
    const ahead = ["/"];
    for (let place = ahead.pop(); place !== undefined; place = ahead.pop()) {
      if (seen.has(place) || place === "/slow") continue;
      const response = await get(place);
      const type = response.headers.get("content-type") ?? "";
      const text = await response.text();
      seen.set(place, { status: response.status, type, text });
      if (!type.startsWith("text/html")) continue;
      const $ = load(text);
      for (const element of $("a[href]")) {
        const target = new URL($(element).attr("href") ?? "", new URL(place, site.url));
        expect(target.origin).toBe(new URL(site.url).origin);
        ahead.push(target.pathname);
      }
    }
    return seen;
  }

  it("links its pages, its PDFs and what goes wrong from one another, and to nothing outside", async () => {
    const seen = await walk();
    const placesOf = (status: number) =>
      [...seen].filter(([, page]) => page.status === status).map(([place]) => place);
    const pages = [...seen.values()].filter(
      ({ status, type }) => status === 200 && type.startsWith("text/html"),
    );
    expect(pages.length).toBeGreaterThanOrEqual(25);
    for (const { text } of pages) expect(load(text)("h1").text()).not.toBe("");
    expect(placesOf(500)).toEqual(["/broken"]);
    expect(placesOf(404)).toEqual(["/nowhere"]);
    expect(placesOf(301)).toEqual(["/home"]);
    for (const { path: place } of site.pdfs) expect(seen.has(place), place).toBe(true);
  });

  it("redirects its old home page within itself", async () => {
    const response = await get("/home");
    const target = new URL(response.headers.get("location") ?? "", response.url);
    expect(target.origin).toBe(new URL(site.url).origin);
    expect((await get(target.pathname)).status).toBe(200);
  });

  it("keeps robots out of one section that it links to, and names its sitemap", async () => {
    const robots = await get("/robots.txt");
    const rules = parseRobots(new URL(site.url).origin, await robots.text()).rulesFor("Warren");
    const places = [...(await walk()).keys()];
    const refused = places.filter((place) => !rules.allows(place));
    expect(refused).toEqual(["/private/diary"]);
    expect(rules.crawlDelayMs).toBe(0);
  });

  it("has pages alone in its sitemap, all of them there", async () => {
    const [, sitemap = ""] = /^Sitemap: (\S+)$/m.exec(await (await get("/robots.txt")).text()) ?? [];
    const $ = load(await (await fetch(sitemap)).text(), { xml: true });
    const locations = $("loc")
      .toArray()
      .map((element) => $(element).text());
    expect(locations.length).toBeGreaterThanOrEqual(25);
    for (const location of locations) {
      const response = await fetch(location);
      expect([location, response.status, response.headers.get("content-type")]).toEqual([
        location,
        200,
        "text/html; charset=utf-8",
      ]);
    }
  });

  it("answers others while its slow page takes its time, and does not wait for that to close", async () => {
    const slow = get("/slow").then(
      () => "answered",
      () => "cut off",
    );
    expect((await get("/")).status).toBe(200);
    await site.close();
    expect(await slow).toBe("cut off");
  });

  it("serves five different PDFs, one without the name and one without the type, the same in every run", async () => {
    const types: string[] = [];
    for (const { path: place, bytes, sha256, body } of site.pdfs) {
      const response = await get(place);
      const served = Buffer.from(await response.arrayBuffer());
      expect(served.equals(body)).toBe(true);
      expect(served.length).toBe(bytes);
      expectWholePdf(served.toString("latin1"));
      types.push(`${sha256} ${response.headers.get("content-type")} ${path.extname(place)}`);
    }
    expect(new Set(site.pdfs.map(({ sha256 }) => sha256)).size).toBe(5);
    expect(types.filter((type) => type.endsWith("application/pdf .pdf"))).toHaveLength(3);
    expect(types.filter((type) => type.endsWith("application/pdf "))).toHaveLength(1);
    expect(types.filter((type) => type.endsWith("application/octet-stream .bin"))).toHaveLength(1);
    const other = await startDemoSite();
    await other.close();
    expect(other.pdfs.map(({ sha256 }) => sha256)).toEqual(site.pdfs.map(({ sha256 }) => sha256));
  });

  it.each(["OPTIONS *", "GET http://example.org/"])("refuses the request %j and goes on", async (request) => {
    const { hostname, port } = new URL(site.url);
    const socket = connect(Number(port), hostname);
    socket.end(`${request} HTTP/1.1\r\nHost: ${hostname}\r\nConnection: close\r\n\r\n`);
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString("latin1")).toMatch(/^HTTP\/1.1 400 /);
    expect((await get("/")).status).toBe(200);
  });
});

/** Its cross-reference table leads to its objects, and its stream is as long as it says (ISO 32000-1, 7.3.8, 7.5). */
function expectWholePdf(text: string): void {
  expect(text.startsWith("%PDF-1.")).toBe(true);
  const [, start] = /startxref\n(\d+)\n%%EOF\n$/.exec(text) ?? [];
  const table = text.slice(Number(start));
  expect(table.startsWith("xref\n0 ")).toBe(true);
  const offsets = [...table.matchAll(/^(\d{10}) 00000 n $/gm)].map(([, offset]) => Number(offset));
  expect(offsets.length).toBeGreaterThanOrEqual(4);
  offsets.forEach((offset, index) => {
    expect(text.slice(offset).startsWith(`${index + 1} 0 obj\n`)).toBe(true);
  });
  const stream = /\/Length (\d+) >>\nstream\n([\s\S]*?)\nendstream/.exec(text);
  expect(stream?.[2]).toHaveLength(Number(stream?.[1]));
}

describe("node scripts/demo-site.mjs", () => {
  it("says in one line of JSON where it is and which PDFs it has", async () => {
    const child = spawn(process.execPath, [PROGRAM, "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
    const ended = once(child, "exit");
    try {
      const [line] = (await once(createInterface(child.stdout), "line")) as [string];
      const { url, pdfs } = JSON.parse(line) as { url: string; pdfs: unknown };
      expect((await fetch(url)).status).toBe(200);
      const same = await startDemoSite();
      await same.close();
      expect(pdfs).toEqual(
        same.pdfs.map(({ path: place, sha256, bytes }) => ({ path: place, sha256, bytes })),
      );
    } finally {
      child.kill("SIGTERM");
      await ended;
    }
  });

  it.each([
    [["--port", "http"], /--port must be a whole number/],
    [["--prot", "1"], /--prot/],
  ])("refuses %j", async (args, message) => {
    const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ["ignore", "inherit", "pipe"] });
    let errors = "";
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString();
    });
    await once(child, "close");
    expect(errors).toMatch(message);
    expect(child.exitCode).toBe(2);
  });
});
