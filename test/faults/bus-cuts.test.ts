import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { BusLoad, type Member, report } from "../support/bus-load.js";
import { heapInUse } from "../support/heap.js";
import { PrivateBroker } from "../support/private-broker.js";
import { SeededRandom } from "../support/seeded-random.js";

const CUTS = 50;
/** What may still be in use after them that was not after a few, in MiB. */
const MAX_GROWTH_MIB = 8;
/** How much longer than its time-out a call may take on a machine that has other things to do, in ms. */
const MAX_OVERRUN_MS = 2_000;

const NOTHING_LOST = { lost: 0, pending: 0, unexpected: [] };

describe("a bus under load", () => {
  let broker: PrivateBroker;
  let load: BusLoad;
  const random = new SeededRandom();

  beforeAll(async () => {
    broker = await PrivateBroker.start();
  });
  afterAll(() => broker?.stop());

  beforeEach(async ({ task }) => {
    load = await BusLoad.start(broker.url, `load-${task.id}`);
    await load.tookAgain(performance.now());
  });
  afterEach(() => load?.dispose());

  /** Ends the load, prints what came of it, and expects nothing lost, hanging or unheard of. */
  async function expectNothingLost(
    what: string,
    more: Readonly<Record<string, unknown>> = {},
  ): Promise<void> {
    await load.end();
    const figures = load.figures();
    const reconnects = await load.reconnects();
    report(what, { seed: random.seed, ...more, ...figures, reconnects });
    expect(figures).toMatchObject(NOTHING_LOST);
    expect(figures.consumed).toBeGreaterThan(0);
    expect(figures.worstOverrunMs).toBeLessThan(MAX_OVERRUN_MS);
  }

  it(`loses nothing, forgets nobody and keeps nothing when it is cut off ${CUTS} times`, async () => {
    let heapAtFirst = 0;
    const waits: number[] = [];
    const cut = (member: Member) => member.proxy.cut();
    for (let round = 0; round < CUTS; round += 1) {
      await sleep(random.between(50, 900));
      const cutAt = performance.now();
      // Someone, or all at once.
      if (random.next() < 0.2) load.members.forEach(cut);
      else cut(random.pick(load.members));
      if (random.next() < 0.5) continue;
      waits.push(await load.tookAgain(cutAt));
      if (heapAtFirst === 0 && round >= CUTS / 5) heapAtFirst = await heapInUse();
    }
    await load.tookAgain(performance.now());
    const growth = (await heapInUse()) - heapAtFirst;
    await expectNothingLost(`${CUTS} cuts`, { worstWaitMs: Math.max(...waits), heapAtFirst, growth });
    expect(growth).toBeLessThan(MAX_GROWTH_MIB);
    // After one each second that a connection does not live long there are waits of up to 1.6 s in a row.
    expect(Math.max(...waits)).toBeLessThan(5_000);
  });

  it("loses nothing and leaves nobody waiting in a black hole of a minute", async () => {
    for (const { proxy } of load.members) proxy.freeze();
    await sleep(60_000);
    for (const { proxy } of load.members) proxy.thaw();
    const waitMs = await load.tookAgain(performance.now());
    await expectNothingLost("60 s black hole", { waitMs });
    expect(waitMs).toBeLessThan(5_000);
  });

  it.each([
    ["hears but is not heard", "client"],
    ["is heard but does not hear", "server"],
  ] as const)("loses nothing when one of its members %s", async (what, side) => {
    await sleep(2_000);
    const [first] = load.workers;
    for (const member of [load.sender, ...(first === undefined ? [] : [first])]) member.proxy.mute(side);
    await sleep(12_000);
    for (const { proxy } of load.members) proxy.thaw();
    const waitMs = await load.tookAgain(performance.now());
    await expectNothingLost(`half open: someone ${what}`, { waitMs });
    expect(waitMs).toBeLessThan(5_000);
  });

  it("loses nothing when everything takes long", async () => {
    for (const { proxy } of load.members) proxy.delay(random.between(100, 300));
    await sleep(8_000);
    for (const { proxy } of load.members) proxy.delay(0);
    await expectNothingLost("latency of 100 to 300 ms each way");
    expect(await load.reconnects()).toBe(0);
  });
});
