import { describe, expect, it } from "vitest";
import { RecentKeys } from "../../../src/crawl/recent-keys.js";

describe("RecentKeys", () => {
  it("remembers what was set, and takes a new value for it", () => {
    const keys = new RecentKeys(10);
    keys.set("a", 1);
    keys.set("a", 2);
    expect(keys.get("a")).toBe(2);
    expect(keys.get("b")).toBeUndefined();
  });

  it("keeps what is asked for, forgets what is not, and never holds more than its limit", () => {
    const keys = new RecentKeys(10);
    keys.set("kept", 1);
    for (let number = 0; number < 1_000; number += 1) {
      keys.set(`k${number}`, number);
      expect(keys.get("kept")).toBe(1);
    }
    const held = Array.from({ length: 1_000 }, (_, number) => keys.get(`k${number}`) !== undefined);
    expect(held.filter(Boolean).length).toBeLessThanOrEqual(10);
    expect(keys.get("k999")).toBe(999);
  });

  it("forgets everything when it is cleared", () => {
    const keys = new RecentKeys(10);
    for (let number = 0; number < 20; number += 1) keys.set(`k${number}`, number);
    keys.clear();
    for (let number = 0; number < 20; number += 1) expect(keys.get(`k${number}`)).toBeUndefined();
  });
});
