import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { BusUnderTest, until } from "../support/bus-under-test.js";

describe("the claim of a node's id", () => {
  let under: BusUnderTest;
  beforeEach(() => {
    under = new BusUnderTest();
  });
  afterEach(() => under.dispose());

  it("is had by one process at a time, and by the next as soon as the first has gone", async () => {
    const [first, second] = await Promise.all([under.started(), under.started()]);
    const held = first.claimNode("w1");
    expect(await held.held()).toBe(true);

    const waiting = second.claimNode("w1");
    let refusals = 0;
    waiting.onRefused(() => {
      refusals += 1;
    });
    await until("the second is refused more than once", () => refusals > 1);
    expect(waiting.isHeld).toBe(false);
    expect(await second.claimNode("w2").held()).toBe(true);

    await first.stop();
    expect(await waiting.held()).toBe(true);
  });

  it("comes back after a reconnect, although the broker may not have missed the last connection yet", async () => {
    const proxy = await under.proxy();
    const bus = await under.started({ urls: [proxy.url] });
    const claim = bus.claimNode("w1");
    await claim.held();

    for (let round = 0; round < 5; round += 1) {
      proxy.cut();
      await until("the claim is in doubt", () => !claim.isHeld);
      expect(await claim.held()).toBe(true);
    }
  });

  it("is lost to the next by whoever is cut off for longer than the broker's patience", async () => {
    const proxy = await under.proxy();
    const url = new URL(proxy.url);
    url.searchParams.set("heartbeat", "1");
    const [first, second] = await Promise.all([under.started({ urls: [url.href] }), under.started()]);
    const lost = first.claimNode("w1");
    await lost.held();

    proxy.freeze();
    expect(await second.claimNode("w1").held()).toBe(true);
    const refused = new Promise<void>((resolve) => lost.onRefused(resolve));
    proxy.thaw();

    await refused;
    expect(lost.isHeld).toBe(false);
  });

  it("costs nothing but its own channel when it is refused", async () => {
    const [first, second] = await Promise.all([under.started(), under.started()]);
    await first.claimNode("w1").held();
    const refused = second.claimNode("w1");
    await new Promise<void>((resolve) => refused.onRefused(resolve));

    expect(second.connected).toBe(true);
    refused.stop();
    expect(await refused.held()).toBe(false);
  });
});
