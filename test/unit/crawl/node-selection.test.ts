import { describe, expect, it } from "vitest";
import { nodeSelection, placeOf, takesPart } from "../../../src/crawl/node-selection.js";

const NODE = { id: "w1", labels: { zone: "eu", disk: "ssd" } };

describe("a selection of nodes", () => {
  it.each([
    [{ mode: "any", ids: [] }, true],
    [{ mode: "all", ids: ["other"] }, true],
    [{ mode: "selected", ids: ["w1"] }, true],
    [{ mode: "selected", ids: ["w2"] }, false],
    [{ mode: "selected", ids: ["w2"], labels: { zone: "eu" } }, true],
    [{ mode: "selected", ids: [], labels: { zone: "eu", disk: "ssd" } }, true],
    [{ mode: "selected", ids: [], labels: { zone: "eu", disk: "hdd" } }, false],
    [{ mode: "selected", ids: [], labels: { gpu: "" } }, false],
    [{ mode: "selected", ids: [], labels: {} }, false],
  ] as const)("%j takes in the node: %s", (selection, isIn) => {
    expect(takesPart(selection, NODE)).toBe(isIn);
  });

  it("has the same name however it is written, and another for other nodes", () => {
    const place = placeOf({ mode: "selected", ids: ["a", "b"], labels: { x: "1", y: "2" } });
    expect(placeOf({ mode: "selected", ids: ["b", "a", "b"], labels: { y: "2", x: "1" } })).toBe(place);
    expect(placeOf({ mode: "selected", ids: ["a"], labels: { x: "1", y: "2" } })).not.toBe(place);
    expect(placeOf({ mode: "selected", ids: ["a", "b"] })).not.toBe(place);
    expect(place).toMatch(/^[0-9a-f]{16}$/);
  });

  it("of any node has no name", () => {
    expect(placeOf(undefined)).toBeUndefined();
    expect(placeOf({ mode: "any", ids: ["a"] })).toBeUndefined();
    expect(placeOf({ mode: "all", ids: [] })).toBeUndefined();
  });

  it.each([
    [{ mode: "selected" }, "ids"],
    [{ mode: "selected", labels: {} }, "ids"],
    [{ mode: "some" }, "mode"],
    [{ mode: "selected", ids: [""] }, "ids.0"],
    [{ mode: "selected", ids: ["a"], labels: { "bad name": "x" } }, "labels.bad name"],
    [{ mode: "any", nodes: [] }, ""],
  ])("%j is refused by the name of %s", (given, member) => {
    const parsed = nodeSelection.safeParse(given);
    expect(parsed.error?.issues.map(({ path }) => path.join("."))).toContain(member);
  });
});
