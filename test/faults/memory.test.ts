import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { api, Cluster, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";
import { type MemoryInUse, memoryOf, PROBED } from "../support/probed-heap.js";

const ROOT = path.resolve(import.meta.dirname, "../..");
const PAGES = 50_000;
const EARLY = 10_000;
const LATE = 45_000;
const MIB = 1_048_576;

/** How much more a process may have in use after LATE pages than after EARLY ones, in MiB. */
const WORKER_GROWTH_MIB = 4;
const MASTER_GROWTH_MIB = 4;
/** What the frontier in memory may take for each URL that it knows, in bytes: all of them, long before LATE. */
const BYTES_PER_URL = 800;
const STANDALONE_GROWTH_MIB = 4;

type Probed = Parameters<typeof memoryOf>[0];

describe(`over ${PAGES} pages, with robots.txt, address checks and all limits on`, () => {
  let site: GraphSite;

  beforeAll(async () => {
    const robots = `User-agent: *\nDisallow: /private/\nAllow: /\n`;
    site = await GraphSite.start({ pages: PAGES, hosts: 50, links: 20, robots });
  });

  afterAll(() => site?.stop());

  /** What each has in use after so many pages. */
  async function probeAt(pages: number, members: readonly Probed[]): Promise<readonly MemoryInUse[]> {
    await until(`${pages} pages were asked for`, async () => site.requests.size >= pages, undefined, 280_000);
    const probed: MemoryInUse[] = [];
    for (const member of members) probed.push(await memoryOf(member));
    const told = probed.map(({ heapUsed, external, rss }, index) => {
      const mib = [heapUsed, external, rss].map((bytes) => (bytes / MIB).toFixed(1));
      return `${members[index]?.name}: heap ${mib[0]} MiB, external ${mib[1]}, resident ${mib[2]}`;
    });
    console.log(`after ${site.requests.size} pages: ${told.join("; ")}`);
    return probed;
  }

  function growthOf(early: MemoryInUse | undefined, late: MemoryInUse | undefined): number {
    const inUse = (memory: MemoryInUse | undefined) => (memory?.heapUsed ?? 0) + (memory?.external ?? 0);
    return (inUse(late) - inUse(early)) / MIB;
  }

  it("a master and a worker have no more in use after 45,000 pages than after 10,000", async () => {
    site.requests.clear();
    const cluster = new Cluster({ environment: PROBED });
    try {
      const members = [await cluster.master(), await cluster.worker("w1")] as const;
      const [master] = members;
      const { id } = await api(master).createCrawl({ spider: "links", scope: "any", seeds: [site.seed] });
      await probeAt(1, members);
      const early = await probeAt(EARLY, members);
      const late = await probeAt(LATE, members);
      const { counts } = await api(master).crawlOnce(id, "finished", 280_000);

      expect(counts).toMatchObject({ done: PAGES, failed: 0, items: PAGES });
      expect(site.repeated).toEqual([]);
      expect(growthOf(early[0], late[0]), "master").toBeLessThan(MASTER_GROWTH_MIB);
      expect(growthOf(early[1], late[1]), "worker").toBeLessThan(WORKER_GROWTH_MIB);
    } finally {
      await cluster.stop();
    }
  });

  it("standalone takes a bounded number of bytes for each URL that it knows, and nothing for pages", async () => {
    site.requests.clear();
    const folder = await mkdtemp(path.join(tmpdir(), "warren-memory-"));
    const flags = ["--spider", "links", "--output", "/dev/null", "--data-dir", folder];
    const child = spawn(
      process.execPath,
      ["dist/worker.js", "--standalone", ...flags, "--seed", ...seedsOf(site)],
      {
        cwd: ROOT,
        env: { ...process.env, ...PROBED, WARREN_ALLOWED_NETWORKS: "127.0.0.0/8" },
        stdio: ["ignore", "pipe", "pipe"],
      },
    );
    const chunks: string[] = [];
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => chunks.push(chunk.toString()));
    const member = { name: "standalone", process: child, output: () => chunks.join("") };
    const exited = once(child, "exit");
    try {
      const [first] = await probeAt(1, [member]);
      const [early] = await probeAt(EARLY, [member]);
      const [late] = await probeAt(LATE, [member]);
      expect(await exited).toEqual([0, null]);

      expect(site.requests.size).toBe(PAGES);
      expect(site.repeated).toEqual([]);
      expect((growthOf(first, late) * MIB) / PAGES, "bytes a URL").toBeLessThan(BYTES_PER_URL);
      expect(growthOf(early, late)).toBeLessThan(STANDALONE_GROWTH_MIB);
    } finally {
      child.kill("SIGKILL");
      await rm(folder, { recursive: true, force: true });
    }
  });
});

/** A page of each host, so that all of them are in the crawl's scope. */
function seedsOf(site: GraphSite): readonly string[] {
  return Array.from({ length: site.options.hosts }, (_, number) => site.urlOf(number));
}
