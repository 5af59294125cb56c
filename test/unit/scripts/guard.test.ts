import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { claimRunFolder } from "../../../scripts/run-folder.mjs";

const SCRIPTS = path.resolve(import.meta.dirname, "../../../scripts");

/** A program with a guarded shell that has a child of its own; says the ids of all of them. */
const PARENT = `
import { spawnGuarded } from ${JSON.stringify(path.join(SCRIPTS, "processes.mjs"))};
const guarded = await spawnGuarded("/bin/sh", ["-c", process.env.COMMAND], {
  runFolder: process.env.FOLDER, graceMs: Number(process.env.GRACE_MS), logFile: process.env.FOLDER + "/log",
});
console.log(JSON.stringify({ pid: guarded.pid, guardPid: guarded.guardPid }));
process.on("SIGTERM", async () => { await guarded.stop(Number(process.env.GRACE_MS)); process.exit(0); });
setInterval(() => {}, 1_000);
`;

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const deadline = Date.now() + 15_000;
  while (!isTrue()) {
    if (Date.now() > deadline) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe("a guarded process", () => {
  let folder: string;
  let parent: ChildProcess | undefined;

  beforeEach(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-guard-"));
  });

  afterEach(async () => {
    parent?.kill("SIGKILL");
    await rm(folder, { recursive: true, force: true });
  });

  async function start(command: string, graceMs = 10_000): Promise<{ pid: number; guardPid: number }> {
    const child = spawn(process.execPath, ["--input-type=module", "-e", PARENT], {
      env: { ...process.env, COMMAND: command, FOLDER: folder, GRACE_MS: String(graceMs) },
      stdio: ["ignore", "pipe", "inherit"],
    });
    parent = child;
    const [line] = await once(createInterface(child.stdout), "line");
    return JSON.parse(String(line));
  }

  it("ends with all of its group when its parent is killed by SIGKILL", async () => {
    const { pid, guardPid } = await start("sleep 1000 & sleep 1000");
    expect([isAlive(pid), isAlive(guardPid), isAlive(-pid)]).toEqual([true, true, true]);

    parent?.kill("SIGKILL");

    await until("the group and the guard are gone", () => !isAlive(-pid) && !isAlive(guardPid));
  });

  it("is killed after the grace when it ignores that it should end", async () => {
    const { pid, guardPid } = await start("trap '' TERM; while :; do sleep 0.1; done", 300);

    parent?.kill("SIGTERM");

    await until("the group and the guard are gone", () => !isAlive(-pid) && !isAlive(guardPid));
  });

  it("takes along what it leaves behind in its group when it ends by itself", async () => {
    const { pid, guardPid } = await start("sleep 1000 & sleep 0.2");

    await until("the group and the guard are gone", () => !isAlive(-pid) && !isAlive(guardPid));
  });

  it("keeps the run's folder from the next run until it is gone", async () => {
    const runFolder = path.dirname(folder);
    const { pid } = await start("trap '' TERM; while :; do sleep 0.1; done", 600);
    parent?.kill("SIGKILL");

    const claim = await claimRunFolder({ parent: runFolder, name: path.basename(folder), report: () => {} });

    expect(claim.folder).toBe(folder);
    // Killed by then; the system may still have to reap it.
    await until("the group is gone", () => !isAlive(-pid));
    claim.release();
  });
});

describe("two runs", () => {
  it("that come at once never get the same folder, and one that is over gives its own back", async () => {
    const parent = await mkdtemp(path.join(tmpdir(), "warren-runs-"));
    const claim = () => claimRunFolder({ parent, name: "test", report: () => {} });
    try {
      const claims = await Promise.all([claim(), claim(), claim()]);
      expect(new Set(claims.map(({ folder }) => folder)).size).toBe(3);
      for (const { release } of claims) release();
      expect((await claim()).folder).toBe(path.join(parent, "test"));
    } finally {
      await rm(parent, { recursive: true, force: true });
    }
  });
});
