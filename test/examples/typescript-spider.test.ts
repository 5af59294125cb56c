import { execFile } from "node:child_process";
import { cp, mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const EXAMPLE = path.join(ROOT, "examples/spiders/typescript");

type Item = {
  readonly url: string;
  readonly spider: string;
  readonly data: Readonly<Record<string, unknown>>;
};

let site: Awaited<ReturnType<typeof startDemoSite>>;
let folder: string;
let items: readonly Item[];
let log: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), "warren-typescript-"));
  site = await startDemoSite();
  // As it is uploaded: what is run, and nothing that it was made of.
  await cp(path.join(EXAMPLE, "package.json"), path.join(folder, "package.json"));
  const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
  await run(process.execPath, [tsc, "-p", EXAMPLE, "--outDir", path.join(folder, "dist")], { cwd: ROOT });
  const { stdout, stderr } = await run(
    process.execPath,
    [
      path.join(ROOT, "dist/worker.js"),
      ...["--standalone", "--spider", folder, "--seed", site.url, "--output", "-"],
      ...["--data-dir", path.join(folder, "data"), "--allowed-networks", "127.0.0.0/8"],
    ],
    { cwd: ROOT, timeout: 60_000 },
  );
  log = stderr;
  items = stdout
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Item);
});

afterAll(async () => {
  await site?.close();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

it("finds each chapter of the demo site, with its section and its number", () => {
  expect(items).toHaveLength(19);
  const moles = items.find(({ url }) => url === new URL("/visitors/moles", site.url).href);
  expect(moles).toMatchObject({
    spider: "chapters",
    data: { section: "Visitors", title: "Moles", words: 30 },
  });
  const numbers = items.map(({ data }) => data.number);
  expect(new Set(numbers).size).toBe(19);
});

it("keeps what is no chapter aside, and says why", () => {
  expect(log).toMatch(/"invalidItems":1[,}]/);
  expect(log).toMatch(/title: Too small/);
});

it("is told when the crawl is over", () => {
  expect(log).toMatch(/"chapters":20,"msg":"done here"/);
});
