import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeEach, describe, expect, it } from "vitest";
import { ConfigError } from "../../../src/lib/errors.js";
import { silentLogger } from "../../../src/lib/logger.js";
import { ModuleHost } from "../../../src/worker/modules/index.js";
import { loadSpider, type SpiderMakers, spiderCatalog } from "../../../src/worker/spider-catalog.js";
import { SPIDER_PROCESS_PROGRAM } from "../../support/modules-under-test.js";

const MODULE = (name: string) => `export default { name: "${name}", *parse() {} };`;
const DECLARED = (name: string) => JSON.stringify({ name, follow: [{ css: "a" }] });

describe("a spider in a file or folder", () => {
  let folder: string;
  const modules = new ModuleHost({ logger: silentLogger }, { program: SPIDER_PROCESS_PROGRAM });
  const makers: Partial<SpiderMakers> = { module: (source) => modules.load(source) };
  afterAll(() => modules.stop());
  beforeEach(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), "warren-spiders-"));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  async function written(files: Readonly<Record<string, string>>): Promise<void> {
    for (const [name, text] of Object.entries(files)) {
      await mkdir(path.dirname(path.join(folder, name)), { recursive: true });
      await writeFile(path.join(folder, name), text);
    }
  }

  it.each([
    ["a declaration in JSON", "a.json", DECLARED("declared")],
    ["a declaration in YAML", "a.yaml", "name: declared\nfollow:\n  - css: a\n"],
    ["one with another ending", "a.YML", "name: declared\n"],
    ["a module", "a.mjs", MODULE("declared")],
  ])("may be %s", async (_what, name, text) => {
    await written({ [name]: text });
    const place = path.join(folder, name);
    const catalog = await spiderCatalog(place, makers);
    expect(catalog.get("declared")).toMatchObject({ name: "declared" });
    expect(catalog.get(place)).toBe(catalog.get("declared"));
    expect(catalog.get("links")).toMatchObject({ name: "links" });
  });

  it.each<[string, Record<string, string>, string]>([
    [
      "the main file of its package",
      {
        "package.json": '{"main":"./lib/x.mjs"}',
        "lib/x.mjs": MODULE("main"),
        "spider.mjs": MODULE("other"),
      },
      "main",
    ],
    [
      "spider.mjs",
      { "spider.mjs": MODULE("mjs"), "spider.json": DECLARED("json"), "package.json": "{}" },
      "mjs",
    ],
    ["spider.json", { "spider.json": DECLARED("json"), "spider.yaml": "name: yaml" }, "json"],
    ["spider.yaml", { "spider.yaml": "name: yaml" }, "yaml"],
  ])("is, in a folder, %s", async (_what, files, name) => {
    await written(files);
    expect(await loadSpider(folder, makers)).toMatchObject({ name });
  });

  it("is made by the maker of its kind", async () => {
    await written({ "spider.json": '{"name":"p","command":["./run"]}' });
    const refuse = async () => Promise.reject(new Error("not this one"));
    const spider = await loadSpider(folder, {
      declarative: refuse,
      module: refuse,
      process: async ({ folder: where, manifest }) => ({
        name: `${path.basename(where)} ${JSON.stringify(manifest)}`,
        parse: () => [],
      }),
    });
    expect(spider.name).toBe(`${path.basename(folder)} {"name":"p","command":["./run"]}`);
  });

  it.each<[string, Record<string, string>, string, RegExp]>([
    ["there is none", {}, "x.mjs", /^--spider: cannot load .*x\.mjs: ENOENT/],
    ["a folder has none", { "a.txt": "" }, ".", /^--spider: cannot load .*: it holds no spider\.mjs, /],
    [
      "the main file is outside",
      { "package.json": '{"main":"../x.mjs"}' },
      ".",
      /holds no \.\.\/x\.mjs, which its package\.json names/,
    ],
    [
      "the name says nothing",
      { "a.txt": "" },
      "a.txt",
      /^--spider: .*a\.txt is no spider: its name must end in \.js/,
    ],
    ["JSON is broken", { "a.json": "{" }, "a.json", /^--spider: .*a\.json: .*JSON/],
    [
      "YAML is broken",
      { "a.yaml": "a: [1" },
      "a.yaml",
      /^--spider: .*a\.yaml: is no declaration in JSON or YAML/,
    ],
    [
      "a member is wrong",
      { "a.yaml": "name: a\nfollow: [{css: 'a['}]" },
      "a.yaml",
      /^--spider: .*a\.yaml: follow\.0\.css: a name is missing/,
    ],
    [
      "a module throws",
      { "a.mjs": "throw new Error('no');" },
      "a.mjs",
      /^--spider: .*a\.mjs: spider "a", version 1, could not be loaded: no\n/,
    ],
    [
      "a module exports none",
      { "a.mjs": "export default 1;" },
      "a.mjs",
      /^--spider: .*a\.mjs: .* could not be loaded: it must export a spider by default/,
    ],
  ])("is refused if %s", async (_what, files, name, message) => {
    await written(files);
    const refusal = await loadSpider(path.join(folder, name), makers).catch((error: unknown) => error);
    expect(refusal).toBeInstanceOf(ConfigError);
    expect((refusal as Error).message).toMatch(message);
  });
});
