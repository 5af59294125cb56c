import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { calendarDateOf, ordinalOf } from "../../../src/crawl/urls/calendar-date.js";

describe("the date that a path and query name", () => {
  it.each<[string, [number, number, number] | undefined]>([
    ["/2026/05/12/title", [2026, 5, 12]],
    ["/cal/2026/5/", [2026, 5, 1]],
    ["/cal/2026-05-12", [2026, 5, 12]],
    ["/cal?date=2026-05", [2026, 5, 1]],
    ["/cal/20260512", [2026, 5, 12]],
    ["/cal/202605", [2026, 5, 1]],
    ["/a2026.05b", [2026, 5, 1]],
    ["/cal/12-05-2026", [2026, 5, 12]],
    ["/cal/05/28/2026", [2026, 5, 28]],
    ["/cal/05-2026", [2026, 5, 1]],
    ["/cal/2026-W05", [2026, 1, 1]],
    ["/cal/2026w53", [2026, 12, 1]],
    ["/cal?year=2026&month=5&day=12", [2026, 5, 12]],
    ["/cal?month=5&year=2026", [2026, 5, 1]],
    ["/cal?y=2026", [2026, 1, 1]],
    ["/cal?time=1778544000", [2026, 5, 12]],
    ["/cal?cal=1778544000000&x", [2026, 5, 12]],
    ["/cal/2026", undefined],
    ["/cal?id=2026", undefined],
    ["/cal/12026/05", undefined],
    ["/cal/2026-13", undefined],
    ["/post/4711/05", undefined],
    ["/cal?year=2026&month=13", undefined],
    ["/cal?year=x&month=2026", undefined],
    ["/", undefined],
  ])("%j: %j", (target, expected) => {
    const date = calendarDateOf(target);
    expect(date && [date.year, date.month, date.day]).toEqual(expected);
  });

  it("is found, or none, in whatever text, and grows as dates do", () => {
    const text = fc.array(fc.constantFrom(..."0129-/._?&=wW", "year", "2026", "05"), { maxLength: 20 });
    fc.assert(
      fc.property(text, (parts) => {
        const date = calendarDateOf(`/${parts.join("")}`);
        if (date === undefined) return;
        expect(ordinalOf({ ...date, year: date.year + 1 })).toBeGreaterThan(ordinalOf(date));
        expect(date.month).toBeGreaterThanOrEqual(1);
        expect(date.month).toBeLessThanOrEqual(12);
      }),
    );
  });
});
