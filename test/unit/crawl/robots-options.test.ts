import { describe, expect, it } from "vitest";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import { obeysRobots } from "../../../src/crawl/robots/robots-options.js";

describe("hosts whose robots.txt is not asked", () => {
  it.each([
    [[], "shop.example", true],
    [["shop.example"], "shop.example", false],
    [["shop.example"], "shop.example:8080", false],
    [["shop.example"], "www.shop.example", true],
    [["shop.example"], "hop.example", true],
    [["shop.example:8080"], "shop.example:8080", false],
    [["shop.example:8080"], "shop.example", true],
    [["shop.example:80"], "shop.example", false],
    [["SHOP.example"], "shop.example", false],
    [["münchen.example"], "xn--mnchen-3ya.example", false],
    [["*.shop.example"], "www.shop.example", false],
    [["*.shop.example"], "a.b.shop.example:81", false],
    [["*.shop.example"], "shop.example", true],
    [["*.shop.example"], "badshop.example", true],
    [["other.example", "*.shop.example", "127.0.0.1"], "127.0.0.1:3000", false],
    [["[::1]"], "[::1]:3000", false],
  ])("%j: %s is asked: %j", (ignoreRobotsOn, host, asked) => {
    const { politeness } = crawlRequest.parse({ politeness: { ignoreRobotsOn } });
    expect(obeysRobots(politeness, host)).toBe(asked);
  });

  it.each([
    "",
    "*",
    "*.",
    "http://shop.example",
    "shop.example/path",
    "a b",
    "*.shop.example:8080",
    "*.*.example",
  ])("%j is refused", (pattern) => {
    const parsed = crawlRequest.safeParse({ politeness: { ignoreRobotsOn: [pattern] } });
    expect(parsed.error?.issues[0]?.path).toEqual(["politeness", "ignoreRobotsOn", 0]);
  });

  it("are all when robots.txt is not obeyed at all, and none when nothing is said", () => {
    const { politeness } = crawlRequest.parse({});
    expect(obeysRobots(politeness, "shop.example")).toBe(true);
    expect(obeysRobots({ ...politeness, obeyRobots: false }, "shop.example")).toBe(false);
  });
});
