import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ModuleSpider } from "../../src/worker/modules/index.js";
import { ModulesUnderTest, outputsOf } from "../support/modules-under-test.js";
import { WILD_MODULE } from "../support/wild-module.js";

const LOOPS = "did not finish within 1000 ms, nor let go of its thread";

describe("a module that misbehaves", () => {
  let modules: ModulesUnderTest;
  let spider: ModuleSpider;

  beforeAll(async () => {
    modules = await ModulesUnderTest.start({ pageTimeoutMs: 1_000, memoryMb: 300, maxOutputs: 2_000 });
    spider = await modules.load(WILD_MODULE);
  });

  afterAll(async () => await modules.dispose());

  it.each([
    ["throw", "no such price"],
    ["throw late", "late"],
    ["loop", LOOPS],
    ["loop late", LOOPS],
    ["hang", "did not finish within 1000 ms"],
    ["exit", "ended its process with exit code 0"],
    ["exit 3", "ended its process with exit code 3"],
    ["abort", "ended its process by SIGABRT"],
    ["kill", "ended its process by SIGKILL"],
    ["stop", LOOPS],
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
    ["close channel", /^(?:ended its process|did not finish within 1000 ms)/],
    ["leave a child", "ended its process with exit code 4"],
  ])("fails the page on which it does this, and no other: %s", async (what, reason) => {
    const bodies = ["fine", "fine", what, "fine", "fine", "fine"];

    const results = await Promise.allSettled(
      bodies.map((body, number) =>
        outputsOf(spider.parse(modules.page({ url: `http://h/${number}`, body }))),
      ),
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
