import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { StorageError } from "../../../src/crawl/errors.js";
import { MemoryCrawlStates } from "../../../src/crawl/memory-crawl-state.js";
import { processManifest } from "../../../src/crawl/process-manifest.js";
import type { RunEnd, RunInput, RunOutput } from "../../../src/crawl/run.js";
import { systemClock } from "../../../src/lib/clock.js";
import { createLogger } from "../../../src/lib/logger.js";
import type { ChildProcesses } from "../../../src/worker/processes/child-processes.js";
import { ProcessSpiders } from "../../../src/worker/processes/process-spiders.js";
import { childProcesses, isAlive } from "../../support/children-under-test.js";
import { until } from "../../support/cluster.js";

const node = (script: string) => [process.execPath, "-e", script];
/** Writes messages, one a line. */
const say = (...messages: readonly unknown[]) =>
  node(messages.map((message) => `console.log(${JSON.stringify(JSON.stringify(message))});`).join(""));

describe("a process that is run as a whole", () => {
  let folder: string;
  let children: ChildProcesses;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "warren-run-"));
    children = childProcesses();
  });
  afterEach(() => expect(children.running).toBe(0));
  afterAll(async () => {
    await children.stop();
    await rm(folder, { recursive: true, force: true });
  });

  type Run = {
    readonly end: Promise<RunEnd>;
    readonly outputs: RunOutput[];
    readonly log: Record<string, unknown>[];
    readonly abort: AbortController;
    readonly state: RunInput["crawl"]["state"];
  };

  function begin(manifest: Record<string, unknown>, take?: RunInput["take"]): Run {
    const spiders = new ProcessSpiders({ children, clock: systemClock, node: "n1" });
    const spider = spiders.loadRun({
      folder,
      version: "7",
      manifest: processManifest.parse({ name: "whole", mode: "run", ...manifest }),
    });
    const outputs: RunOutput[] = [];
    const log: Record<string, unknown>[] = [];
    const abort = new AbortController();
    const state = new MemoryCrawlStates().of("c");
    const end = spider.run({
      crawl: { id: "c", params: { colour: "red" }, state },
      ...{ node: "n1", run: "c:run.1", attempt: 2, seeds: ["http://seed.test/"], signal: abort.signal },
      log: createLogger({
        level: "trace",
        destination: { write: (line) => void log.push(JSON.parse(line) as Record<string, unknown>) },
      }),
      take: take ?? (async (output) => void outputs.push(output)),
    });
    return { end, outputs, log, abort, state };
  }

  it("is told what it works for, by its first line and its environment", async () => {
    const script = `
      process.stdin.once("data", (line) => {
        const { WARREN_RUN_ID, WARREN_ATTEMPT, WARREN_SEEDS, WARREN_MODE, AMQP_URL } = process.env;
        console.log(JSON.stringify({ type: "item", data: { open: JSON.parse(line), WARREN_RUN_ID, WARREN_ATTEMPT, WARREN_SEEDS, WARREN_MODE, AMQP_URL } }));
        process.exit(0);
      });`;
    const { end, outputs } = begin({ command: node(script) });
    expect(await end).toEqual({ state: "done", exitCode: 0 });
    const expected = { type: "open", crawl: "c", spider: "whole", version: "7", node: "n1", mode: "run" };
    expect(outputs).toEqual([
      {
        item: {
          open: {
            ...expected,
            params: { colour: "red" },
            run: "c:run.1",
            attempt: 2,
            seeds: ["http://seed.test/"],
          },
          ...{
            WARREN_RUN_ID: "c:run.1",
            WARREN_ATTEMPT: "2",
            WARREN_SEEDS: '["http://seed.test/"]',
            WARREN_MODE: "run",
          },
        },
      },
    ]);
  });

  it("yields items, requests and files; other lines are its log", async () => {
    const { end, outputs, log } = begin({
      command: node(`
        console.log('{"type":"item","url":"http://a.test/","data":{"n":1}}');
        console.log('{"type":"request","url":"http://b.test/","spider":"links","priority":9}');
        console.log('{"type":"store","url":"http://b.test/x.pdf"}');
        console.log("plain words");
        console.error("on the other stream");
        console.log('{"type":"log","level":"warning","message":"careful"}');`),
    });
    expect(await end).toMatchObject({ state: "done" });
    expect(outputs).toEqual([
      { item: { n: 1 }, url: "http://a.test/" },
      { request: { url: "http://b.test/", spider: "links", priority: 9 } },
      { file: { url: "http://b.test/x.pdf" } },
    ]);
    expect(log.map(({ level, msg }) => [level, msg])).toEqual(
      expect.arrayContaining([
        ["info", "plain words"],
        ["info", "on the other stream"],
        ["warn", "careful"],
      ]),
    );
  });

  it("may write its items as plain JSON lines, as other tools do", async () => {
    const { end, outputs } = begin({
      stdout: "items",
      command: node(
        `console.log('{"title":"one"}'); console.log("a word"); console.log('{"type":"novel"}');`,
      ),
    });
    expect(await end).toMatchObject({ state: "done" });
    expect(outputs).toEqual([{ item: { title: "one" } }, { item: { type: "novel" } }]);
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    [
      "an exit code",
      { command: node("process.exitCode = 3; console.error('no luck')") },
      { reason: "exit", exitCode: 3, error: expect.stringMatching(/code 3.*no luck/s) },
    ],
    [
      "a signal",
      { command: node("process.kill(process.pid, 'SIGSEGV')") },
      { reason: "exit", signal: "SIGSEGV" },
    ],
    ["a program that is not there", { command: ["/nowhere/at-all"] }, { reason: "spider-error" }],
    [
      "its time",
      { command: node("setInterval(() => {}, 1000)"), limits: { runTimeoutMs: 300, graceMs: 100 } },
      { reason: "timeout" },
    ],
    [
      "too many items",
      { command: say(...[1, 2, 3].map((n) => ({ type: "item", data: { n } }))), limits: { maxItems: 2 } },
      { reason: "limit", error: expect.stringContaining("2 items") },
    ],
    [
      "its own word",
      { command: say({ type: "error", message: "the site is gone" }) },
      { reason: "spider-error", error: "the process the site is gone" },
    ],
    [
      "a message that is none",
      { command: say({ type: "item", data: "text" }) },
      { reason: "spider-error", error: expect.stringContaining("data") },
    ],
  ])("fails by %s", async (_what, manifest, failure) => {
    expect(await begin(manifest).end).toMatchObject({ state: "failed", ...failure });
  });

  it("ends with all that it has started when the run is to end, though it ignores being asked", async () => {
    const pidFile = path.join(folder, "pids");
    await writeFile(
      path.join(folder, "stubborn.sh"),
      `trap '' TERM\n(trap '' TERM; sleep 600) &\necho $$ $! > ${pidFile}\nwait\nsleep 600\n`,
    );
    const { end, abort } = begin({ command: ["sh", "stubborn.sh"], limits: { graceMs: 100 } });
    const { readFile } = await import("node:fs/promises");
    let pids: number[] = [];
    await until("it runs", async () => {
      pids = (await readFile(pidFile, "utf8").catch(() => "")).trim().split(" ").map(Number);
      return pids.length === 2;
    });
    abort.abort();
    expect(await end).toMatchObject({ state: "failed" });
    expect(pids.filter(isAlive)).toEqual([]);
  });

  it("is not to blame when what it brings cannot be stored: it is ended, and the run rejects", async () => {
    const flood = node(`setInterval(() => console.log('{"type":"item","data":{}}'), 1)`);
    const { end } = begin({ command: flood }, async () => {
      throw new StorageError("the database is away");
    });
    await expect(end).rejects.toThrow("the database is away");
  });

  it("goes on when one of its outputs is refused, and is told why in its log", async () => {
    const { end, log } = begin({ command: say({ type: "request", url: "http://a.test/" }) }, async () => {
      throw new Error("must name the `spider`");
    });
    expect(await end).toMatchObject({ state: "done" });
    expect(log.map(({ msg }) => msg)).toContain("not taken: must name the `spider`");
  });

  it("keeps a state and counts", async () => {
    const script = `
      const lines = require("node:readline").createInterface({ input: process.stdin });
      console.log('{"type":"state.add","id":1,"name":"seen","by":5}');
      console.log('{"type":"stats","name":"pages","by":2}');
      lines.on("line", (line) => { if (line.includes('"state"')) { console.log('{"type":"item","data":' + line + '}'); process.exit(0); } });`;
    const { end, outputs, state } = begin({ command: node(script) });
    expect(await end).toMatchObject({ state: "done" });
    expect(outputs).toEqual([{ item: { type: "state", id: 1, value: 5 } }]);
    expect(await state.get("seen")).toBe(5);
    expect(await state.get("stats.pages")).toBe(2);
  });

  it("waits while what it wrote is being stored", async () => {
    let waiting = 0;
    let most = 0;
    let taken = 0;
    const { end } = begin(
      {
        command: node(
          `for (let n = 0; n < 20000; n++) console.log('{"type":"item","data":{"n":' + n + '}}')`,
        ),
      },
      async () => {
        waiting += 1;
        most = Math.max(most, waiting);
        await new Promise((resolve) => setImmediate(resolve));
        waiting -= 1;
        taken += 1;
      },
    );
    expect(await end).toMatchObject({ state: "done" });
    expect(taken).toBe(20_000);
    expect(most).toBe(1);
  });
});
