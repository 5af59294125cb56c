import { describe, expect, it } from "vitest";
import { DistinctCounter } from "../../../src/crawl/urls/distinct-counter.js";

function countOf(different: number, times = 1): number {
  const counter = new DistinctCounter();
  for (let round = 0; round < times; round += 1) {
    for (let n = 0; n < different; n += 1) counter.add(`page=${n}`);
  }
  return counter.count;
}

describe("a counter of different texts", () => {
  it("is close while they are few", () => {
    expect(countOf(0)).toBe(0);
    expect(Math.round(countOf(1))).toBe(1);
    for (const different of [5, 20, 100]) {
      expect(Math.abs(countOf(different) / different - 1)).toBeLessThan(0.12);
    }
  });

  it.each([1_000, 5_000, 50_000, 1_000_000])("is within a quarter for %i", (different) => {
    expect(Math.abs(countOf(different) / different - 1)).toBeLessThan(0.25);
  });

  it("counts the same text once", () => {
    expect(countOf(1_000, 5)).toBe(countOf(1_000));
  });

  it("is within a quarter for texts of other kinds", () => {
    for (const textOf of [(n: number) => `${n}`, (n: number) => `a=${n % 100}&b=${Math.floor(n / 100)}`]) {
      const counter = new DistinctCounter();
      for (let n = 0; n < 10_000; n += 1) counter.add(textOf(n));
      expect(Math.abs(counter.count / 10_000 - 1)).toBeLessThan(0.25);
    }
  });
});
