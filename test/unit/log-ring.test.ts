import { describe, expect, it } from "vitest";
import { ManualClock } from "../../src/lib/clock.js";
import { LogRing } from "../../src/lib/log-ring.js";
import { createLogger } from "../../src/lib/logger.js";
import { LogEvents } from "../../src/worker/log-events.js";

function ringOf(count: number, size = 10): LogRing {
  const ring = new LogRing(size);
  for (let line = 1; line <= count; line += 1) {
    ring.write(JSON.stringify({ level: "info", msg: `line ${line}` }));
  }
  return ring;
}

const seqs = (found: { readonly lines: readonly { readonly seq: number }[] }) =>
  found.lines.map(({ seq }) => seq);

describe("the newest lines of a log", () => {
  it("are read oldest first, and numbered from the first line that there was", () => {
    const ring = ringOf(25);
    expect(seqs(ring.read({ lines: 3 }))).toEqual([23, 24, 25]);
    expect(seqs(ring.read({ lines: 100 }))).toEqual([16, 17, 18, 19, 20, 21, 22, 23, 24, 25]);
    expect(ring.read({ lines: 1 }).lines).toEqual([{ level: "info", msg: "line 25", seq: 25 }]);
  });

  it("are read on from where someone has read to, without a gap or a line twice", () => {
    const ring = ringOf(9);
    const first = ring.read({ lines: 4, after: 0 });
    const second = ring.read({ lines: 4, after: first.next });
    const third = ring.read({ lines: 4, after: second.next });
    expect([...seqs(first), ...seqs(second), ...seqs(third)]).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9]);
    expect(ring.read({ lines: 4, after: third.next })).toEqual({ lines: [], next: 9 });
  });

  it("show by their numbers what has been overwritten meanwhile", () => {
    expect(seqs(ringOf(25).read({ lines: 2, after: 3 }))).toEqual([16, 17]);
  });

  it("are shortened when they are long, and still are JSON", () => {
    const ring = new LogRing(2);
    ring.write(JSON.stringify({ level: "warn", time: "now", msg: "x".repeat(100_000) }));
    const [line] = ring.read({ lines: 1 }).lines;
    expect(line).toMatchObject({ level: "warn", time: "now", seq: 1 });
    expect(String(line?.msg).length).toBeLessThan(10_000);
  });

  it("come from the logger at whatever level that has at the time", () => {
    const ring = new LogRing(10);
    const logger = createLogger({ level: "info", destination: { write: () => {} }, ring });
    logger.debug("unheard");
    logger.level = "debug";
    logger.debug({ crawl: "c" }, "heard");
    expect(ring.read({ lines: 9 }).lines).toMatchObject([
      { level: "debug", msg: "heard", crawl: "c", seq: 1 },
    ]);
  });
});

describe("log lines as events", () => {
  it("are told from info on, a bounded number a second, and say how many were left out", () => {
    const clock = new ManualClock(0);
    const ring = new LogRing(10);
    const logger = createLogger({
      level: "debug",
      destination: { write: () => {} },
      ring,
      base: { role: "x" },
    });
    const told: unknown[] = [];
    const events = { publish: (_key: string, some: readonly unknown[]) => void told.push(...some) };
    const telling = new LogEvents({ log: ring, events, node: "n1", clock });
    telling.begin();
    logger.debug("quiet");
    logger.warn({ crawl: "c", code: 7 }, "loud");
    expect(told).toMatchObject([
      { type: "log.warn", at: expect.any(String), node: "n1", crawl: "c", data: { msg: "loud", code: 7 } },
    ]);
    for (let line = 0; line < 100; line += 1) logger.info("again");
    expect(told).toHaveLength(50);
    clock.advance(1_000);
    logger.error("later");
    expect(told.at(-1)).toMatchObject({ type: "log.error", data: { msg: "later", dropped: 51 } });
    telling.end();
    logger.error("unheard");
    expect(told).toHaveLength(51);
  });
});
