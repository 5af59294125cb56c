import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Bundle, bundleOf } from "../../src/crawl/bundles/bundle.js";
import { systemClock } from "../../src/lib/clock.js";
import { silentLogger } from "../../src/lib/logger.js";
import type { Store, StoredVersion } from "../../src/store/index.js";
import { Dependencies, type DependenciesOptions } from "../../src/worker/code/dependencies.js";
import {
  SpiderCode,
  type SpiderCodeDeps,
  type SpiderCodeOptions,
} from "../../src/worker/code/spider-code.js";
import { ChildProcesses } from "../../src/worker/processes/child-processes.js";
import { GUARD_PROGRAM } from "../support/children-under-test.js";
import { StoresUnderTest } from "../support/store-under-test.js";

const stores = new StoresUnderTest();
let store: Store;
let folder: string;
let children: ChildProcesses;
let inUse: Set<string>;
const running: SpiderCode[] = [];

beforeAll(async () => {
  store = await stores.open();
  children = new ChildProcesses(
    { clock: systemClock, logger: silentLogger },
    { guardProgram: GUARD_PROGRAM },
  );
});
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "warren-code-"));
  inUse = new Set();
});
afterEach(async () => {
  await Promise.all(running.splice(0).map((code) => code.stop()));
  await rm(folder, { recursive: true, force: true });
});
afterAll(async () => {
  await children.stop();
  await stores.dispose();
});

type Given = {
  code?: Partial<SpiderCodeOptions>;
  dependencies?: Partial<DependenciesOptions>;
  deps?: Partial<SpiderCodeDeps>;
};

/** The code on the disk of a node that has just started. */
async function startNode({ code = {}, dependencies = {}, deps = {} }: Given = {}): Promise<SpiderCode> {
  const node = new SpiderCode(
    {
      ...{ folder, contents: store.code, inUse: () => inUse, clock: systemClock, logger: silentLogger },
      dependencies: new Dependencies(children, dependencies),
      ...deps,
    },
    code,
  );
  running.push(node);
  await node.start();
  return node;
}

type Files = Readonly<Record<string, string | object>>;
const bundle = (name: string, files: Files): Bundle =>
  bundleOf(
    name,
    Object.entries(files).map(([file, text]) => ({
      path: file,
      body: Buffer.from(typeof text === "string" ? text : JSON.stringify(text)),
      isExecutable: file.startsWith("bin/"),
    })),
  );
const put = (name: string, files: Files): Promise<StoredVersion> => store.versions.put(bundle(name, files));
const here = async () => (await readdir(folder).catch(() => [])).sort();
const counting = () => {
  const opened: string[] = [];
  return {
    opened,
    contents: {
      open: async (id: string) => {
        opened.push(id);
        return store.code.open(id);
      },
    },
  };
};

describe("code that is needed", () => {
  it("is fetched with all its files, once for all who need it at the same time", async () => {
    const version = await put("plain", {
      "spider.mjs": "1",
      "bin/run": "#!/bin/sh\n",
      "lib/deep/a.txt": "a",
    });
    const { opened, contents } = counting();
    const node = await startNode({ deps: { contents } });

    const ready = await Promise.all([1, 2, 3].map(() => node.ready(version)));
    await node.ready(version);

    expect(new Set(ready.map((code) => code.folder))).toEqual(new Set([path.join(folder, "plain", "1")]));
    expect(await readFile(path.join(folder, "plain/1/lib/deep/a.txt"), "utf8")).toBe("a");
    expect((await stat(path.join(folder, "plain/1/bin/run"))).mode & 0o777).toBe(0o755);
    expect(opened).toHaveLength(3);
    expect(await node.report(version)).toEqual({ state: "ready" });
  });

  it("is not fetched again by the next process, nor are files that another version brought", async () => {
    const first = await put("shared", { "spider.mjs": "1", "big.txt": "the same" });
    const second = await put("shared", { "spider.mjs": "2", "moved/big.txt": "the same" });
    await (await startNode()).ready(first);
    const { opened, contents } = counting();
    const next = await startNode({ deps: { contents } });

    await next.ready(first);
    const before = opened.length;
    await next.ready(second);

    expect(before).toBe(0);
    expect(opened).toHaveLength(1);
    expect(await readFile(path.join(folder, "shared/2/moved/big.txt"), "utf8")).toBe("the same");
  });

  it.each([
    ["changed", (file: string) => appendFile(file, "x")],
    ["removed", (file: string) => rm(file)],
    [
      "replaced by a folder",
      async (file: string) => {
        await rm(file);
        await mkdir(file);
      },
    ],
  ])("is fetched again when a file of it was %s meanwhile", async (how, damage) => {
    const name = `damaged-${how.slice(0, 3)}`;
    const version = await put(name, { "spider.mjs": "whole", "lib/a.txt": "a" });
    await (await startNode()).ready(version);
    await damage(path.join(folder, name, "1", "spider.mjs"));

    await (await startNode()).ready(version);

    expect(await readFile(path.join(folder, name, "1", "spider.mjs"), "utf8")).toBe("whole");
  });

  it("is refused, and leaves nothing, when what comes is not what it should be", async () => {
    const version = await put("forged", { "spider.mjs": "right", "a.txt": "a" });
    const wrong = await put("forging", { "spider.mjs": "wrong" });
    const files = version.files.map((file) => ({ ...file, contentId: wrong.files[0]?.contentId ?? "" }));
    const node = await startNode();

    await expect(node.ready({ ...version, files })).rejects.toMatchObject({
      code: "SPIDER_UNAVAILABLE",
      retryable: true,
      message: expect.stringContaining("checksum"),
    });
    expect(await here()).toEqual([]);
    await expect(node.ready(version)).resolves.toMatchObject({ version: "1" });
  });

  it("begins anew after a process that was killed at any step, whose leftovers go", async () => {
    const version = await put("killed", { "spider.mjs": "1", "lib/a.txt": "a" });
    await mkdir(path.join(folder, ".new-1/lib"), { recursive: true });
    await writeFile(path.join(folder, ".new-1/spider.mjs"), "ha");
    await mkdir(path.join(folder, ".old-1/x"), { recursive: true });
    // It had its place, and its dependencies were being installed.
    await mkdir(path.join(folder, "killed/1/node_modules/half"), { recursive: true });
    await writeFile(path.join(folder, "killed/1/spider.mjs"), "1");
    await mkdir(path.join(folder, "killed/2/.warren"), { recursive: true });
    await writeFile(path.join(folder, "killed/2/.warren/ready.json"), '{"name":"kil');

    const node = await startNode();
    const leftovers = await here();
    const versions = await readdir(path.join(folder, "killed"));
    await node.ready(version);

    expect(leftovers).toEqual(["killed"]);
    expect(versions).toEqual([]);
    expect((await readdir(path.join(folder, "killed/1"))).sort()).toEqual([".warren", "lib", "spider.mjs"]);
  });

  it("goes when it is neither used nor among the newest, and more of it when the disk is full", async () => {
    const versions: StoredVersion[] = [];
    for (let i = 1; i <= 5; i += 1)
      versions.push(await put("old", { "spider.mjs": String(i), "a.txt": "x".repeat(1_000) }));
    const other = await put("other", { "spider.mjs": "o" });
    inUse.add("old:1");
    const node = await startNode({ code: { keptVersions: 2 } });
    for (const version of [...versions, other]) await node.ready(version);
    await node.prune();
    const pruned = (await readdir(path.join(folder, "old"))).sort();

    const full = await startNode({ code: { keptVersions: 2, maxBytes: 2_500 } });
    await full.prune();

    expect(pruned).toEqual(["1", "4", "5"]);
    expect((await readdir(path.join(folder, "old"))).sort()).toEqual(["1", "5"]);
    await expect(full.ready(await put("huge", { "spider.mjs": "x".repeat(3_000) }))).rejects.toThrow(
      "more than 2500",
    );
  });
});

