import { describe, expect, it } from "vitest";
import { CronPattern, isTimezone } from "../../src/master/cron.js";
import { dueTicks } from "../../src/master/due-ticks.js";

const at = (text: string) => Date.parse(text);
const next = (pattern: string, zone: string, from: string, count = 3) =>
  new CronPattern(pattern, zone).next(count, at(from)).map((instant) => new Date(instant).toISOString());

describe("a cron pattern", () => {
  it.each([
    ["15 3 * * *", "2026-01-01T03:15:00.000Z"],
    ["30 15 3 * * *", "2026-01-01T03:15:30.000Z"],
    ["@daily", "2026-01-02T00:00:00.000Z"],
    ["  */20   * * * * ", "2026-01-01T00:20:00.000Z"],
    ["0 9 * * MON-FRI", "2026-01-01T09:00:00.000Z"],
    ["0 0 L * *", "2026-01-31T00:00:00.000Z"],
    ["0 0 29 2 *", "2028-02-29T00:00:00.000Z"],
  ])("has five fields, six, or a nickname: %s", (pattern, expected) => {
    expect(next(pattern, "UTC", "2026-01-01T00:00:00Z", 1)).toEqual([expected]);
  });

  it.each([
    "",
    "* * *",
    "* * * * * * *",
    "60 * * * *",
    "2026-11-12T00:00:00",
    "@reboot",
    "@often",
    "a b c d e",
  ])("is refused: %j", (pattern) => {
    expect(() => new CronPattern(pattern, "UTC")).toThrow(/must have 5 fields|is not a cron pattern/);
  });

  it("never comes when its day does not exist", () => {
    expect(new CronPattern("0 0 30 2 *", "UTC").after(at("2026-01-01T00:00:00Z"))).toBeUndefined();
  });

  it("is read in its time zone", () => {
    expect(next("0 9 * * *", "Asia/Tokyo", "2026-05-01T12:00:00Z", 1)).toEqual(["2026-05-02T00:00:00.000Z"]);
    expect(next("0 9 * * *", "America/New_York", "2026-05-01T20:00:00Z", 1)).toEqual([
      "2026-05-02T13:00:00.000Z",
    ]);
  });

  it("comes after the gap, once, when clocks skip its time of day", () => {
    // On 29 March 2026, 02:00 becomes 03:00 in Berlin: 02:30 does not exist.
    expect(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z")).toEqual([
      "2026-03-29T01:00:00.000Z",
      "2026-03-30T00:30:00.000Z",
      "2026-03-31T00:30:00.000Z",
    ]);
  });

  it("comes once, at the first of the two, when its time of day comes twice", () => {
    // On 25 October 2026, 03:00 becomes 02:00 in Berlin: 02:30 is at 00:30 and 01:30 UTC.
    expect(next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z")).toEqual([
      "2026-10-25T00:30:00.000Z",
      "2026-10-26T01:30:00.000Z",
      "2026-10-27T01:30:00.000Z",
    ]);
  });

  it("goes on steadily through both when it is one of intervals", () => {
    const spring = new CronPattern("*/30 * * * *", "Europe/Berlin").next(200, at("2026-03-28T00:00:00Z"));
    const autumn = new CronPattern("*/30 * * * *", "Europe/Berlin").next(200, at("2026-10-24T00:00:00Z"));
    for (const instants of [spring, autumn]) {
      const gaps = new Set(instants.slice(1).map((instant, index) => instant - (instants[index] ?? 0)));
      expect([...gaps]).toEqual([1_800_000]);
    }
  });

  it("gives each instant once, whatever instant of a repeated hour it is asked from", () => {
    const cron = new CronPattern("15 1-3 * * *", "Europe/Berlin");
    for (let from = at("2026-10-24T22:00:00Z"); from < at("2026-10-25T06:00:00Z"); from += 60_000) {
      expect(cron.after(from)).toBeGreaterThan(from);
    }
    expect(
      cron.next(4, at("2026-10-24T22:00:00Z")).map((instant) => new Date(instant).toISOString()),
    ).toEqual([
      "2026-10-24T23:15:00.000Z",
      "2026-10-25T00:15:00.000Z",
      "2026-10-25T01:15:00.000Z",
      "2026-10-25T02:15:00.000Z",
    ]);
  });

  it("tells how often it comes at most", () => {
    const of = (pattern: string) =>
      new CronPattern(pattern, "UTC").shortestInterval(at("2026-01-01T00:00:00Z"));
    expect(of("* * * * * *")).toBe(1_000);
    expect(of("*/5 * * * *")).toBe(300_000);
    expect(of("0,1 0 * * *")).toBe(60_000);
    expect(of("0 0 30 2 *")).toBeUndefined();
  });

  it("takes names of time zones only", () => {
    expect(["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"].every(isTimezone)).toBe(true);
    expect(["", "+02:00", "Nowhere/City", "Europe/Berlin\n", "x".repeat(100)].some(isTimezone)).toBe(false);
  });
});

