import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

const run = promisify(execFile);
const ROOT = path.resolve(import.meta.dirname, "../..");
const PROGRAM = path.join(ROOT, "scripts", "bench.mjs");

type Measured = { readonly measure: string; readonly contestant: string; readonly count: number };

describe("the benchmark of the bus", () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-bench-test-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const bench = (...flags: string[]) => run(process.execPath, [PROGRAM, "bus", ...flags], { cwd: ROOT });

  it("measures everything with all contestants, and leaves a table and numbers", async () => {
    const json = path.join(folder, "bus.json");
    const short = ["--rounds", "1", "--slice", "50", "--tasks", "50", "--dist", path.join(ROOT, "dist")];
    const { stdout } = await bench(...short, "--json", json);
    const { benchmark, runs, summary, targets } = JSON.parse(await readFile(json, "utf8"));
    expect(benchmark).toBe("bus");
    const counts = (runs as Measured[]).map(({ measure, contestant, count }) => [
      `${measure} ${contestant}`,
      count > 0,
    ]);
    const both = ["masterCall", "masterCalls", "tasks", "broadcast"];
    const wanted = [
      ...["call", "calls"].flatMap((name) => [`${name} ours`, `${name} bare`, `${name} direct`]),
      ...both.flatMap((name) => [`${name} ours`, `${name} bare`]),
      ...["deadNode ours", "unknownNode ours"],
    ];
    expect(Object.fromEntries(counts)).toEqual(Object.fromEntries(wanted.map((name) => [name, true])));
    expect(summary).toHaveLength(wanted.length);
    expect(targets).toHaveLength(8);
    expect(stdout).toContain("| measure ");
  });

  it.each([
    [["--only", "nothing"], /--only: no "nothing"; there are call, calls/],
    [["--slice", "0"], /--slice must be a whole number, 50 or more, not "0"/],
    [["--pages", "50"], /--pages/],
  ])("refuses %j", async (flags, complaint) => {
    await expect(bench(...flags)).rejects.toMatchObject({
      code: 2,
      stderr: expect.stringMatching(complaint),
    });
  });
});
