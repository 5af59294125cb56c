import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");

type Item = { readonly url: string; readonly data: Readonly<Record<string, unknown>> };

let site: Awaited<ReturnType<typeof startDemoSite>>;
let folder: string;
let items: readonly Item[];

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "warren-declarative-"));
  site = await startDemoSite();
  const { stdout } = await run(
    process.execPath,
    [
      path.join(ROOT, "dist/worker.js"),
      ...["--standalone", "--spider", path.join(ROOT, "examples/spiders/declarative"), "--seed", site.url],
      ...["--output", "-", "--data-dir", folder, "--allowed-networks", "127.0.0.0/8"],
    ],
    { cwd: ROOT, timeout: 60_000 },
  );
  items = stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Item);
});

afterAll(async () => {
  await site?.close();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

it("finds each chapter of the demo site, and what it says", () => {
  const chapters = items.filter(({ data }) => "title" in data);
  const sections = countsOf(chapters.map(({ data }) => data.section));
  expect([...sections].sort()).toEqual([
    ["The burrow", 5],
    ["The library", 5],
    ["The meadow", 5],
    ["Visitors", 4],
  ]);
  const at = (place: string) => new URL(place, site.url).href;
  expect(chapters.find(({ url }) => url === at("/visitors/moles"))?.data).toEqual({
    url: at("/visitors/moles"),
    section: "Visitors",
    title: "Moles",
    text: [
      "Moles come from below and have no notion of doors. They are good at finding what was forgotten.",
      "Their maps are in the library, as far as they can be read.",
    ],
    next: "Foxes",
    links: [
      { text: "Visitors", to: at("/visitors/") },
      { text: "Next: Foxes", to: at("/visitors/foxes") },
      { text: "The same once more", to: at("/visitors/foxes") },
    ],
  });
});

it("stores each paper, whatever it is called, with the section that it was found in", () => {
  const papers = items.filter(({ data }) => "file" in data).map(({ data }) => [data.section, data.sha256]);
  expect(papers.sort()).toEqual(site.pdfs.map(({ sha256 }) => ["The library", sha256]).sort());
  expect(items).toHaveLength(19 + site.pdfs.length);
});

function countsOf(values: readonly unknown[]): Map<unknown, number> {
  const counts = new Map<unknown, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return counts;
}
