import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ModuleSpider } from "../../src/worker/modules/index.js";
import { ModulesUnderTest, outputsOf } from "../support/modules-under-test.js";
import { WILD_MODULE } from "../support/wild-module.js";

const LOOPS = "did not finish within 2000 ms, nor let go of its thread";

describe("a module that misbehaves", () => {
  const settings = { memoryMb: 300, maxOutputs: 2_000 };
  let modules: ModulesUnderTest;
  let impatient: ModulesUnderTest;
  let spider: ModuleSpider;
  let watched: ModuleSpider;

  beforeAll(async () => {
    modules = await ModulesUnderTest.start({ ...settings, pageTimeoutMs: 60_000 });
    impatient = await ModulesUnderTest.start({ ...settings, pageTimeoutMs: 2_000 });
    spider = await modules.load(WILD_MODULE);
    watched = await impatient.load(WILD_MODULE);
  });

  afterAll(async () => {
    await modules.dispose();
    await impatient.dispose();
  });

  /** One page in the midst of others, with what its process is to do there. */
  async function expectToFail(wild: ModuleSpider, what: string, reason: string | RegExp): Promise<void> {
    const bodies = ["fine", "fine", what, "fine", "fine", "fine"];

    const results = await Promise.allSettled(
      bodies.map((body, number) => outputsOf(wild.parse(modules.page({ url: `http://h/${number}`, body })))),
    );

    for (const [number, result] of results.entries()) {
      if (bodies[number] === "fine") {
        const item = { url: `http://h/${number}`, pid: expect.any(Number) };
        expect(result).toEqual({ status: "fulfilled", value: [{ item }] });
      } else {
        expect(result).toMatchObject({ status: "rejected" });
        const { message } = (result as PromiseRejectedResult).reason as Error;
        expect(message).toMatch(reason);
      }
    }
  }

  it.each([
    ["loop", LOOPS],
    ["loop late", LOOPS],
    ["stop", LOOPS],
    ["hang", "did not finish within 2000 ms"],
  ])("fails the page that does not end, and no other: %s", async (what, reason) => {
    await expectToFail(watched, what, reason);
  });

  it.each([
    ["throw", "no such price"],
    ["throw late", "late"],
    ["exit", "ended its process with exit code 0"],
    ["exit 3", "ended its process with exit code 3"],
    ["abort", "ended its process by SIGABRT"],
    ["kill", "ended its process by SIGKILL"],
    ["heap", /^took (?:more than 300 MiB of heap|\d+ MiB of memory; 300 MiB are allowed)$/],
    ["buffers", /^took \d+ MiB of memory; 300 MiB are allowed$/],
    ["buffers at once", /^took \d+ MiB of memory; 300 MiB are allowed$/],
    ["outputs", "more than 2000 outputs from one page"],
    ["outputs at once", "more than 2000 outputs from one page"],
    ["large outputs", /^(?:a message of 90\d+ bytes; 67108864 at most are taken|took \d+ MiB.*)$/],
    ["no item", "a spider yields {item}, {request} or {file}, not 5"],
    ["function", /could not be cloned/],
    ["uncaught", "it threw outside of its page: thrown later"],
    ["channel", /^wrote what cannot be understood: /],
    ["huge frame", /^wrote what cannot be understood: a message of \d+ bytes; 67108864 at most are taken/],
    ["null error", "null"],
    ["odd error", "something was thrown that cannot be told in words"],
    ["questions", "1000 questions wait for their answers: wait for some of them"],
    ["close channel", /^(?:ended its process|closed its channel to the worker)/],
    ["leave a child", "ended its process with exit code 4"],
  ])("fails the page on which it does this, and no other: %s", async (what, reason) => {
    await expectToFail(spider, what, reason);
  });

  it("has the pages of a poisonous one done elsewhere, each once", async () => {
    const pages = Array.from({ length: 1_000 }, (_, number) => {
      const body = number === 333 ? "exit" : "fine";
      return modules.page({ url: `http://h/${number}`, body });
    });

    const results = await Promise.allSettled(
      pages.map((page) => outputsOf(spider.callbacks.at_once?.(page) ?? [])),
    );

    for (const [number, result] of results.entries()) {
      if (number === 333) expect(result).toMatchObject({ status: "rejected" });
      else expect(result).toEqual({ status: "fulfilled", value: [{ item: { url: `http://h/${number}` } }] });
    }
  });
});

/** Tells its process, and one that it starts; then goes on for ever in the way that the page's body says. */
const ENDLESS = `
import { spawn } from "node:child_process";
export default { name: "endless", async *parse(page) {
  const child = spawn("sleep", ["1000"], { stdio: "ignore" });
  await page.crawl.state.set("pid", process.pid);
  await page.crawl.state.set("pid", child.pid);
  if (page.text() === "loop") for (;;);
  if (page.text() === "deaf") { process.on("exit", () => { for (;;); }); process.removeAllListeners("uncaughtException"); }
  await new Promise(() => {});
} };`;

describe("a worker that is killed", () => {
  it("leaves none of its modules' processes, nor what these have started", async () => {
    const folder = await mkdtemp(path.join(tmpdir(), "warren-modules-"));
    const entry = path.join(folder, "spider.mjs");
    await writeFile(entry, ENDLESS);
    const bodies = ["loop", "wait", "deaf"];
    const program = path.resolve(import.meta.dirname, "../support/module-parent.mjs");
    const parent = spawn(process.execPath, [program, entry, ...bodies], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(parent, "exit");
    const pids: number[] = [];
    for await (const line of createInterface({ input: parent.stdout })) {
      pids.push(Number(line));
      if (pids.length === 2 * bodies.length) break;
    }

    parent.kill("SIGKILL");
    await exited;

    await expect.poll(() => pids.filter(isAlive), { timeout: 10_000 }).toEqual([]);
    await rm(folder, { recursive: true });
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
