import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, it } from "vitest";
import { PDF_BYTES, startWildSite, type WildSite } from "../support/wild-site.js";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const PYTHON_PACKAGES = path.join(ROOT, ".warren", "python-warcio");

let site: WildSite;
let folder: string;
let archive: string;
/** Why Python's warcio is not to be had here. */
let missing: string | undefined;

beforeAll(async () => {
  missing = await prepared();
  folder = await mkdtemp(path.join(os.tmpdir(), "warren-archive-"));
  archive = path.join(folder, "crawl.warc.gz");
  site = await startWildSite();
  const links = ["/zipped", "/twin", "/same", "/moved", "/gone", "/paper.pdf", "/flaky"];
  site.page("/", links.map((link) => `<a href="${link}">${link}</a>`).join(""));
  const zipped = gzipSync("<title>Zipped</title>");
  site.page("/zipped", {
    body: zipped,
    headers: { "content-encoding": "gzip", "content-type": "text/html" },
  });
  for (const twin of ["/twin", "/same"]) site.page(twin, "<p>the same words</p>");
  site.page("/moved", { body: "over there", status: 302, headers: { location: "/there" } });
  site.page("/there", "<title>There</title>");
  site.page("/gone", { body: "gone", status: 410 });
  site.page("/paper.pdf", { body: PDF_BYTES, headers: { "content-type": "application/pdf" } });
  // Breaks off in its middle, each time.
  site.page("/flaky", (_request, response) => {
    response.writeHead(200, { "content-type": "text/html", "content-length": "1000" });
    response.write("<p>half of", () => response.destroy());
  });
  await run(
    process.execPath,
    [
      path.join(ROOT, "dist/worker.js"),
      ...["--standalone", "--spider", "pdf", "--seed", site.url, "--archive", archive],
      ...["--output", path.join(folder, "items.ndjson"), "--data-dir", folder],
      ...["--allowed-networks", "127.0.0.0/8", "--retry-delay-ms", "10"],
    ],
    { cwd: ROOT, timeout: 60_000 },
  );
}, 180_000);

afterAll(async () => {
  await site?.close();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

it("writes an archive whose every checksum holds, by the word of another program", async (test) => {
  if (missing !== undefined) return test.skip(missing);
  // It ends with 1, and names the record, when a checksum does not hold.
  const { stdout } = await warcio("check", "--verbose", archive);
  expect(stdout).toContain("digest pass");
  expect(stdout).not.toContain("digest not present");
});

it("writes an archive that another program reads as it was meant", async (test) => {
  if (missing !== undefined) return test.skip(missing);
  const { stdout } = await warcio("index", "-f", "warc-type,warc-target-uri,http:status", archive);
  const lines = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, string>);
  const told = lines
    .filter((line) => ["response", "revisit"].includes(line["warc-type"] ?? ""))
    .map((line) => `${line["warc-target-uri"]?.slice(site.origin.length)} ${line["http:status"]}`);
  expect([...new Set(told)].sort()).toEqual([
    "/ 200",
    "/flaky 200",
    "/gone 410",
    "/moved 302",
    "/paper.pdf 200",
    "/same 200",
    "/there 200",
    "/twin 200",
    "/zipped 200",
  ]);
  expect(lines.filter((line) => line["warc-type"] === "revisit")).toHaveLength(1);
});

function warcio(...args: string[]): Promise<{ stdout: string }> {
  return run("python3", ["-m", "warcio.cli", ...args], {
    env: { ...process.env, PYTHONPATH: PYTHON_PACKAGES },
  });
}

async function prepared(): Promise<string | undefined> {
  try {
    if (!existsSync(path.join(PYTHON_PACKAGES, "warcio"))) {
      const args = ["-m", "pip", "install", "--quiet", "--target", PYTHON_PACKAGES, "warcio==1.7.5"];
      await run("python3", args, { timeout: 120_000 });
    }
    return undefined;
  } catch (error) {
    return `Python's warcio is not to be had: ${String(error).slice(0, 300)}`;
  }
}
