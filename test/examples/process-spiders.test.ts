import { execFile, spawnSync } from "node:child_process";
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const EXAMPLES = path.join(ROOT, "examples/spiders");
const CLIENTS = path.join(ROOT, "clients");

let site: Awaited<ReturnType<typeof startDemoSite>>;
let folder: string;

beforeAll(async () => {
  site = await startDemoSite();
  folder = await mkdtemp(path.join(os.tmpdir(), "warren-process-spiders-"));
});
afterAll(async () => {
  await site?.close();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

type Item = { readonly url: string; readonly data: Readonly<Record<string, unknown>> };

/** Crawls the demo site with the spider in a folder, as a user would. */
async function crawled(spider: string): Promise<{ readonly items: Item[]; readonly log: string }> {
  const output = path.join(folder, `${path.basename(spider)}.ndjson`);
  const { stderr } = await run(
    process.execPath,
    [
      path.join(ROOT, "dist/worker.js"),
      ...["--standalone", "--spider", spider, "--seed", site.url, "--output", output],
      ...["--allowed-networks", "127.0.0.0/8", "--data-dir", path.join(folder, "data")],
    ],
    { timeout: 100_000 },
  );
  const lines = (await readFile(output, "utf8")).split("\n").filter(Boolean);
  return { items: lines.map((line) => JSON.parse(line) as Item), log: stderr };
}

/** A copy of an example, so that nothing is built in the repository. */
function copied(name: string): string {
  const copy = path.join(folder, name);
  cpSync(path.join(EXAMPLES, name), copy, { recursive: true });
  return copy;
}

/** The code blocks of a page in a language. */
function codeIn(file: string, language: string): string[] {
  const text = readFileSync(file, "utf8");
  return [...text.matchAll(/```(\w+)\n(.*?)```/gs)].flatMap(([, name, code]) =>
    name === language && code !== undefined ? [code] : [],
  );
}

/** What a program answers to an `open`, and a page. */
async function answersOf(command: readonly string[], cwd: string, page: object): Promise<unknown[]> {
  const open = { type: "open", crawl: "c", spider: "s", version: "1", node: "n", params: {}, mode: "pages" };
  const facts = { id: 1, url: "http://a/", status: 200, headers: {}, depth: 0, meta: {}, text: "four" };
  const [program = "", ...args] = command;
  const ended = run(program, args, { cwd });
  ended.child.stdin?.end(
    [open, { type: "page", ...facts, ...page }].map((m) => `${JSON.stringify(m)}\n`).join(""),
  );
  const { stdout } = await ended;
  return stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as unknown);
}

function lacks(tool: string, version: string): boolean {
  const isMissing = spawnSync(tool, [version], { stdio: "ignore" }).error !== undefined;
  if (isMissing) console.warn(`SKIPPED: ${tool} is not on this machine`);
  return isMissing;
}

describe.skipIf(lacks("python3", "--version"))("a spider in Python", () => {
  it("crawls the demo site", async () => {
    const { items, log } = await crawled(copied("python"));
    const chapters = items.filter(({ data }) => "title" in data);
    expect(chapters).toHaveLength(19);
    expect(chapters.find(({ url }) => url.endsWith("/burrow/runs"))?.data).toEqual({
      section: "The burrow",
      title: "Runs",
      text: [expect.stringMatching(/^Runs join the chambers/), expect.stringMatching(/^They are wide/)],
    });
    const papers = items.filter(({ data }) => "paper" in data);
    expect(papers.map(({ data }) => data.bytes).sort()).toEqual(site.pdfs.map(({ bytes }) => bytes).sort());
    expect(log).toContain('"title":"Runs","msg":"read a chapter"');
  });

  it("has a client whose tests pass, and of which it has a copy", async () => {
    await run("python3", ["-m", "unittest", "discover", "-s", "tests"], {
      cwd: path.join(CLIENTS, "python"),
    });
    const parts = readdirSync(path.join(CLIENTS, "python/warren_spider")).filter(
      (name) => name !== "__pycache__",
    );
    expectCopied(
      path.join(CLIENTS, "python/warren_spider"),
      path.join(EXAMPLES, "python/warren_spider"),
      parts,
    );
  });

  it("does as the client's page says", async () => {
    const [code = ""] = codeIn(path.join(CLIENTS, "python/README.md"), "python");
    const place = path.join(folder, "books-in-python");
    cpSync(path.join(CLIENTS, "python/warren_spider"), path.join(place, "warren_spider"), {
      recursive: true,
    });
    await writeFile(path.join(place, "spider.py"), code);
    const about = { callback: "book", meta: { number: 3 } };
    const answers = await answersOf(["python3", "spider.py"], place, about);
    expect(answers).toEqual([
      { type: "log", level: "info", message: "found a book", number: 3, page: 1 },
      { type: "stats", name: "books", by: 1 },
      { type: "item", data: { number: 3, length: 4 }, page: 1 },
      { type: "store", url: "http://a/cover.jpg", page: 1 },
      { type: "done", page: 1 },
    ]);
  });
});

describe.skipIf(lacks("go", "version"))("a spider in Go", () => {
  it("is built, and crawls the demo site", async () => {
    const { items } = await crawled(copied("go"));
    expect(items).toHaveLength(19);
    expect(items.find(({ url }) => url.endsWith("/burrow/runs"))?.data).toEqual({ title: "Runs", words: 35 });
  }, 240_000);

  it("has a client whose tests pass, and of which it has a copy", async () => {
    await run("go", ["test", "./..."], { cwd: path.join(CLIENTS, "go"), timeout: 200_000 });
    const parts = ["channel.go", "go.mod", "warren.go"];
    expectCopied(path.join(CLIENTS, "go"), path.join(EXAMPLES, "go/warren"), parts);
  }, 240_000);

  it("does as the client's page says", async () => {
    const [code = ""] = codeIn(path.join(CLIENTS, "go/README.md"), "go");
    const place = path.join(folder, "books");
    await mkdir(place);
    cpSync(path.join(EXAMPLES, "go/warren"), path.join(place, "warren"), { recursive: true });
    cpSync(path.join(EXAMPLES, "go/go.mod"), path.join(place, "go.mod"));
    await writeFile(path.join(place, "main.go"), code);
    await run("go", ["build", "-o", "spider", "."], { cwd: place, timeout: 200_000 });
    const page = { links: ["http://a/1"], title: "T" };
    expect(await answersOf(["./spider"], place, page)).toEqual([
      { type: "request", page: 1, url: "http://a/1", callback: "book" },
      { type: "done", page: 1 },
    ]);
    expect(await answersOf(["./spider"], place, { ...page, callback: "book" })).toEqual([
      { type: "stats", name: "books", by: 1 },
      { type: "item", page: 1, data: { title: "T", length: 4 } },
      { type: "store", page: 1, url: "cover.jpg" },
      { type: "done", page: 1 },
    ]);
  }, 240_000);
});

function expectCopied(from: string, to: string, parts: readonly string[]): void {
  for (const part of parts) {
    expect(readFileSync(path.join(to, part), "utf8"), `cp ${from}/${part} ${to}/`).toBe(
      readFileSync(path.join(from, part), "utf8"),
    );
  }
}
