import { describe, expect, it } from "vitest";
import { AddressRefusedError, CrawlError, FetchError, SpiderError } from "../../../src/crawl/errors.js";
import { WarrenError } from "../../../src/lib/errors.js";

describe("a crawl error", () => {
  it("has a code that never changes, its class's name, and its cause", () => {
    const cause = new Error("why");
    const errors = [
      new FetchError("network", "no connection", { cause }),
      new AddressRefusedError("10.0.0.1", ["10.0.0.1"]),
      new SpiderError("threw", { cause }),
    ];
    expect(errors.map(({ code, name }) => [code, name])).toEqual([
      ["FETCH", "FetchError"],
      ["ADDRESS", "AddressRefusedError"],
      ["SPIDER", "SpiderError"],
    ]);
    expect(errors.every((error) => error instanceof CrawlError && error instanceof WarrenError)).toBe(true);
    expect([errors[0]?.cause, errors[2]?.cause]).toEqual([cause, cause]);
  });

  it.each([
    ["network", true],
    ["timeout", true],
    ["too-large", false],
    ["decode", false],
    ["address", false],
  ] as const)("of reason %s is worth another try: %j, unless it says otherwise", (reason, retryable) => {
    expect(new FetchError(reason, "x").retryable).toBe(retryable);
    expect(new FetchError(reason, "x", { retryable: !retryable }).retryable).toBe(!retryable);
  });

  it("says which addresses were refused, and does not say it twice", () => {
    expect(new AddressRefusedError("10.0.0.1", ["10.0.0.1"]).message).toMatch(
      /^10\.0\.0\.1 is not a public address/,
    );
    expect(new AddressRefusedError("inside.example", ["10.0.0.1", "::1"]).message).toMatch(
      /^inside\.example \(10\.0\.0\.1, ::1\) is not/,
    );
  });
});
