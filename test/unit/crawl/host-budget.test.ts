import { describe, expect, it } from "vitest";
import { DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import type { Task } from "../../../src/crawl/task.js";
import {
  ALL_SHARDS,
  crawlNamed,
  dispatcherUnderTest,
  NO_ROBOTS,
  pagesOf,
  started,
} from "../../support/dispatcher-under-test.js";

const SILENT = { untouched: true, trouble: { kind: "silent", why: "connection refused" } } as const;
const BACKOFF = {
  silentAfter: 3,
  silentWaitMs: 1_000,
  overloadWaitMs: 1_000,
  maxWaitMs: 8_000,
  patienceMs: 20_000,
};

describe("A delay that follows how long fetches take", () => {
  const politeness = { ...NO_ROBOTS, delayFactor: 3, maxDelayMs: 5_000 };

  it("is so many times as long as the last fetch took", async () => {
    const { sent, add, settle, end, advance } = await started([crawlNamed("c", { politeness })]);
    await add("c", ...pagesOf("a.test", 3));
    await settle();
    expect(sent).toHaveLength(1);
    await end(sent[0] as Task, { answered: true, fetchMs: 400 });
    await advance(1_199);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
    expect(sent[1]?.delayMs).toBe(1_200);
  });

  it("is never longer than its bound, nor shorter than the crawl's own delay", async () => {
    const { sent, add, settle, end, advance } = await started([
      crawlNamed("c", { politeness: { ...politeness, delayMs: 1_000 } }),
    ]);
    await add("c", ...pagesOf("a.test", 3));
    await settle();
    await end(sent[0] as Task, { answered: true, fetchMs: 20_000 });
    await advance(4_999);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
    await end(sent[1] as Task, { answered: true, fetchMs: 1 });
    await advance(999);
    expect(sent).toHaveLength(2);
    await advance(1);
    expect(sent).toHaveLength(3);
  });

  it("holds for a crawl that did not ask for it, while they share a host", async () => {
    const { sent, add, settle, end, advance } = await started([
      crawlNamed("plain"),
      crawlNamed("careful", { politeness }),
    ]);
    await add("careful", ...pagesOf("a.test", 5));
    await add("plain", "http://a.test/x", "http://a.test/y");
    await settle();
    expect(sent).toHaveLength(1);
    await end(sent[0] as Task, { answered: true, fetchMs: 100 });
    await advance(299);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
  });

  it("goes on where it was when another dispatcher takes over", async () => {
    const before = await started([crawlNamed("c", { politeness })]);
    await before.add("c", ...pagesOf("a.test", 3));
    await before.settle();
    const [first] = before.sent;
    if (first === undefined) throw new Error("nothing was sent");
    const { id, token, host } = first;
    await before.frontier.commit([{ id, crawl: "c", token, attempts: 1, state: "done", items: 0, files: 0 }]);
    await before.hosts.note([{ host, lastEndedAt: before.clock.now(), lastFetchMs: 1_000 }]);

    const after = dispatcherUnderTest({}, before);
    after.dispatcher.setWindow(100);
    after.dispatcher.setCrawls([crawlNamed("c", { politeness })]);
    await after.dispatcher.hold(ALL_SHARDS);
    await after.advance(2_999);
    expect(after.sent).toHaveLength(0);
    await after.advance(100);
    expect(after.sent).toHaveLength(1);
  });
});

describe("A bandwidth cap", () => {
  const politeness = { ...NO_ROBOTS, maxBytesPerSecond: 1_000 };

  it("keeps the host's lane shut until the bytes of a fetch are paid for", async () => {
    const { sent, add, settle, end, advance } = await started([
      crawlNamed("c", { politeness: { ...politeness, maxConcurrencyPerHost: 1 } }),
    ]);
    await add("c", ...pagesOf("a.test", 3));
    await settle();
    await advance(500);
    await end(sent[0] as Task, { answered: true, fetchMs: 500, owedMs: 3_000 });
    await advance(2_499);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
  });

  it("adds up what several fetches at once bring, and takes the strictest of the crawls", async () => {
    const { sent, add, settle, end, advance } = await started([
      crawlNamed("c", { politeness }),
      crawlNamed("d", { politeness: { ...politeness, maxBytesPerSecond: 50_000 } }),
    ]);
    await add("d", ...pagesOf("a.test", 20));
    await add("c", ...pagesOf("a.test", 40));
    await settle();
    expect(sent).toHaveLength(4);
    for (const task of sent.slice(0, 4)) await end(task, { answered: true, fetchMs: 0, owedMs: 1_000 });
    await advance(3_999);
    expect(sent).toHaveLength(4);
    await advance(1);
    expect(sent.length).toBeGreaterThan(4);
  });

  it("is charged with as much as ever came for a fetch of which nobody knows what it brought", async () => {
    const { sent, add, settle, end, advance } = await started([
      crawlNamed("c", { politeness: { ...politeness, maxConcurrencyPerHost: 1 } }),
    ]);
    await add("c", ...pagesOf("a.test", 4));
    await settle();
    await end(sent[0] as Task, { answered: true, fetchMs: 0, owedMs: 2_000 });
    await advance(2_000);
    expect(sent).toHaveLength(2);
    await end(sent[1] as Task, { isUnknown: true });
    await advance(1_999);
    expect(sent).toHaveLength(2);
    await advance(1);
    expect(sent).toHaveLength(3);
  });

  it("is remembered for whoever takes over", async () => {
    const { hosts } = dispatcherUnderTest();
    await hosts.note([{ host: "a.test", debt: { from: 10_000, ms: 500 } }]);
    await hosts.note([
      { host: "a.test", debt: { from: 10_100, ms: 500 } },
      { host: "a.test", debt: { from: 20_000, ms: 1 } },
    ]);
    expect(await hosts.load(["a.test"])).toEqual([{ host: "a.test", paidUntil: 20_001 }]);
  });
});

describe("A crawl that goes on while URLs from before its pause are in flight", () => {
  it("is as polite as it was, from its first URL on", async () => {
    const crawl = crawlNamed("c", { politeness: { ...NO_ROBOTS, maxConcurrencyPerHost: 2 } });
    const { sent, add, settle, dispatcher } = await started([crawl]);
    await add("c", ...pagesOf("a.test", 20));
    await settle();
    expect(sent).toHaveLength(2);
    dispatcher.setCrawls([]);
    dispatcher.ended({ id: "x", crawl: "x", host: "a.test", token: "x", endedAt: 0 });
    await settle();
    dispatcher.setCrawls([crawl]);
    await settle();
    expect(sent).toHaveLength(2);
  });
});

describe("An end that was not heard of", () => {
  it("leaves a lane shut until what is on record of it was read", async () => {
    const { sent, add, settle, advance, dispatcher, frontier, hosts, clock } = await started([
      crawlNamed("c", { politeness: { ...NO_ROBOTS, delayFactor: 3, maxDelayMs: 60_000 } }),
    ]);
    await add("c", ...pagesOf("a.test", 3));
    await settle();
    const { id, crawl, token } = sent[0] as Task;
    await hosts.note([{ host: "a.test", lastFetchMs: 1_000, backoffUntil: clock.now() + 9_000 }]);
    await frontier.commit([{ id, crawl, token, attempts: 1, state: "done", items: 0, files: 0 }]);
    await advance(100);
    await dispatcher.reconcile();
    await advance(8_899);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
    expect(sent[1]?.delayMs).toBe(3_000);
  });
});

describe("A host that is overloaded", () => {
  const overloaded = { answered: true, trouble: { kind: "overloaded", why: "status 503" } } as const;

  it("is left alone for longer each time, tried with one fetch, and eased in again", async () => {
    const { sent, add, settle, end, advance, dispatcher } = await started([crawlNamed("c")], {
      backoff: BACKOFF,
    });
    await add("c", ...pagesOf("a.test", 60));
    await settle();
    expect(sent).toHaveLength(4);
    // All four were on their way when the first came back: that is one step.
    for (const task of sent.slice(0, 4)) await end(task, overloaded);
    expect(dispatcher.waitReason({ crawl: "c", host: "a.test" })).toMatch(
      /^host backed off until .*Z \(status 503\)$/,
    );
    await advance(999);
    expect(sent).toHaveLength(4);
    await advance(1);
    expect(sent).toHaveLength(5);
    await end(sent[4] as Task, overloaded);
    await advance(1_999);
    expect(sent).toHaveLength(5);
    await advance(1);
    expect(sent).toHaveLength(6);
    await end(sent[5] as Task, { answered: true });
    await settle();
    expect(sent).toHaveLength(8);
    for (const task of sent.slice(6, 8)) await end(task, { answered: true });
    await settle();
    expect(sent).toHaveLength(12);
  });

  it("is asked nothing before the time that it gave, by no crawl", async () => {
    const { sent, add, settle, end, advance, clock } = await started([crawlNamed("c"), crawlNamed("d")], {
      backoff: BACKOFF,
    });
    await add("c", ...pagesOf("a.test", 6));
    await settle();
    const backoffUntil = clock.now() + 30_000;
    const trouble = { kind: "asked", why: "status 429" } as const;
    for (const task of sent.slice(0, 4)) await end(task, { answered: true, trouble, backoffUntil });
    await add("d", "http://a.test/d");
    await advance(29_999);
    expect(sent).toHaveLength(4);
    await advance(1);
    expect(sent).toHaveLength(5);
  });

  it("stays so for whoever takes over", async () => {
    const before = await started([crawlNamed("c")], { backoff: BACKOFF });
    await before.add("c", ...pagesOf("a.test", 6));
    await before.settle();
    for (const task of before.sent.slice(0, 4)) await before.end(task, overloaded);
    await before.dispatcher.stop();

    const after = dispatcherUnderTest({ backoff: BACKOFF }, before);
    after.dispatcher.setWindow(100);
    after.dispatcher.setCrawls([crawlNamed("c")]);
    await after.dispatcher.hold(ALL_SHARDS);
    await after.advance(900);
    expect(after.sent).toHaveLength(0);
    expect(after.dispatcher.waitReason({ crawl: "c", host: "a.test" })).toContain("status 503");
    await after.advance(100);
    expect(after.sent).toHaveLength(1);
  });
});

describe("A host that does not answer", () => {
  it("is tried with one URL at a time, ever more rarely, so that few of its URLs lose attempts", async () => {
    const { sent, add, settle, end, advance } = await started([crawlNamed("c")], { backoff: BACKOFF });
    await add("c", ...pagesOf("dead.test", 50));
    await settle();
    for (const task of sent.slice(0, 4)) await end(task, SILENT);
    await settle();
    expect(sent).toHaveLength(4);
    for (const waitMs of [1_000, 2_000, 4_000]) {
      const before = sent.length;
      await advance(waitMs - 1);
      expect(sent).toHaveLength(before);
      await advance(1);
      expect(sent).toHaveLength(before + 1);
      await end(sent.at(-1) as Task, SILENT);
      await settle();
    }
  });

  it("opens again as soon as it answers", async () => {
    const { sent, add, settle, end, advance } = await started([crawlNamed("c")], { backoff: BACKOFF });
    await add("c", ...pagesOf("dead.test", 50));
    await settle();
    for (const task of sent.slice(0, 4)) await end(task, SILENT);
    await advance(1_000);
    for (let index = 4; index < 11; index += 1) {
      await end(sent[index] as Task, { answered: true });
      await settle();
    }
    expect(sent.length).toBeGreaterThanOrEqual(11 + 4);
  });

  it("has its URLs given up after a while, but for one that is tried when its time comes", async () => {
    const { sent, add, settle, end, advance, dispatcher } = await started([crawlNamed("c")], {
      backoff: BACKOFF,
    });
    await add("c", ...pagesOf("dead.test", 500));
    await settle();
    const endAll = async (from: number) => {
      let index = from;
      for (; index < sent.length; index += 1) {
        const task = sent[index] as Task;
        await end(task, task.givenUp === undefined ? SILENT : { untouched: true });
        await settle();
      }
      return index;
    };
    let ended = 0;
    for (let seconds = 0; seconds < 22; seconds += 1) {
      ended = await endAll(ended);
      await advance(1_000);
    }
    await endAll(ended);
    expect(sent).toHaveLength(500);
    const given = sent.filter(({ givenUp }) => givenUp !== undefined);
    expect(given.length).toBeGreaterThan(480);
    expect(given[0]?.givenUp).toMatch(/^the host has not answered for too long: connection refused/);

    // A URL that is found later is tried once the host is due.
    await advance(8_000);
    await add("c", "http://dead.test/late");
    await settle();
    expect(sent.at(-1)?.givenUp).toBeUndefined();
    await end(sent.at(-1) as Task, { answered: true });
    await add("c", ...pagesOf("dead.test", 510).slice(500));
    await settle();
    expect(sent.slice(-1)[0]?.givenUp).toBeUndefined();
    expect(dispatcher.waitReason({ crawl: "c", host: "dead.test" })).toBe("host busy");
  });

  it("is not tried while a fetch is under way that began before it was given up", async () => {
    const { sent, add, settle, end, advance } = await started([crawlNamed("c")], { backoff: BACKOFF });
    await add("c", ...pagesOf("dead.test", 20));
    await settle();
    for (const task of sent.slice(0, 4)) await end(task, SILENT);
    for (const waitMs of [1_000, 2_000, 4_000]) {
      await advance(waitMs);
      await end(sent.at(-1) as Task, SILENT);
    }
    await advance(8_000);
    expect(sent).toHaveLength(8);
    // Fifteen seconds of silence; the patience ends while the eighth is still being fetched.
    await advance(6_000);
    await add("c", "http://dead.test/late");
    await settle();
    expect(sent).toHaveLength(21);
    expect(sent.slice(8).every(({ givenUp }) => givenUp !== undefined)).toBe(true);
  });

  it("does not fill the window, however many such hosts there are", async () => {
    const { sent, add, settle, end, dispatcher, advance } = await started([crawlNamed("c")], {
      backoff: BACKOFF,
    });
    dispatcher.setWindow(20);
    const dead = Array.from({ length: 200 }, (_, index) => pagesOf(`dead${index}.test`, 5)).flat();
    await add("c", ...dead);
    // Each dead host is met once, with a URL or more; then few are tried at once.
    const met = new Set<string>();
    let index = 0;
    while (met.size < 200) {
      await settle();
      const task = sent[index];
      if (task === undefined) throw new Error(`stopped after ${index}`);
      index += 1;
      met.add(task.host);
      await end(task, SILENT);
    }
    for (const task of sent.slice(index, sent.length)) await end(task, SILENT);
    await settle();
    await advance(1_000);
    expect(dispatcher.inFlight).toBeLessThanOrEqual(20 / 4 + 1);
    const before = sent.length;
    await add("c", ...Array.from({ length: 14 }, (_, host) => `http://alive${host}.test/`));
    await settle();
    expect(sent.slice(before).filter(({ host }) => host.startsWith("alive"))).toHaveLength(14);
  });
});

describe("A crawl that is changed while it runs", () => {
  it("is as polite as it is now told to be, at once", async () => {
    const { sent, add, settle, end, advance, dispatcher } = await started([crawlNamed("c")]);
    await add("c", ...pagesOf("a.test", 50));
    await settle();
    expect(sent).toHaveLength(4);
    dispatcher.setCrawls([crawlNamed("c", { politeness: { ...NO_ROBOTS, maxConcurrencyPerHost: 6 } })]);
    await settle();
    expect(sent).toHaveLength(6);
    dispatcher.setCrawls([crawlNamed("c", { politeness: { ...NO_ROBOTS, delayMs: 2_000 } })]);
    for (const task of sent.slice(0, 6)) await end(task);
    await advance(1_999);
    expect(sent).toHaveLength(6);
    dispatcher.setCrawls([crawlNamed("c", { politeness: { ...NO_ROBOTS, delayMs: 0 } })]);
    await settle();
    expect(sent).toHaveLength(10);
  });
});

describe("A host whose robots.txt is unknown", () => {
  it("is asked for one page until that is known, and says that this is why others wait", async () => {
    const { sent, add, settle, dispatcher } = await started([
      crawlNamed("c", { politeness: DEFAULT_POLITENESS }),
    ]);
    await add("c", ...pagesOf("a.test", 9));
    await settle();
    expect(sent).toHaveLength(1);
    expect(sent[0]?.awaitsRobots).toBe(true);
    expect(dispatcher.waitReason({ crawl: "c", host: "a.test" })).toBe("robots");
    dispatcher.learnt({ host: "a.test", crawlDelayMs: 0 });
    await settle();
    expect(sent).toHaveLength(4);
    expect(sent[1]?.awaitsRobots).toBeUndefined();
  });
});
