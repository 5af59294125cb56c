import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CrawlStateError, type CrawlStates, MAX_STATE_VALUES } from "../../src/crawl/crawl-state.js";

export type CrawlStatesUnderTest = { readonly states: CrawlStates; dispose(): Promise<void> };

/** What every keeper of crawls' states promises. */
export function crawlStateContract(name: string, setup: () => Promise<CrawlStatesUnderTest>): void {
  describe(`${name} keeps the contract of crawls' state`, () => {
    let under: CrawlStatesUnderTest;
    beforeAll(async () => {
      under = await setup();
    });
    afterAll(() => under?.dispose());

    const fresh = () => under.states.of(`c${randomUUID().slice(0, 8)}`);

    it("gives back what was set last, to whoever asks for the same crawl", async () => {
      const crawl = `c${randomUUID().slice(0, 8)}`;
      await under.states.of(crawl).set("seen", { "a.b": [1, null, "x"], $where: true });
      expect(await under.states.of(crawl).get("seen")).toEqual({ "a.b": [1, null, "x"], $where: true });
      await under.states.of(crawl).set("seen", 0);
      expect(await under.states.of(crawl).get("seen")).toBe(0);
      await under.states.of(crawl).set("seen", null);
      expect(await under.states.of(crawl).get("seen")).toBeNull();
    });

    it("has nothing of other crawls, nor what was deleted or never set", async () => {
      const state = fresh();
      await fresh().set("one", 1);
      await state.set("two", 2);
      await state.delete("two");
      expect(await state.get("one")).toBeUndefined();
      expect(await state.get("two")).toBeUndefined();
    });

    it("hands out copies", async () => {
      const state = fresh();
      const value = { list: [1] };
      await state.set("value", value);
      value.list.push(2);
      const read = (await state.get("value")) as { list: number[] };
      read.list.push(3);
      expect(await state.get("value")).toEqual({ list: [1] });
    });

    it("adds up what many add at once", async () => {
      const state = fresh();
      await state.add("count");
      await Promise.all(Array.from({ length: 50 }, (_, by) => state.add("count", by)));
      expect(await state.add("count", -0.5)).toBe(1 + 1_225 - 0.5);
      expect(await state.get("count")).toBe(1_225.5);
    });

    it("adds to numbers only, and changes nothing else", async () => {
      const state = fresh();
      await state.set("text", "ten");
      await expect(state.add("text")).rejects.toThrow(/only numbers can be added/);
      expect(await state.get("text")).toBe("ten");
      await expect(state.add("count", Number.NaN)).rejects.toThrow(CrawlStateError);
      await expect(state.add("count", "1" as unknown as number)).rejects.toThrow(CrawlStateError);
      expect(await state.get("count")).toBeUndefined();
    });

    it.each([
      ["", 1],
      ["x".repeat(201), 1],
      ["nul\0", 1],
      ["big", "x".repeat(16_384)],
      ["undefined", undefined],
      ["function", () => 1],
      ["bigint", 1n],
    ])("refuses %s with its reason", async (wanted, value) => {
      await expect(fresh().set(wanted, value)).rejects.toThrow(CrawlStateError);
    });

    it("keeps so many values and no more, but changes those that are there", async () => {
      const state = fresh();
      for (let from = 0; from < MAX_STATE_VALUES; from += 100) {
        await Promise.all(
          Array.from({ length: 100 }, (_, index) => state.set(`value ${from + index}`, index)),
        );
      }
      await expect(state.set("one more", 1)).rejects.toThrow(/1000 values at most/);
      await expect(state.add("one more")).rejects.toThrow(/1000 values at most/);
      await state.set("value 7", "changed");
      expect(await state.get("value 7")).toBe("changed");
    }, 60_000);
  });
}
