import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const ROOT = path.resolve(import.meta.dirname, "../..");
const BIOME = path.join(ROOT, "node_modules/@biomejs/biome/bin/biome");

/** What the linter says of a scratch tree that holds these files and our rules. */
describe("the linter keeps the import arrows", () => {
  let scratch: string;

  beforeAll(() => {
    scratch = mkdtempSync(path.join(tmpdir(), "warren-lint-"));
    const rules = JSON.parse(readFileSync(path.join(ROOT, "biome.json"), "utf8")) as Record<string, unknown>;
    // There is no repository here to ask what to leave out.
    rules.vcs = { enabled: false };
    writeFileSync(path.join(scratch, "biome.json"), JSON.stringify(rules));
    cpSync(path.join(ROOT, "tsconfig.json"), path.join(scratch, "tsconfig.json"));
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  function lint(files: Record<string, string>): string {
    const source = path.join(scratch, "src");
    rmSync(source, { recursive: true, force: true });
    for (const [name, text] of Object.entries(files)) {
      const file = path.join(source, name);
      mkdirSync(path.dirname(file), { recursive: true });
      writeFileSync(file, text);
    }
    const { stdout, stderr } = spawnSync(process.execPath, [BIOME, "lint", "--max-diagnostics=50", "src"], {
      cwd: scratch,
      encoding: "utf8",
    });
    return `${stdout}${stderr}`;
  }

  const target = (folder: string) => ({
    [`${folder}/thing.ts`]: "export type Thing = { readonly name: string };\n",
  });
  const importing = (from: string, what: string) => ({
    [`${from}/importer.ts`]: `import type { Thing } from "../${what}/thing.js";\n\nexport const thing: Thing = { name: "x" };\n`,
  });

  it.each([
    ["lib", "crawl", "lib/ knows nothing of ours"],
    ["lib", "worker", "lib/ knows nothing of ours"],
    ["crawl", "bus", "crawl/ is the engine"],
    ["crawl", "store", "crawl/ is the engine"],
    ["spiders", "bus", "spiders/ is what spiders are made of"],
    ["spiders", "worker", "spiders/ is what spiders are made of"],
    ["bus", "crawl", "bus/ knows only lib/"],
    ["bus", "store", "bus/ knows only lib/"],
    ["bus", "protocol", "bus/ knows only lib/"],
    ["protocol", "store", "protocol/ says what may be sent"],
    ["store", "bus", "store/ knows the interfaces"],
    ["store", "master", "store/ knows the interfaces"],
    ["store", "results", "store/ knows the interfaces"],
    ["results", "master", "results/ stores what tasks brought"],
    ["results", "worker", "results/ stores what tasks brought"],
    ["master", "worker", "master/ and worker/ never know each other"],
    ["worker", "master", "worker/ and master/ never know each other"],
  ])("refuses that %s/ imports %s/, be it a type, and says why", (from, what, message) => {
    expect(lint({ ...target(what), ...importing(from, what) })).toContain(message);
  });

  it.each([
    ["crawl", "lib"],
    ["store", "crawl"],
    ["spiders", "crawl"],
    ["master", "store"],
    ["worker", "bus"],
  ])("lets %s/ import %s/", (from, what) => {
    expect(lint({ ...target(what), ...importing(from, what) })).not.toContain("noRestrictedImports");
  });

  it("refuses imports in a circle, be they of types", () => {
    const circle = {
      "crawl/one.ts":
        'import type { Two } from "./two.js";\n\nexport type One = { readonly two: Two | null };\n',
      "crawl/two.ts":
        'import type { One } from "./one.js";\n\nexport type Two = { readonly one: One | null };\n',
    };
    expect(lint(circle)).toContain("noImportCycles");
  });
});
