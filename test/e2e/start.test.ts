import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { Cluster, until } from "../support/cluster.js";
import { GraphSite } from "../support/graph-site.js";

const ROOT = path.resolve(import.meta.dirname, "../..");
/** It takes its time: what is ended in the middle of it is in the middle of it. */
const LONG = { pages: 5_000, hosts: 1, links: 20, delayMs: 50 } as const;

type Run = ReturnType<typeof start>;

function start(args: readonly string[], namespace: string) {
  const child = spawn(process.execPath, ["scripts/start.mjs", ...args], {
    cwd: ROOT,
    env: { ...process.env, WARREN_NAMESPACE: namespace },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (chunk: Buffer) => {
      output += chunk.toString();
    });
  }
  const ended = once(child, "close").then(() => ({ code: child.exitCode, output }));
  return { child, ended, output: () => output };
}

type Process = { readonly pid: number; readonly parent: number; readonly command: string };

function processesHere(): Process[] {
  return execFileSync("ps", ["-eo", "pid=,ppid=,stat=,args="], { encoding: "utf8" })
    .split("\n")
    .flatMap((line): Process[] => {
      const [, pid, parent, state, command = ""] = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
      return pid === undefined || state?.startsWith("Z")
        ? []
        : [{ pid: Number(pid), parent: Number(parent), command }];
    });
}

/** All that a process has started, directly or not. */
function descendantsOf(pid: number | undefined): Process[] {
  const all = processesHere();
  const found = all.filter(({ parent }) => parent === pid);
  for (const { pid: above } of found) found.push(...all.filter(({ parent }) => parent === above));
  return found;
}

/** Those that run still; what has ended and was only not collected yet by its parent does not. */
function runningOf(processes: readonly Process[]): Process[] {
  const alive = new Set(processesHere().map(({ pid }) => pid));
  return processes.filter(({ pid }) => alive.has(pid));
}

describe("npm start", () => {
  let namespace: string;
  beforeEach(() => {
    namespace = `s${randomBytes(5).toString("hex")}`;
  });
  afterEach(() => new Cluster({ namespace }).stop());

  it("crawls the demo site, checks its PDFs, says where to look, and stops everything with --exit", async () => {
    const { code, output } = await start(["--exit", "--port", "0"], namespace).ended;
    expect(output).toContain("PDFs: 5 of the site's 5 are stored, byte for byte");
    expect(output).toContain("The crawl is finished (completed)");
    expect(output).toMatch(/\/broken {2}failed: http-status 500/);
    expect(output).toMatch(/\/private\/diary {2}skipped: robots/);
    expect(output).toMatch(/items +curl '.*items\?format=ndjson'/);
    expect(code, output).toBe(0);
    const url = /Master: (http:\S+)/.exec(output)?.[1];
    await expect(fetch(`${url}/healthz`)).rejects.toThrow();
  });

  it("stays up after the crawl, for its items to be fetched as it says, until it is interrupted", async () => {
    const run = start(["--port", "0", "--workers", "1", "--spider", "links"], namespace);
    await until("everything stays up", async () => run.output().includes("Ctrl-C stops it"));
    const items = /curl '(\S+)'/.exec(run.output())?.[1] ?? "";
    const lines = (await (await fetch(items)).text()).trimEnd().split("\n");
    expect(lines.length).toBeGreaterThanOrEqual(25);
    for (const line of lines) expect(JSON.parse(line)).toMatchObject({ spider: "links" });
    const descendants = descendantsOf(run.child.pid);
    run.child.kill("SIGINT");
    const { code, output } = await run.ended;
    expect(runningOf(descendants)).toEqual([]);
    expect(code, output).toBe(0);
  });

  it("says which spider there is not", async () => {
    const { code, output } = await start(["--exit", "--port", "0", "--spider", "wolf"], namespace).ended;
    expect(output).toMatch(/the crawl was refused: .*spider/);
    expect(code).toBe(2);
  });

  describe("in the middle of a long crawl", () => {
    let site: GraphSite;
    let run: Run;
    let descendants: readonly Process[];

    beforeEach(async () => {
      site = await GraphSite.start(LONG);
      run = start([site.seed, "--spider", "links", "--port", "0", "--workers", "1", "--exit"], namespace);
      await until("pages are fetched", async () => site.requests.size > 20);
      descendants = descendantsOf(run.child.pid);
      // A guard and a program for each of the master and the worker.
      expect(descendants.length).toBeGreaterThanOrEqual(4);
    });
    afterEach(async () => {
      run.child.kill("SIGKILL");
      await run.ended;
      await site.stop();
    });

    it.each([
      ["SIGINT", 130],
      ["SIGTERM", 143],
    ] as const)("leaves nothing running when it gets a %s", async (signal, expected) => {
      run.child.kill(signal);
      const { code, output } = await run.ended;
      expect(runningOf(descendants)).toEqual([]);
      expect(output).toContain("Stopping …");
      expect(output).not.toContain("No answer");
      expect(code).toBe(expected);
      expect(site.requests.size).toBeLessThan(LONG.pages);
    });

    it("ends on the spot when it is interrupted again and again, and what it started after it", async () => {
      const { child } = run;
      const nagging = setInterval(() => child.kill("SIGINT"), 50);
      const { code } = await run.ended;
      clearInterval(nagging);
      expect(code).toBe(130);
      await until("all have ended", async () => runningOf(descendants).length === 0);
    });

    it("takes along what it started when it is killed", async () => {
      run.child.kill("SIGKILL");
      await run.ended;
      await until("all have ended", async () => runningOf(descendants).length === 0);
    });

    it.each(["master", "worker"])("says that the %s died, with its log, and fails", async (role) => {
      const member = descendants.find(({ command }) => command.includes(`node dist/${role}.js`));
      process.kill(member?.pid ?? Number.NaN, "SIGKILL");
      const { code, output } = await run.ended;
      const [, log] =
        new RegExp(`\n${role}\\S* has ended \\(SIGKILL\\)\\. The end of \\S+:\n([^]*)$`).exec(output) ?? [];
      expect(log, output).toContain(`"role":"${role}"`);
      expect(runningOf(descendants)).toEqual([]);
      expect(code).toBe(1);
    });
  });
});

describe("npm start with arguments that cannot be meant", () => {
  it.each([
    [["--prot", "1"], /unknown flag --prot/],
    [["--constructor"], /unknown flag --constructor/],
    [["--workers", "none"], /--workers must be a whole number/],
    [["--port"], /--port needs a value/],
    [["--exit=now"], /--exit takes no value/],
    [["example.org"], /URL must be an absolute http/],
    [["http://a.example/", "http://b.example/"], /one URL is crawled at a time/],
  ])("refuses %j", async (args, message) => {
    const { code, output } = await start(args, "unused").ended;
    expect(output).toMatch(message);
    expect(code).toBe(2);
  });

  it("does not take a port that was asked for and is taken", async () => {
    const site = await GraphSite.start({ pages: 1, hosts: 1, links: 0 });
    const { port } = new URL(site.seed);
    const { code, output } = await start(["--port", port], "unused").ended;
    await site.stop();
    expect(output).toContain(`port ${port} is taken`);
    expect(code).toBe(2);
  });
});
