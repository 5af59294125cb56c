import { describe, expect, it } from "vitest";
import { neighbours, rush, wild } from "../../../bench/dispatch-scenarios.mjs";
import { DispatchSimulation } from "../../../bench/dispatch-simulation.mjs";
import { Dispatcher } from "../../../src/crawl/dispatch/dispatcher.js";
import { TaskRound } from "../../../src/crawl/dispatch/task-round.js";
import { MemoryHostStates } from "../../../src/crawl/memory-frontier.js";
import type { TaskEnd } from "../../../src/crawl/task.js";
import { shardOf } from "../../../src/crawl/urls/url.js";
import { SeededRandom } from "../../support/seeded-random.js";

const PROGRAM = { Dispatcher, MemoryHostStates, TaskRound, shardOf };

const random = new SeededRandom();
const next = () => random.next();

describe(`The dispatcher in simulated time, WARREN_TEST_SEED=${random.seed}`, () => {
  it("keeps every promise to 1,200 hosts of all kinds, and has every URL fetched once, over take-overs", async () => {
    const hosts = 1_200;
    const figures = await new DispatchSimulation(PROGRAM, wild({ hosts, urls: 24_000, random: next })).run();

    expect(figures.done + figures.failed).toBe(24_000);
    expect(figures.takeOvers).toBeGreaterThan(0);
    expect(figures.overloads).toBeGreaterThan(0);
    expect(figures.givenUp).toBeGreaterThan(0);
    // Hosts that do not answer: 4 in 100, some of them always. Few of their URLs are tried at all.
    expect(figures.silences).toBeLessThan(24_000 * 0.05);
    expect(figures.mostLanes).toBeLessThan(hosts / 2);
  }, 60_000);

  it("sends as fast as hosts and workers can take it", async () => {
    const figures = await new DispatchSimulation(
      PROGRAM,
      rush({ hosts: 1_000, urls: 20_000, random: next }),
    ).run();
    // 4 at once on each of 1,000 hosts, 1,000 places, 150 ms a page: nothing else may bound it.
    expect(figures.simulatedSeconds).toBeLessThan((20_000 / 1_000) * 0.15 * 3);
    expect(figures.mostInFlight).toBeGreaterThan(2_000);
  }, 60_000);

  it.each([
    ["the same host", "same", 0],
    ["other hosts", "other", 0],
    ["the same host, with a delay", "same", 500],
    ["other hosts, with a delay", "other", 500],
  ] as const)(
    "lets a crawl of ten URLs end in at most twice its time beside a large one on %s",
    async (_, hosts, delayMs) => {
      const timeOf = async (isAlone: boolean) => {
        const options = neighbours({ hosts, isAlone, delayMs, random: next });
        const { endedAtMs } = await new DispatchSimulation(PROGRAM, options).run();
        return (endedAtMs as Record<string, number>).small ?? Number.NaN;
      };
      expect(await timeOf(false)).toBeLessThanOrEqual(2 * (await timeOf(true)));
    },
    60_000,
  );

  it.each([
    [
      "a back-off",
      ({ backoffUntil: _backoffUntil, ...end }: TaskEnd) => end,
      /ms before h\d+\.test may be asked again/,
    ],
    ["how long a fetch took", ({ fetchMs: _fetchMs, ...end }: TaskEnd) => end, /began \d+ ms too early/],
    ["what its bytes cost", ({ owedMs: _owedMs, ...end }: TaskEnd) => end, /before the bytes of/],
    [
      "a crawl delay",
      ({ crawlDelayMs: _crawlDelayMs, ...end }: TaskEnd) => ({ ...end, crawlDelayMs: 0 }),
      /too early|beside/,
    ],
  ])(
    "notices a dispatcher that does not hear of %s",
    async (_what, deafTo, complaint) => {
      class Deaf extends Dispatcher {
        override ended(end: TaskEnd): void {
          super.ended(deafTo(end));
        }
        override learnt(): void {}
      }
      const simulation = new DispatchSimulation(
        { ...PROGRAM, Dispatcher: Deaf },
        wild({ hosts: 400, urls: 8_000, random: next }),
      );
      await expect(simulation.run()).rejects.toThrow(complaint);
    },
    60_000,
  );
});
