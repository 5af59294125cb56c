import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { Bus, type BusEvent } from "../../src/bus/index.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import { CALLS, EVENTS, type WarrenBus } from "../../src/protocol/index.js";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { startWildSite, type WildSite } from "../support/wild-site.js";

describe("a node that is called", () => {
  const cluster = new Cluster();
  let master: Master;
  let bus: WarrenBus;
  let site: WildSite | undefined;
  const everything: BusEvent[] = [];

  beforeAll(async () => {
    master = await cluster.master();
    await Promise.all([cluster.worker("w1"), cluster.worker("w2")]);
    bus = new Bus(
      {
        urls: [cluster.amqpUrl],
        namespace: cluster.namespace,
        identity: { role: "tool", id: "caller", version: "0" },
      },
      { logger: silentLogger, clock: systemClock, tables: CALLS },
    );
    await bus.start();
    await bus.events.subscribe(["#"], (events) => void everything.push(...events));
    await until("both nodes are known", async () => {
      const { body } = await api(master).call("GET", "/api/v1/nodes");
      return (body as { items: unknown[] }).items.length === 2;
    });
  });
  afterEach(async () => {
    await site?.close();
    site = undefined;
  });
  afterAll(async () => {
    await bus.stop();
    await cluster.stop();
  });

  it.each(["cpu", "heap"] as const)("gives a profile of its %s, in parts", async (kind) => {
    let text = "";
    for await (const part of bus.calls.streamNode("w1", "get-profile", { kind, seconds: 0.2 })) text += part;
    const profile = JSON.parse(text);
    if (kind === "cpu") expect(profile.nodes.length).toBeGreaterThan(0);
    else expect(profile.head.callFrame).toBeDefined();
  });

  it("gives its profile over HTTP as well, as a file", async () => {
    const response = await fetch(`${master.url}/api/v1/nodes/w2/profile?kind=cpu&seconds=1`);
    expect(response.headers.get("content-disposition")).toBe('attachment; filename="w2.cpuprofile"');
    expect(Object.keys((await response.json()) as object)).toContain("timeDeltas");
    const wrong = await fetch(`${master.url}/api/v1/nodes/w2/profile?kind=disk`);
    expect(await wrong.json()).toMatchObject({ status: 400, detail: expect.stringContaining("kind") });
  });

  it("makes one profile at a time, and is free again when whoever asked leaves", async () => {
    const leaving = new AbortController();
    const long = bus.calls.streamNode(
      "w1",
      "get-profile",
      { kind: "cpu", seconds: 300 },
      { signal: leaving.signal },
    );
    const left = expect(long.next()).rejects.toMatchObject({ code: "cancelled" });
    const ask = () => bus.calls.streamNode("w1", "get-profile", { kind: "heap", seconds: 0.1 }).next();
    await until("the other is refused", async () => {
      const refusal = await ask().then(
        () => undefined,
        (error: { code: string }) => error.code,
      );
      return refusal === "conflict";
    });
    leaving.abort();
    await left;
    await until("another is made", async () => (await ask()).done === false);
  });

  it("gives its log: the newest lines, those of a crawl, and those that came since", async () => {
    const { lines, next } = await bus.calls.callNode("w1", "get-log", { lines: 50 });
    expect(lines.map(({ msg }) => msg)).toContain("ready");
    expect(lines.map(({ seq }) => seq)).toEqual(lines.map((_, index) => (lines[0]?.seq ?? 0) + index));
    await bus.calls.callNode("w1", "set-config", { logLevel: "info" });
    const since = await bus.calls.callNode("w1", "get-log", { after: next });
    expect(since.lines.every(({ seq }) => seq > next)).toBe(true);
    expect((await bus.calls.callNode("w1", "get-log", { crawl: "none" })).lines).toEqual([]);
    const overHttp = await fetch(`${master.url}/api/v1/nodes/w1/log?lines=1`);
    expect(JSON.parse((await overHttp.text()).trim())).toMatchObject({ level: expect.any(String) });
  });

  it("says what it stopped of a crawl that was closed; one that is frozen is named", async () => {
    site = await startWildSite({ pages: 60, linksPerPage: 60, pageDelayMs: 60_000 });
    const politeness = { maxConcurrencyPerHost: 12, obeyRobots: false };
    const seeds = Array.from({ length: 30 }, (_, page) => `${site?.origin}/site/${page}`);
    const { id } = await api(master).createCrawl({ spider: "links", seeds, politeness });
    await until("the fetches are under way", async () => site?.maxInFlight() === 12);
    const closed = await api(master).call("POST", `/api/v1/crawls/${id}/close`);
    const { status, counts, cancelled } = closed.body as {
      status: string;
      counts: { active: number };
      cancelled: { nodes: { node: string; aborted: number }[]; silent: string[] };
    };
    expect({ status, active: counts.active, silent: cancelled.silent }).toEqual({
      ...{ status: "closed", active: 0, silent: [] },
    });
    expect(cancelled.nodes.map(({ node }) => node).sort()).toEqual(["w1", "w2"]);
    expect(cancelled.nodes.reduce((sum, { aborted }) => sum + aborted, 0)).toBe(12);

    const frozen = cluster.members.find(({ name }) => name === "w2");
    frozen?.process.kill("SIGSTOP");
    try {
      const again = await api(master).createCrawl({ spider: "links", seeds: [`${site.origin}/site/1`] });
      const { cancelled: second } = (await bus.calls.callMaster("close-crawl", {
        crawl: again.id,
      })) as never as {
        cancelled: { nodes: { node: string }[]; silent: string[] };
      };
      expect(second.nodes.map(({ node }) => node)).toEqual(["w1"]);
      expect(second.silent).toEqual(["w2"]);
    } finally {
      frozen?.process.kill("SIGCONT");
    }
  });

  it("says which version of a spider it has", async () => {
    expect(await bus.calls.callNode("w1", "sync-spider", { spider: "pdf" })).toMatchObject({ spider: "pdf" });
    await expect(bus.calls.callNode("w1", "sync-spider", { spider: "none" })).rejects.toMatchObject({
      code: "not-found",
    });
  });

  it("tells how far a long download has come", async () => {
    site = await startWildSite();
    let release: () => void = () => {};
    site.page("/long.pdf", (_request, response) => {
      response.writeHead(200, { "content-type": "application/pdf" });
      response.write("%PDF-1.4\n");
      const drip = setInterval(() => response.write("x".repeat(1_000)), 100);
      release = () => {
        clearInterval(drip);
        response.end();
      };
    });
    const told: { type: string; data: Record<string, unknown> }[] = [];
    const stop = await bus.events.subscribe(["task.progress"], (events) => void told.push(...events));
    const { id } = await api(master).createCrawl({ spider: "pdf", seeds: [`${site.origin}/long.pdf`] });
    await until("it was told twice", async () => told.length >= 2);
    release();
    const sizes = told.map(({ data }) => Number(data.bytes));
    expect(told[0]).toMatchObject({ data: { url: `${site.origin}/long.pdf` } });
    expect(sizes[1]).toBeGreaterThan(sizes[0] ?? Number.POSITIVE_INFINITY);
    expect((await api(master).crawlOnce(id, "finished")).counts.files).toBe(1);
    await stop();
  });

  it("or a master can be read about in the AsyncAPI document, under the names of this cluster", async () => {
    const document = (await (await fetch(`${master.url}/asyncapi.json`)).json()) as {
      channels: Record<string, { address: string }>;
    };
    expect(document.channels.masterCalls?.address).toBe(`${cluster.namespace}.master`);
  });

  it("is told of by events that are all in the table, and as it says", async () => {
    const { id } = await api(master).createCrawl({ spider: "links", seeds: ["http://192.0.2.1/"] });
    await api(master).crawlOnce(id, "finished");
    await until("its end was told", async () => everything.some(({ type }) => type === "crawl.finished"));
    const faults = everything.flatMap(({ type, data }) => {
      const parsed = EVENTS[type]?.data.safeParse(data);
      return parsed?.success === true ? [] : [`${type}: ${parsed?.error.message ?? "is not in the table"}`];
    });
    expect(faults).toEqual([]);
    expect(new Set(everything.map(({ type }) => type)).size).toBeGreaterThan(8);
  });

  it("or a master can be read about: once for each message, kept and told as an event", async () => {
    const told: unknown[] = [];
    const stop = await bus.events.subscribe(["notification.*"], (events) => told.push(...events));
    await bus.calls.callMaster("send-notification", { level: "warn", title: "Disk full", text: "of w1" });
    await until("it was told", async () => told.length > 0);
    expect(told).toMatchObject([{ type: "notification.warn", data: { title: "Disk full", text: "of w1" } }]);
    const { body } = await api(master).call("GET", "/api/v1/notifications");
    expect((body as { items: unknown[] }).items).toMatchObject([{ level: "warn", title: "Disk full" }]);
    await expect(
      bus.calls.callMaster("send-notification", { level: "loud" as "warn", title: "x" }),
    ).rejects.toMatchObject({ code: "invalid", message: expect.stringContaining("level: ") });
    await stop();
  });
});
