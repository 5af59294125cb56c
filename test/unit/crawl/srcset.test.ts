import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { srcsetUrls } from "../../../src/crawl/pages/srcset.js";

describe("the URLs of a srcset", () => {
  it.each<[string, string[]]>([
    ["a", ["a"]],
    ["a 1x, b 2x", ["a", "b"]],
    ["a 100w, b 200w 100h,c", ["a", "b", "c"]],
    ["a,b 2x", ["a,b"]],
    ["a, b", ["a", "b"]],
    ["a,,, b", ["a", "b"]],
    [", , a ,", ["a"]],
    ["\n\ta 1x\n,\n\tb 2x\n", ["a", "b"]],
    [
      "/cdn/w_100,h_100/a.png 1x, /cdn/w_200,h_200/a.png 2x",
      ["/cdn/w_100,h_100/a.png", "/cdn/w_200,h_200/a.png"],
    ],
    ["data:image/png;base64,AAAA 1x, b 2x", ["data:image/png;base64,AAAA", "b"]],
    ["a 1.5x, b .5x, c 1e2x, d -0x", ["a", "b", "c", "d"]],
    ["a 1x 2x, b 1w 2w, c 1x 1w, ok", ["ok"]],
    ["a 0w, b -1x, c 1y, d 1, e +1x, ok 1x", ["ok"]],
    ["a 100h, b 100w 50h", ["b"]],
    ["a (1x, b 1x), c", ["c"]],
    ["a (, b, c", []],
    ["", []],
    [" , ", []],
  ])("%j: %j", (srcset, urls) => {
    expect(srcsetUrls(srcset)).toEqual(urls);
  });

  it("are found, or none, in whatever text", () => {
    const text = fc
      .array(fc.constantFrom(..."ab ,()\t\n10wxh.-e"), { maxLength: 40 })
      .map((all) => all.join(""));
    fc.assert(
      fc.property(text, (srcset) => {
        for (const url of srcsetUrls(srcset)) {
          expect(url).not.toMatch(/^,|,$|[\t\n ]/);
          expect(srcset).toContain(url);
        }
      }),
    );
  });

  it("are at most 1,000, and found in one pass", () => {
    expect(srcsetUrls("a 1x, ".repeat(200_000))).toHaveLength(1_000);
    expect(srcsetUrls(`a ${"(".repeat(1_000_000)}`)).toEqual([]);
    expect(srcsetUrls(`a ${"1x ".repeat(300_000)}`)).toEqual([]);
  });
});
