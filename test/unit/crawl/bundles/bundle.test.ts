import { describe, expect, it } from "vitest";
import { bundleOf } from "../../../../src/crawl/bundles/bundle.js";

const file = (path: string, text: string | object, isExecutable = false) => ({
  path,
  body: Buffer.from(typeof text === "string" ? text : JSON.stringify(text)),
  isExecutable,
});
const kindOf = (...files: Parameters<typeof file>[]) => {
  const { kind, entry } = bundleOf(
    "x",
    files.map((each) => file(...each)),
  ).manifest;
  return [kind, entry];
};

describe("a bundle", () => {
  it("is what the main of its package.json is, else spider.mjs, else spider.json", () => {
    const main = ["package.json", { main: "./lib/a.js" }] as [string, object];

    expect(kindOf(main, ["lib/a.js", ""], ["spider.mjs", ""])).toEqual(["module", "lib/a.js"]);
    expect(kindOf(["package.json", { name: "x" }], ["spider.mjs", ""], ["spider.json", "{}"])).toEqual([
      "module",
      "spider.mjs",
    ]);
    expect(kindOf(["spider.json", { items: [] }])).toEqual(["declarative", "spider.json"]);
    expect(kindOf(["spider.json", { command: ["./run"] }], ["run", ""])).toEqual(["process", "spider.json"]);
  });

  it("may lie in the one folder that an archive holds", () => {
    expect(kindOf(["theirs/spider.mjs", ""], ["theirs/lib/a.js", ""])).toEqual(["module", "spider.mjs"]);
  });

  it.each([
    ["nothing", [["readme.md", ""]], "holds no spider"],
    [
      "a main that is not there",
      [
        ["package.json", { main: "a.js" }],
        ["spider.mjs", ""],
      ],
      "a.js",
    ],
    [
      "no code",
      [
        ["package.json", { main: "a.txt" }],
        ["a.txt", ""],
      ],
      "neither code",
    ],
    ["what is no JSON", [["spider.json", "{"]], "spider.json: is not JSON"],
    ["what is no object", [["spider.json", "[]"]], "spider.json: must be an object"],
    ["JSON that nests for ever", [["spider.json", `${"[".repeat(9_999)}${"]".repeat(9_999)}`]], "nested"],
    [
      "a description that is none",
      [
        ["spider.mjs", ""],
        ["warren.json", { seed: [] }],
      ],
      "seed",
    ],
    [
      "settings that are none",
      [
        ["spider.mjs", ""],
        ["warren.json", { settings: { politeness: { delayMs: "a" } } }],
      ],
      "settings.politeness.delayMs",
    ],
  ] as [string, Parameters<typeof file>[], string][])("cannot be %s", (_what, files, why) => {
    expect(() => kindOf(...files)).toThrow(why);
  });

  it("has the checksum of its files, whatever their order, its name and where it was packed", () => {
    const a = file("a.txt", "1");
    const b = file("spider.mjs", "2");
    const sha256 = bundleOf("x", [a, b]).sha256;

    expect(sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(bundleOf("y", [b, a]).sha256).toBe(sha256);
    expect(
      bundleOf(
        "x",
        [
          { ...a, path: "d/a.txt" },
          { ...b, path: "d/spider.mjs" },
        ].map((each) => ({ ...each, path: each.path.slice(2) })),
      ).sha256,
    ).toBe(sha256);
    expect(bundleOf("x", [{ ...a, isExecutable: true }, b]).sha256).not.toBe(sha256);
    expect(bundleOf("x", [{ ...a, path: "b.txt" }, b]).sha256).not.toBe(sha256);
    expect(bundleOf("x", [file("a.txt", "3"), b]).sha256).not.toBe(sha256);
  });

  it("keeps settings as they were given, so that a crawl's own defaults are not taken for the spider's", () => {
    const settings = { politeness: { delayMs: 5 } };
    const { manifest } = bundleOf("x", [
      file("spider.mjs", ""),
      file("warren.json", { settings, seeds: ["http://a/"] }),
    ]);

    expect(manifest).toMatchObject({ settings, seeds: ["http://a/"] });
    expect(manifest.settings).toEqual(settings);
  });
});