describe("dependencies", () => {
  const MODULE = { "spider.mjs": "import 'dep';" };
  const DEP = {
    "dep/package.json": { name: "dep", version: "1.0.0", scripts: { install: "touch ../../ran" } },
  };

  it("are installed by npm once, without running scripts, and tell how that went", async () => {
    const version = await put("npm", {
      ...{ ...MODULE, ...DEP },
      "package.json": {
        main: "spider.mjs",
        dependencies: { dep: "file:./dep" },
      },
    });
    const node = await startNode();
    await node.ready(version);
    const installedAt = (await stat(path.join(folder, "npm/1/node_modules"))).ctimeMs;
    const next = await startNode();
    await next.ready(version);

    expect(await readdir(path.join(folder, "npm/1/node_modules"))).toContain("dep");
    expect(await here()).toEqual(["npm"]);
    expect((await stat(path.join(folder, "npm/1/node_modules"))).ctimeMs).toBe(installedAt);
    const { state, install } = await next.report(version);
    expect(state).toBe("ready");
    expect(install?.log).toMatch(/^\$ npm install --omit=dev --ignore-scripts/);
    expect(install?.log).toContain("(exited with code 0)");
    expect(install?.tookMs).toBeGreaterThan(0);
  });

  it("that cannot be installed are told of with the end of the log, and not tried again at once", async () => {
    const runs = path.join(folder, "runs");
    const script = `require("fs").appendFileSync(${JSON.stringify(runs)}, "x"); console.log("line\\n".repeat(50000)); console.error("why"); process.exit(7)`;
    const version = await put("failing", {
      "spider.json": { name: "failing", command: ["x"], install: [["node", "-e", script]] },
    });
    const node = await startNode();

    for (let i = 0; i < 3; i += 1) {
      await expect(node.ready(version)).rejects.toThrow(/exited with code 7[\s\S]*why/);
    }

    expect(await readFile(runs, "utf8")).toBe("x");
    const report = await node.report(version);
    expect(report).toMatchObject({ state: "failed", error: expect.stringContaining("exited with code 7") });
    expect(report.install?.log.length).toBeLessThanOrEqual(16_384);
    expect(await readdir(path.join(folder, "failing"))).toEqual([]);
  });

  it("are given up when their time is over, and nothing of them goes on", async () => {
    const pidFile = path.join(folder, "pid");
    const script = `require("fs").writeFileSync(${JSON.stringify(pidFile)}, String(process.pid)); setInterval(() => {}, 1000)`;
    const version = await put("endless", {
      "spider.json": { name: "endless", command: ["x"], install: [["node", "-e", script]] },
    });
    const node = await startNode({ dependencies: { timeoutMs: 1_500 } });

    await expect(node.ready(version)).rejects.toThrow("did not end within");
    const pid = Number(await readFile(pidFile, "utf8"));
    expect(() => process.kill(pid, 0)).toThrow("ESRCH");
  });

  it("change none of what is checked later, unless they are meant to", async () => {
    const change = [["node", "-e", "require('fs').appendFileSync('made.txt', 'more')"]];
    const version = await put("changing", {
      "spider.json": { name: "changing", command: ["x"], install: change },
      "made.txt": "some",
    });
    await (await startNode()).ready(version);
    const { opened, contents } = counting();

    await (await startNode({ deps: { contents } })).ready(version);

    expect(opened).toEqual([]);
    expect(await readFile(path.join(folder, "changing/1/made.txt"), "utf8")).toBe("somemore");
  });
});
