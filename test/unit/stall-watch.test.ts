import { describe, expect, it } from "vitest";
import { ManualClock, systemClock } from "../../src/lib/clock.js";
import { StallWatch } from "../../src/worker/stall-watch.js";

describe("StallWatch", () => {
  /** A watch on a clock of which this process sees no more than `see` lets it see. */
  async function watching() {
    const clock = new ManualClock();
    let monotonicMs = 0;
    const watch = new StallWatch({
      ...systemClock,
      after: clock.after.bind(clock),
      monotonic: () => monotonicMs,
    });
    await watch.start();
    return {
      watch,
      /** Time passes, and timers fire when they are due. */
      live: (ms: number) => {
        for (let passed = 0; passed < ms; passed += 500) {
          monotonicMs += 500;
          clock.advance(500);
        }
      },
      /** Time passes, and nothing is done. */
      stall: (ms: number) => {
        monotonicMs += ms;
      },
    };
  }

  it("finds nothing in a process that lives, however long", async () => {
    const { watch, live } = await watching();
    live(120_000);
    expect(watch.hasStalledWithin(60_000)).toBe(false);
  });

  it("tells of a stall at once, before any timer could, and for as long as is asked", async () => {
    const { watch, live, stall } = await watching();
    live(10_000);
    stall(20_000);
    expect(watch.hasStalledWithin(60_000)).toBe(true);
    live(30_000);
    expect(watch.hasStalledWithin(60_000)).toBe(true);
    live(31_000);
    expect(watch.hasStalledWithin(60_000)).toBe(false);
  });

  it("has a process that was stopped wait for a second, and no other", async () => {
    const { watch, live, stall } = await watching();
    live(10_000);
    expect(watch.whenAwake()).toBeUndefined();
    stall(20_000);
    let isAwake = false;
    const waking = watch.whenAwake()?.then(() => {
      isAwake = true;
    });
    live(500);
    await Promise.resolve();
    expect(isAwake).toBe(false);
    live(500);
    await waking;
    expect(isAwake).toBe(true);
    live(1_000);
    expect(watch.whenAwake()).toBeUndefined();
  });

  it("does not take a short pause for a stall", async () => {
    const { watch, live, stall } = await watching();
    live(10_000);
    stall(4_000);
    live(1_000);
    expect(watch.hasStalledWithin(60_000)).toBe(false);
  });
});
