import { describe, expect, it } from "vitest";
import { crawlRequest } from "../../../src/crawl/crawl-request.js";
import { DEFAULT_RENDER_OPTIONS } from "../../../src/crawl/render/render-options.js";
import { fingerprint } from "../../../src/crawl/urls/url.js";
import { renderRequest } from "../../../src/lib/render-request.js";

describe("a crawl's rendering", () => {
  it("has a default for each member, and is absent when nothing is said of it", () => {
    expect(crawlRequest.parse({ render: {} }).render).toEqual(DEFAULT_RENDER_OPTIONS);
    expect(crawlRequest.parse({})).not.toHaveProperty("render");
  });

  it.each([
    [{ mode: "sometimes" }, "render.mode"],
    [{ timeoutMs: 99 }, "render.timeoutMs"],
    [{ timeoutMs: 45_001 }, "render.timeoutMs"],
    [{ scroll: -1 }, "render.scroll"],
    [{ waitFor: "forever" }, "render.waitFor"],
    [{ waitFor: { css: "" } }, "render.waitFor.css"],
    [{ blockedTypes: ["everything"] }, "render.blockedTypes.0"],
    [{ other: 1 }, "render"],
  ])("is refused by the name of its member: %j", (render, field) => {
    const issue = crawlRequest.safeParse({ render }).error?.issues[0];
    expect(issue?.path.join(".")).toBe(field);
  });
});

describe("a request's rendering", () => {
  it.each([true, false, {}, { waitFor: { css: "a" }, timeoutMs: 100, scroll: 50, screenshot: true }])(
    "is taken: %j",
    (render) => {
      expect(renderRequest.parse(render)).toEqual(render);
    },
  );

  it.each([null, "yes", 1, [], { mode: "always" }, { timeoutMs: 0 }])("is refused: %j", (render) => {
    expect(renderRequest.safeParse(render).success).toBe(false);
  });

  it("makes another page of the same URL", () => {
    const plain = fingerprint("http://a.test/");
    expect(fingerprint("http://a.test/", { render: true })).not.toBe(plain);
    expect(fingerprint("http://a.test/", { render: { scroll: 1 } })).toBe(
      fingerprint("http://a.test/", { render: true }),
    );
    expect(fingerprint("http://a.test/", { render: false })).toBe(plain);
  });
});
