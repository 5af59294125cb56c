import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { startDemoSite } from "../../scripts/demo-site.mjs";
import { Cluster, until } from "../support/cluster.js";

const ROOT = path.resolve(import.meta.dirname, "../..");

function npmStart(args: readonly string[], namespace: string) {
  const child = spawn(process.execPath, [path.join(ROOT, "scripts/start.mjs"), ...args], {
    cwd: ROOT,
    env: { ...process.env, WARREN_NAMESPACE: namespace },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on("data", (chunk: Buffer) => {
    output += chunk.toString();
  });
  const ended = once(child, "close").then(() => ({ code: child.exitCode, output }));
  return { child, ended, output: () => output };
}

describe("npm start", () => {
  it("crawls the demo site, checks its PDFs, and stops everything with --exit", async () => {
    const namespace = `s${randomBytes(5).toString("hex")}`;
    const { code, output } = await npmStart(["--exit", "--port", "0"], namespace).ended;
    await new Cluster({ namespace }).stop();
    expect(output).toContain("PDFs: 5 of 5 stored byte for byte");
    expect(output).toContain("The crawl is finished");
    expect(code).toBe(0);
  });

  it("leaves nothing running when it is interrupted in the middle of a crawl", async () => {
    const namespace = `s${randomBytes(5).toString("hex")}`;
    const site = await startDemoSite();
    const { child, ended, output } = npmStart([site.url, "--port", "0", "--workers", "1"], namespace);
    await until("it crawls", async () => output().includes("Crawling "));
    child.kill("SIGINT");
    const { code } = await ended;
    await site.close();
    const url = /Master: (http:\S+)/.exec(output())?.[1] ?? "";
    await expect(fetch(url)).rejects.toThrow();
    await new Cluster({ namespace }).stop();
    expect(code).toBe(0);
  });

  it.each([
    [["--prot", "1"], /unknown flag --prot/],
    [["--workers", "none"], /--workers must be a whole number/],
    [["example.org"], /URL must be an absolute http/],
  ])("refuses %j", async (args, message) => {
    const { code, output } = await npmStart(args, "unused").ended;
    expect(output).toMatch(message);
    expect(code).toBe(2);
  });
});

describe("the demo site", () => {
  it("serves PDFs that are what it says they are", async () => {
    const site = await startDemoSite();
    for (const { path: place, bytes, body } of site.pdfs) {
      const response = await fetch(new URL(place, site.url));
      const served = Buffer.from(await response.arrayBuffer());
      expect(served.length).toBe(bytes);
      expect(served.equals(body)).toBe(true);
      expect(served.subarray(0, 5).toString()).toBe("%PDF-");
    }
    await site.close();
  });
});
