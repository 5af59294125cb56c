import { describe, expect, it } from "vitest";
import { TaskRound } from "../../../src/crawl/dispatch/task-round.js";

function roundOf(...names: string[]) {
  const round = new TaskRound<{ task: { crawl: string }; name: string }>();
  for (const name of names) round.push({ task: { crawl: name.charAt(0) }, name });
  return round;
}

function drained(round: ReturnType<typeof roundOf>): string[] {
  const names: string[] = [];
  for (let next = round.shift(); next !== undefined; next = round.shift()) names.push(next.name);
  return names;
}

describe("TaskRound", () => {
  it("lets crawls take turns, each in its own order", () => {
    expect(drained(roundOf("a1", "a2", "a3", "a4", "b1", "c1", "c2"))).toEqual([
      "a1",
      "b1",
      "c1",
      "a2",
      "c2",
      "a3",
      "a4",
    ]);
  });

  it("gives a crawl that comes late its turn after one of each that waits", () => {
    const round = roundOf("a1", "a2", "a3");
    expect(round.shift()?.name).toBe("a1");
    round.push({ task: { crawl: "b" }, name: "b1" });
    expect(drained(round)).toEqual(["a2", "b1", "a3"]);
    expect(round.size).toBe(0);
  });

  it("takes out what is meant and leaves the rest in order", () => {
    const round = roundOf("a1", "b1", "a2", "b2", "a3");
    expect(round.remove(({ name }) => name !== "a1" && name !== "b2").map(({ name }) => name)).toEqual([
      "a2",
      "a3",
      "b1",
    ]);
    expect(round.size).toBe(2);
    expect(drained(round)).toEqual(["a1", "b2"]);
    expect(round.remove(() => true)).toEqual([]);
  });
});
