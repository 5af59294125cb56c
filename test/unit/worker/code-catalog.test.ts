import { describe, expect, it } from "vitest";
import { SpiderUnavailableError } from "../../../src/crawl/errors.js";
import type { Spider } from "../../../src/crawl/spider.js";
import { systemClock } from "../../../src/lib/clock.js";
import { silentLogger } from "../../../src/lib/logger.js";
import type { StoredSpider, StoredVersion } from "../../../src/store/index.js";
import {
  CodeCatalog,
  type CodeCatalogDeps,
  type CodeCatalogOptions,
} from "../../../src/worker/code/code-catalog.js";
import { SpiderDirectory } from "../../../src/worker/code/spider-directory.js";

const spider = (name: string, version: string): Spider => ({ name, version, parse: () => [] });
const ours = spider("ours", "1");

/** A catalog of spiders whose code is there at once, with counts of what was asked for. */
function setup(options: Partial<CodeCatalogOptions> = {}, deps: Partial<CodeCatalogDeps> = {}) {
  let now = 0;
  const clock = { ...systemClock, monotonic: () => now };
  const stored = new Map<string, StoredSpider>([
    ["theirs", { name: "theirs", version: "2", kind: "module" }],
    ["foreign", { name: "foreign", version: "1", kind: "external" }],
  ]);
  const looks: string[] = [];
  const made: string[] = [];
  const stopped: string[] = [];
  const make = ({ name, version }: { name: string; version: string }) => {
    made.push(`${name}:${version}`);
    return { spider: spider(name, version), stop: async () => void stopped.push(`${name}:${version}`) };
  };
  const directory = new SpiderDirectory({
    spiders: {
      get: async (name) => {
        looks.push(name);
        return stored.get(name);
      },
    },
    clock,
  });
  const catalog = new CodeCatalog(
    {
      bundled: { get: (name) => (name === "ours" ? ours : undefined) },
      directory,
      versions: {
        get: async (name, version) =>
          Number(version) <= 2 ? ({ name, version, kind: "module" } as StoredVersion) : undefined,
      },
      code: {
        ready: async (version) => ({ ...version, folder: "/nowhere" }),
        report: async () => ({ state: "ready" }),
        prune: async () => {},
      },
      makers: { declarative: make, module: make, process: make },
      clock,
      logger: silentLogger,
      ...deps,
    },
    options,
  );
  const pass = (ms: number) => {
    now += ms;
  };
  return { catalog, directory, stored, looks, made, stopped, pass };
}

describe("the spiders of a node", () => {
  it("are at hand at once, bundled or loaded, and loaded once for all who ask", async () => {
    const { catalog, made, looks } = setup();

    expect(catalog.get("ours")).toBe(ours);
    const all = await Promise.all([
      catalog.get("theirs"),
      catalog.get("theirs", "2"),
      catalog.get("theirs", "1"),
    ]);

    expect(all.map((each) => each?.version)).toEqual(["2", "2", "1"]);
    expect(made.sort()).toEqual(["theirs:1", "theirs:2"]);
    expect(catalog.get("theirs")).toBe(all[0]);
    expect(catalog.get("theirs", "1")).toBe(all[2]);
    expect(looks).toEqual(["theirs"]);
  });

  it("are those of the current version, seconds after it has changed, or at once when that is told", async () => {
    const { catalog, directory, stored, pass } = setup();
    stored.set("theirs", { name: "theirs", version: "1", kind: "module" });
    const before = await catalog.get("theirs");
    stored.set("theirs", { name: "theirs", version: "2", kind: "module" });
    const known = await catalog.get("theirs");
    pass(2_001);
    const later = await catalog.get("theirs");
    stored.set("theirs", { name: "theirs", version: "1", kind: "module" });
    directory.forget("theirs");
    const told = await catalog.get("theirs");

    expect([before, known, later, told].map((each) => each?.version)).toEqual(["1", "1", "2", "1"]);
  });

  it("are not those that others read, nor versions that are not there", async () => {
    const { catalog, directory } = setup();

    expect(await catalog.get("foreign")).toBeUndefined();
    expect(await directory.isExternal("foreign")).toBe(true);
    expect(directory.isExternal("foreign")).toBe(true);
    expect(await catalog.get("nobody")).toBeUndefined();
    expect(await catalog.get("theirs", "3")).toBeUndefined();
  });

  it("are waited for only so long, and go on coming meanwhile", async () => {
    let arrive = () => {};
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve;
    });
    const code = {
      ready: async (version: StoredVersion) => {
        await arrived;
        return { ...version, folder: "/nowhere" };
      },
      report: async () => ({ state: "fetching" as const }),
      prune: async () => {},
    };
    const { catalog, made } = setup({ patienceMs: 10 }, { code });

    await expect(catalog.get("theirs", "1")).rejects.toMatchObject({
      code: "SPIDER_UNAVAILABLE",
      message: expect.stringContaining("still coming"),
    });
    arrive();

    expect(await catalog.get("theirs", "1")).toMatchObject({ version: "1" });
    expect(made).toEqual(["theirs:1"]);
  });

  it("that cannot be loaded are told of, and tried again when they are asked for again", async () => {
    let attempts = 0;
    const module = () => {
      attempts += 1;
      if (attempts === 1) throw new Error("syntax");
      return { spider: spider("theirs", "1") };
    };
    const { catalog } = setup({}, { makers: { declarative: module, module, process: module } });

    await expect(catalog.get("theirs", "1")).rejects.toThrow(SpiderUnavailableError);
    expect(await catalog.get("theirs", "1")).toMatchObject({ version: "1" });
  });

  it("are stopped once nothing has asked for them for some time, and all of them at the end", async () => {
    const { catalog, stopped, pass } = setup({ idleMs: 1_000, lookEveryMs: 5 });
    await catalog.get("theirs", "1");
    pass(600);
    await catalog.get("theirs", "2");
    pass(600);
    await catalog.start();
    await expect.poll(() => stopped).toEqual(["theirs:1"]);
    expect([...catalog.inUse]).toEqual(["theirs:2"]);

    await catalog.stop();

    expect(stopped).toEqual(["theirs:1", "theirs:2"]);
  });
});
