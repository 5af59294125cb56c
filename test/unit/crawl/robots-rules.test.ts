import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { compileRules, type RobotsRule } from "../../../src/crawl/robots/robots-rules.js";

/** RFC 9309, 2.2.2 and 2.2.3, in the plainest way, for texts that need no encoding. */
function plainVerdict(rules: readonly RobotsRule[], target: string): boolean {
  const matching = rules.filter(({ pattern }) => {
    const isWhole = pattern.endsWith("$");
    const source = (isWhole ? pattern.slice(0, -1) : pattern)
      .split("*")
      .map((piece) => piece.replace(/[.?]/g, "\\$&"))
      .join("[^]*");
    return new RegExp(`^${source}${isWhole ? "$" : ""}`).test(target);
  });
  const longest = Math.max(...matching.map(({ pattern }) => pattern.length));
  const counting = matching.filter(({ pattern }) => pattern.length === longest);
  return counting.length === 0 || counting.some(({ allows }) => allows);
}

const text = (characters: string, maxLength: number) =>
  fc.array(fc.constantFrom(...characters), { maxLength }).map((each) => each.join(""));
const pattern = fc
  .tuple(fc.constantFrom("/", "*", ""), text("ab/.?*", 6), fc.constantFrom("", "", "$"))
  .map((parts) => parts.join(""))
  .filter((each) => each !== "");
const rule = fc.record({ pattern, allows: fc.boolean() });
const target = text("ab/.?", 10).map((path) => `/${path}`);

describe("rules", () => {
  it("say of any target what the standard says", () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 40 }), target, (rules, path) => {
        expect(compileRules(rules, 0).allows(path)).toBe(plainVerdict(rules, path));
      }),
      { numRuns: 3_000 },
    );
  });

  it("say the same of a target however it is encoded", () => {
    const letters = fc.string({ unit: "grapheme", minLength: 1, maxLength: 8 });
    const segment = letters.filter((each) => !/[%#?/*$\s\p{C}]/u.test(each));
    fc.assert(
      fc.property(segment, segment, fc.boolean(), (one, other, isEncoded) => {
        const pattern = `/${isEncoded ? encodeURIComponent(one) : one}`;
        const { allows } = compileRules([{ pattern, allows: false }], 0);
        const lowerCase = encodeURIComponent(one).replace(/%../g, (triplet) => triplet.toLowerCase());
        for (const same of [encodeURIComponent(one), lowerCase, encodeURI(one)])
          expect(allows(`/${same}`)).toBe(false);
        expect(allows(`/${encodeURIComponent(other)}`)).toBe(
          !encodeURIComponent(other).startsWith(encodeURIComponent(one)),
        );
      }),
      { numRuns: 1_000 },
    );
  });
});
