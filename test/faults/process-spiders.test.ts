import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";
import { isAlive, until } from "../support/children-under-test.js";
import { expectIsolated, MISBEHAVIOUR } from "../support/processes/misbehaviour.js";

const ROOT = path.resolve(import.meta.dirname, "../..");

describe("a process that misbehaves takes no other page along:", () => {
  it.each(MISBEHAVIOUR.map(({ text }) => text))("%s", (text) => expectIsolated(text));
});

describe("a worker that is killed", () => {
  it("leaves nothing of its spiders' processes behind", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "warren-killed-"));
    const site = await startDemoSite();
    // Leaves the group as well, and hears no signal that can be heard.
    const code =
      "trap '' TERM HUP INT; setsid sh -c 'echo pid $$; sleep 1000' & echo pid $$; cat >/dev/null; sleep 1000";
    const manifest = { name: "stays", command: ["sh", "-c", code], stdout: "log" };
    await writeFile(path.join(folder, "spider.json"), JSON.stringify(manifest));
    const args = ["--standalone", "--spider", folder, "--seed", site.url, "--data-dir", folder];
    const worker = spawn(
      process.execPath,
      [path.join(ROOT, "dist/worker.js"), ...args, "--output", "-", "--allowed-networks", "127.0.0.0/8"],
      { stdio: ["ignore", "ignore", "pipe"] },
    );
    try {
      let log = "";
      worker.stderr.on("data", (chunk: Buffer) => {
        log += String(chunk);
      });
      const pids = () => [...log.matchAll(/"msg":"pid (\d+)"/g)].map(([, pid]) => Number(pid));
      await until("it has started both", () => pids().length === 2);
      expect(pids().filter(isAlive)).toEqual(pids());
      worker.kill("SIGKILL");
      await until("neither lives", () => !pids().some(isAlive));
    } finally {
      worker.kill("SIGKILL");
      await site.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
});
