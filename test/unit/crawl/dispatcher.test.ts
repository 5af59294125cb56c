import { describe, expect, it } from "vitest";
import { DEFAULT_POLITENESS } from "../../../src/crawl/crawl.js";
import { Dispatcher } from "../../../src/crawl/dispatch/dispatcher.js";
import type { Task } from "../../../src/crawl/task.js";
import { fingerprint, urlId } from "../../../src/crawl/urls/url.js";
import { silentLogger } from "../../../src/lib/logger.js";
import {
  ALL_SHARDS,
  crawlNamed,
  dispatcherUnderTest,
  NO_ROBOTS,
  pagesOf,
  started,
} from "../../support/dispatcher-under-test.js";

describe("Dispatcher", () => {
  it("sends what was added, once", async () => {
    const { sent, add, settle, frontier } = await started([crawlNamed("c")]);
    await add("c", "http://a.test/1", "http://b.test/1");
    await settle();
    expect(sent.map(({ url }) => url).sort()).toEqual(["http://a.test/1", "http://b.test/1"]);
    expect(frontier.counts).toMatchObject({ queued: 0, active: 2 });
  });

  it("sends no more to a host at once than the crawl allows", async () => {
    const { sent, add, settle, end } = await started([crawlNamed("c")]);
    await add("c", ...pagesOf("a.test", 10));
    await settle();
    expect(sent).toHaveLength(4);
    await end(sent[0] as Task);
    await settle();
    expect(sent).toHaveLength(5);
  });

  it("holds back a host's next URL until its delay after the last one ended", async () => {
    const { sent, add, settle, end, advance, clock } = await started([
      crawlNamed("c", { politeness: { ...NO_ROBOTS, delayMs: 1_000 } }),
    ]);
    await add("c", ...pagesOf("a.test", 3));
    await settle();
    expect(sent).toHaveLength(1);
    await advance(5_000); // It takes five seconds: the delay does not run meanwhile.
    await end(sent[0] as Task);
    await advance(999);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
    expect(sent[1]?.sentAt).toBe(clock.now());
  });

  it("sends one at a time to a host until its robots.txt is known, then obeys its crawl delay", async () => {
    const { sent, add, settle, end, advance } = await started([
      crawlNamed("c", { politeness: DEFAULT_POLITENESS }),
    ]);
    await add("c", ...pagesOf("slow.test", 5), ...pagesOf("free.test", 5));
    await settle();
    expect(sent.map(({ host }) => host).sort()).toEqual(["free.test", "slow.test"]);
    const slow = sent.find(({ host }) => host === "slow.test") as Task;
    const free = sent.find(({ host }) => host === "free.test") as Task;
    await end(slow, { crawlDelayMs: 2_000 });
    await end(free, { crawlDelayMs: 0 });
    await settle();
    expect(sent.filter(({ host }) => host === "free.test")).toHaveLength(5);
    await advance(1_999);
    expect(sent.filter(({ host }) => host === "slow.test")).toHaveLength(1);
    await advance(1);
    expect(sent.filter(({ host }) => host === "slow.test")).toHaveLength(2);
  });

  it("counts the strictest of the crawls that share a host", async () => {
    const { sent, add, settle, advance, end } = await started([
      crawlNamed("fast"),
      crawlNamed("careful", { politeness: { ...NO_ROBOTS, delayMs: 500 } }),
    ]);
    await add("careful", ...pagesOf("a.test", 2));
    await add("fast", "http://a.test/x", "http://a.test/y");
    await settle();
    expect(sent).toHaveLength(1);
    await end(sent[0] as Task);
    await advance(499);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
  });

  it("lets no host that is slow delay another", async () => {
    const { sent, add, settle, end } = await started([crawlNamed("c")]);
    await add("c", ...pagesOf("stuck.test", 50), ...pagesOf("quick.test", 50));
    await settle();
    for (let done = 0; done < 50; done += 1) {
      const next = sent.filter(({ host }) => host === "quick.test")[done];
      if (next === undefined) throw new Error(`quick.test stopped after ${done}`);
      await end(next);
      await settle();
    }
    expect(sent.filter(({ host }) => host === "stuck.test")).toHaveLength(4);
  });

  it("waits out a host's back-off, for all crawls on it", async () => {
    const { sent, add, settle, end, advance, clock } = await started([crawlNamed("c"), crawlNamed("d")]);
    await add("c", "http://a.test/1");
    await settle();
    await add("c", "http://a.test/2");
    await end(sent[0] as Task, { backoffUntil: clock.now() + 10_000 });
    await add("d", "http://a.test/3");
    await advance(9_999);
    // The second was on its way before the host asked to be left alone.
    const before = sent.length;
    expect(sent.map(({ url }) => url)).not.toContain("http://a.test/3");
    await advance(1);
    expect(sent.length).toBeGreaterThan(before);
  });

  it("sends a retried URL at its time and not before", async () => {
    const { sent, add, settle, end, advance, clock, idle } = await started([crawlNamed("c")]);
    await add("c", "http://a.test/1");
    await settle();
    idle.length = 0;
    const readyAt = clock.now() + 4_000;
    await end(sent[0] as Task, { queuedAgain: { readyAt, host: "a.test" } });
    await advance(3_999);
    expect(sent).toHaveLength(1);
    expect(idle).toEqual([]);
    await advance(1);
    expect(sent).toHaveLength(2);
    expect(sent[1]?.attempts).toBe(1);
  });

  it("gives each crawl its turn: a short one is not behind a long one", async () => {
    const { sent, add, settle, end, dispatcher } = await started([crawlNamed("long"), crawlNamed("short")]);
    dispatcher.setWindow(10);
    await add("long", ...Array.from({ length: 500 }, (_, index) => `http://h${index}.test/`));
    await settle();
    await add("short", ...Array.from({ length: 10 }, (_, index) => `http://s${index}.test/`));
    let ended = 0;
    while (sent.filter(({ crawl }) => crawl === "short").length < 10) {
      const task = sent[ended];
      if (task === undefined) throw new Error("nothing more is sent");
      await end(task);
      ended += 1;
      await settle();
    }
    // Ten of the long one were in flight before; from then on they take turns.
    expect(sent.length).toBeLessThanOrEqual(10 + 2 * 10 + 2);
  });

  it("gives a crawl of high priority more turns", async () => {
    const { sent, add, settle, end, dispatcher } = await started([
      crawlNamed("low", { priority: 0 }),
      crawlNamed("high", { priority: 9 }),
    ]);
    dispatcher.setWindow(11);
    const many = (name: string) => Array.from({ length: 200 }, (_, index) => `http://${name}${index}.test/`);
    await add("low", ...many("l"));
    await add("high", ...many("h"));
    for (let ended = 0; ended < 100; ended += 1) {
      await settle();
      await end(sent[ended] as Task);
    }
    const low = sent.slice(11, 100).filter(({ crawl }) => crawl === "low").length;
    expect(low).toBeLessThan(15);
    expect(low).toBeGreaterThan(4);
  });

  it("keeps to the window", async () => {
    const { sent, add, settle, dispatcher } = await started([crawlNamed("c")]);
    dispatcher.setWindow(3);
    await add("c", ...Array.from({ length: 20 }, (_, index) => `http://h${index}.test/`));
    await settle();
    expect(sent).toHaveLength(3);
    dispatcher.setWindow(5);
    await settle();
    expect(sent).toHaveLength(5);
  });

  it("sends nothing for a shard it does not hold", async () => {
    const { sent, add, settle, dispatcher } = await started([crawlNamed("c")]);
    dispatcher.drop([...ALL_SHARDS.keys()]);
    await add("c", "http://a.test/1");
    await settle();
    expect(sent).toEqual([]);
    await dispatcher.hold(ALL_SHARDS);
    await settle();
    expect(sent).toHaveLength(1);
  });

  it("takes over what its forerunner has in flight before it sends anything to that host", async () => {
    const before = await started([crawlNamed("c", { politeness: { ...NO_ROBOTS, delayMs: 1_000 } })]);
    await before.add("c", ...pagesOf("a.test", 3));
    await before.settle();
    expect(before.sent).toHaveLength(1);

    const { frontier, hosts, clock } = before;
    const sent: Task[] = [];
    const after = new Dispatcher({
      id: "d2",
      frontier,
      hosts,
      clock,
      logger: silentLogger,
      tasks: {
        send: async (tasks) => {
          sent.push(...tasks);
          return [];
        },
      },
      budget: { reserve: async (_, pages) => pages },
      onIdle: () => {},
      onBudgetSpent: () => {},
    });
    after.setWindow(100);
    after.setCrawls([crawlNamed("c", { politeness: { ...NO_ROBOTS, delayMs: 1_000 } })]);
    await after.hold(new Map([...ALL_SHARDS.keys()].map((shard) => [shard, 2])));
    await before.advance(60_000);
    expect(sent).toEqual([]);

    const first = before.sent[0] as Task;
    await frontier.commit([
      { id: first.id, crawl: "c", token: first.token, attempts: 1, state: "done", items: 0, files: 0 },
    ]);
    after.ended({ id: first.id, crawl: "c", host: "a.test", token: first.token, endedAt: clock.now() });
    await before.advance(1_000);
    expect(sent).toHaveLength(1);
    expect(sent[0]?.epoch).toBe(2);
  });

  it("does not send over and over what is refused", async () => {
    const { state, add, settle, advance } = await started([crawlNamed("c1")]);
    state.refuse = true;
    await add("c1", "http://a.test/1", "http://b.test/2");
    await settle();
    const before = state.attempts;

    await settle();
    expect(state.attempts).toBe(before);
    await advance(1_000);

    expect(state.attempts).toBeGreaterThan(before);
    expect(state.attempts).toBeLessThanOrEqual(3 * before);
  });

  it("takes back what could not be sent, and sends it later", async () => {
    const { sent, add, advance, state, frontier } = await started([crawlNamed("c")]);
    state.refuse = true;
    await add("c", "http://a.test/1");
    await new Promise((resolve) => setImmediate(resolve));
    state.refuse = false;
    await advance(1_000);
    expect(sent).toHaveLength(1);
    expect(frontier.counts).toMatchObject({ queued: 0, active: 1 });
  });

  it("finds out about an end whose report was lost", async () => {
    const { sent, add, settle, frontier, dispatcher, advance, idle } = await started([crawlNamed("c")]);
    await add("c", "http://a.test/1");
    await settle();
    const { id, token } = sent[0] as Task;
    await frontier.commit([{ id, crawl: "c", token, attempts: 1, state: "done", items: 0, files: 0 }]);
    await advance(5_000);
    expect(dispatcher.inFlight).toBe(1);
    await dispatcher.reconcile();
    expect(dispatcher.inFlight).toBe(0);
    await settle();
    expect(idle).toContain("c");
  });

  it("dispatches again what nobody reported in its time", async () => {
    const { sent, add, settle, dispatcher, advance } = await started([crawlNamed("c")], {
      startWithinMs: 1_000,
      endWithinMs: 2_000,
    });
    await add("c", "http://a.test/1");
    await settle();
    await advance(2_999);
    await dispatcher.reconcile();
    await settle();
    expect(sent).toHaveLength(1);
    await advance(1);
    await dispatcher.reconcile();
    await settle();
    expect(sent).toHaveLength(2);
    expect(sent[1]?.token).not.toBe(sent[0]?.token);
  });

  it("dispatches again what nobody has, but only when that was seen twice in a row", async () => {
    const { sent, add, settle, dispatcher, advance, state } = await started([crawlNamed("c")]);
    await add("c", "http://a.test/1");
    await settle();
    await advance(2_000);
    const { id } = sent[0] as Task;

    state.located = new Set();
    await dispatcher.reconcile();
    state.located = new Set([id]);
    await dispatcher.reconcile();
    state.located = new Set();
    await dispatcher.reconcile();
    state.located = undefined; // Nobody can tell: that is not a second time.
    await dispatcher.reconcile();
    state.located = new Set();
    await dispatcher.reconcile();
    await settle();
    expect(sent).toHaveLength(1);

    await dispatcher.reconcile();
    await settle();
    expect(sent).toHaveLength(2);
  });

  it("finds queued URLs that nobody spoke of", async () => {
    const { sent, settle, dispatcher, frontier } = await started([crawlNamed("c")]);
    const id = urlId("c", fingerprint("http://a.test/"));
    await frontier.add([
      { id, crawl: "c", url: "http://a.test/", host: "a.test", kind: "page", depth: 0, priority: 5 },
    ]);
    await settle();
    expect(sent).toEqual([]);
    await dispatcher.reconcile();
    await settle();
    expect(sent).toHaveLength(1);
  });

  it("never dispatches more pages than the budget gives", async () => {
    const { sent, add, settle, state, spent, dispatcher } = await started([
      crawlNamed("c", { limits: { maxPages: 7 } }),
    ]);
    state.budget = 7;
    await add("c", ...Array.from({ length: 30 }, (_, index) => `http://h${index}.test/`));
    await settle();
    expect(sent).toHaveLength(7);
    expect(spent).toContain("c");
    state.budget = 2;
    dispatcher.budgetReturned("c");
    await settle();
    expect(sent).toHaveLength(9);
  });

  it("stops sending for a crawl that is no longer running, and goes on when it is again", async () => {
    const { sent, add, settle, dispatcher, end } = await started([crawlNamed("c")]);
    await add("c", ...pagesOf("a.test", 10));
    await settle();
    dispatcher.setCrawls([]);
    for (const task of sent.slice(0, 4)) await end(task);
    await settle();
    expect(sent).toHaveLength(4);
    dispatcher.setCrawls([crawlNamed("c", { generation: 2 })]);
    await settle();
    expect(sent).toHaveLength(8);
    expect(sent[7]?.generation).toBe(2);
  });

  it("tells when nothing of a crawl waits or runs any more", async () => {
    const { sent, add, settle, idle, end } = await started([crawlNamed("c")]);
    await add("c", "http://a.test/1");
    await settle();
    idle.length = 0;
    await end(sent[0] as Task);
    await settle();
    expect(idle).toContain("c");
  });

  it("says why a URL waits", async () => {
    const { add, settle, sent, end, dispatcher } = await started([
      crawlNamed("c", { politeness: { ...NO_ROBOTS, delayMs: 1_000 } }),
    ]);
    await add("c", ...pagesOf("a.test", 3));
    await settle();
    expect(dispatcher.waitReason({ crawl: "c", host: "a.test" })).toBe("host busy");
    await end(sent[0] as Task);
    expect(dispatcher.waitReason({ crawl: "c", host: "a.test" })).toMatch(/^host delay until /);
  });
});