describe("due ticks", () => {
  const everySecond = new CronPattern("* * * * * *", "UTC");
  const start = at("2026-01-01T00:00:00Z");
  const schedule = { id: "s", nextAt: start, missed: "last", maxMissed: 3 } as const;
  const seconds = (ticks: readonly { readonly at: number }[]) =>
    ticks.map((tick) => (tick.at - start) / 1_000);

  it("are none before their time", () => {
    expect(dueTicks(schedule, everySecond, start - 1, 60_000)).toBeUndefined();
  });

  it("have the instant in their ids, so that whoever finds them finds the same", () => {
    const due = dueTicks(schedule, everySecond, start + 300, 60_000);
    expect(due?.ticks.map(({ id }) => id)).toEqual(["s:2026-01-01T00:00:00.000Z"]);
    expect(due?.nextAt).toBe(start + 1_000);
  });

  it("are all of those that are late by less than counts as missed", () => {
    const due = dueTicks(schedule, everySecond, start + 4_200, 60_000);
    expect(seconds(due?.ticks ?? [])).toEqual([0, 1, 2, 3, 4]);
    expect(due).toMatchObject({ firedAt: start + 4_000, nextAt: start + 5_000 });
  });

  it("are taken in turns when they are very many, and none is left out", () => {
    const seen: number[] = [];
    for (let nextAt: number | undefined = start; nextAt !== undefined && nextAt <= start + 250_000; ) {
      const due = dueTicks({ ...schedule, nextAt }, everySecond, start + 250_000, 300_000);
      seen.push(...seconds(due?.ticks ?? []));
      nextAt = due?.nextAt;
    }
    expect(seen).toEqual(Array.from({ length: 251 }, (_, index) => index));
  });

  it.each([
    ["skip", []],
    ["last", [39]],
    ["all", [37, 38, 39]],
  ] as const)("of a long absence are as the schedule wants it: %s", (missed, made) => {
    const due = dueTicks({ ...schedule, missed }, everySecond, start + 100_000, 60_000);
    const open = due?.ticks.filter(({ skipped }) => skipped === undefined) ?? [];
    expect(seconds(open)).toEqual(made);
    const skipped = due?.ticks.filter((tick) => tick.skipped === "missed") ?? [];
    expect(skipped).toHaveLength(10);
    // The rest is in time, and due at the next look.
    expect(due?.nextAt).toBe(start + 40_000);
  });

  it("of a year's absence are found at once", () => {
    const due = dueTicks(
      { ...schedule, missed: "all", maxMissed: 1_000 },
      everySecond,
      start + 365 * 86_400_000,
      60_000,
    );
    expect(due?.ticks.length).toBe(1_010);
    expect(due?.nextAt).toBe(start + 365 * 86_400_000 - 60_000);
  });

  it("are never before the first that is due", () => {
    const hourly = new CronPattern("@hourly", "UTC");
    const due = dueTicks({ ...schedule, missed: "all" }, hourly, start + 3_700_000, 60_000);
    expect(seconds(due?.ticks ?? [])).toEqual([0, 3_600]);
    expect(due?.nextAt).toBe(start + 7_200_000);
  });
});
