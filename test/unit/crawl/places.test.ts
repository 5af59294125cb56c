import { describe, expect, it } from "vitest";
import { Places } from "../../../src/crawl/render/places.js";

describe("places", () => {
  it("are given in turn, and never more of them than there are", async () => {
    const places = new Places(2);
    const { signal } = new AbortController();
    const order: string[] = [];
    const take = async (name: string) => {
      const leave = await places.take(signal);
      order.push(name);
      return leave;
    };
    const first = await take("first");
    await take("second");
    const third = take("third");
    const fourth = take("fourth");
    expect(places.waiting).toBe(2);
    first?.();
    first?.();
    await third;
    expect(order).toEqual(["first", "second", "third"]);
    (await third)?.();
    await fourth;
    expect(order).toEqual(["first", "second", "third", "fourth"]);
  });

  it("are not waited for any longer once the signal came", async () => {
    const places = new Places(1);
    const stop = new AbortController();
    const leave = await places.take(stop.signal);
    const waiting = places.take(stop.signal);
    stop.abort();
    expect(await waiting).toBeUndefined();
    expect(places.waiting).toBe(0);
    expect(await places.take(stop.signal)).toBeUndefined();
    leave?.();
    expect(await places.take(new AbortController().signal)).toBeDefined();
  });
});