describe("Dispatcher with several crews", () => {
  const EXTERNAL = crawlNamed("theirs", { spider: "external-a" });

  it("sends an external spider's URLs as far as its own crew has room, whatever room others have", async () => {
    const { sent, add, settle, end, dispatcher } = await started([EXTERNAL, crawlNamed("ours")]);
    await add("theirs", ...["a", "b", "c", "d", "e"].map((host) => `http://${host}.test/1`));
    await add("ours", "http://f.test/1", "http://a.test/2");
    await settle();
    expect(sent.map(({ crawl }) => crawl)).toEqual(["ours", "ours"]);
    expect(dispatcher.waitReason({ crawl: "theirs", host: "a.test" })).toBe("no worker");

    dispatcher.setWindow(2, "external-a");
    await settle();
    const theirs = sent.filter(({ crawl }) => crawl === "theirs");
    expect(theirs).toHaveLength(2);
    expect(dispatcher.waitReason({ crawl: "theirs", host: "e.test" })).toBe("all workers busy");
    const [first] = theirs;
    if (first !== undefined) await end(first);
    await settle();
    expect(sent.filter(({ crawl }) => crawl === "theirs")).toHaveLength(3);
  });

  it("gives our own workers nothing while they have no room, though another crew has", async () => {
    const { sent, add, settle, dispatcher } = await started([EXTERNAL, crawlNamed("ours")]);
    dispatcher.setWindow(0);
    dispatcher.setWindow(10, "external-a");
    await add("ours", ...pagesOf("a.test", 3));
    await add("theirs", ...pagesOf("a.test", 3));
    await settle();
    expect(new Set(sent.map(({ crawl }) => crawl))).toEqual(new Set(["theirs"]));
    expect(sent).toHaveLength(3);
  });

  it("passes over the URLs of a crawl that wait for another crew", async () => {
    const { sent, add, addFor, settle, dispatcher } = await started([crawlNamed("inbox")]);
    await addFor("external-a", "inbox", ...pagesOf("a.test", 3));
    await add("inbox", "http://a.test/ours");
    await settle();
    expect(sent.map(({ url }) => url)).toEqual(["http://a.test/ours"]);

    dispatcher.setWindow(1, "external-a");
    await settle();
    expect(sent).toHaveLength(2);
    expect(sent[1]?.request?.spider).toBe("external-a");
  });

  it("keeps one place in a host's lane for each task of either crew", async () => {
    const politeness = { ...NO_ROBOTS, delayMs: 1_000 };
    const crawls = [
      crawlNamed("theirs", { spider: "external-a", politeness }),
      crawlNamed("ours", { politeness }),
    ];
    const { sent, add, settle, end, advance, dispatcher } = await started(crawls);
    dispatcher.setWindow(10, "external-a");
    await add("theirs", "http://a.test/1");
    await add("ours", "http://a.test/2");
    await settle();
    expect(sent).toHaveLength(1);
    const [first] = sent;
    if (first !== undefined) await end(first);
    await advance(999);
    expect(sent).toHaveLength(1);
    await advance(1);
    expect(sent).toHaveLength(2);
  });

  it("waits for an external spider's task until its deadline: nobody can be asked who has it", async () => {
    const { sent, add, settle, advance, state, dispatcher } = await started([EXTERNAL, crawlNamed("ours")]);
    dispatcher.setWindow(10, "external-a");
    await add("theirs", "http://a.test/1");
    await add("ours", "http://b.test/1");
    await settle();
    state.located = new Set();
    for (let looks = 0; looks < 3; looks += 1) {
      await advance(2_000);
      await dispatcher.reconcile();
      await settle();
    }
    expect(sent.filter(({ crawl }) => crawl === "ours").length).toBeGreaterThan(1);
    expect(sent.filter(({ crawl }) => crawl === "theirs")).toHaveLength(1);
    await advance(210_000);
    await dispatcher.reconcile();
    await settle();
    expect(sent.filter(({ crawl }) => crawl === "theirs")).toHaveLength(2);
  });

  it("knows the crew of a former holder's dispatches, and counts them", async () => {
    const before = await started([EXTERNAL]);
    before.dispatcher.setWindow(2, "external-a");
    await before.add("theirs", ...["a", "b", "c"].map((host) => `http://${host}.test/1`));
    await before.settle();
    expect(before.sent).toHaveLength(2);

    const { dispatcher, sent, settle } = dispatcherUnderTest({}, { frontier: before.frontier });
    dispatcher.setWindow(2, "external-a");
    dispatcher.setCrawls([EXTERNAL]);
    await dispatcher.hold(ALL_SHARDS);
    await settle();
    expect(sent).toHaveLength(0);
    expect(dispatcher.inFlight).toBe(2);
  });

  it("lets a lane have more in flight once its robots.txt is known", async () => {
    const politeness = { ...DEFAULT_POLITENESS, obeyRobots: true };
    const { sent, add, settle, dispatcher } = await started([
      crawlNamed("theirs", { spider: "external-a", politeness }),
    ]);
    dispatcher.setWindow(10, "external-a");
    await add("theirs", ...pagesOf("a.test", 9));
    await settle();
    expect(sent).toHaveLength(1);

    dispatcher.learnt({ host: "a.test", crawlDelayMs: 0 });
    await settle();
    expect(sent).toHaveLength(4);
  });
});
