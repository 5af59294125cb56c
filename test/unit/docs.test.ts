import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { configurationPage } from "../../scripts/write-configuration-page.mjs";
import { SETTINGS } from "../../src/lib/settings.js";
import { HOSTILE_BEHAVIOURS } from "../support/hostile-behaviours.js";

const ROOT = path.resolve(import.meta.dirname, "../..");
const read = (file: string) => readFileSync(path.join(ROOT, file), "utf8");

/** All TypeScript below a folder. */
function sources(folder: string): string[] {
  return readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => path.join(folder, name));
}

describe("the docs", () => {
  it("say why each dependency is there, and of nothing else", () => {
    const manifest = JSON.parse(read("package.json")) as Record<"dependencies" | "devDependencies", object>;
    const needed = [...Object.keys(manifest.dependencies), ...Object.keys(manifest.devDependencies)].sort();
    const explained = [...read("docs/dependencies.md").matchAll(/^\| `([^`]+)` \|/gm)]
      .map(([, name]) => name)
      .sort();
    expect(explained).toEqual(needed);
  });

  it("list the settings as they are", () => {
    expect(read("docs/reference/configuration.md")).toBe(configurationPage(SETTINGS));
  });

  it("explain every error code of the code, and none that is not there", () => {
    const inCode = new Set(
      sources("src").flatMap((file) =>
        [...read(file).matchAll(/readonly code = "([^"]+)"/g)].map(([, code]) => code),
      ),
    );
    const [, table = ""] = read("docs/reference/errors.md").split("## In the code");
    const explained = new Set(
      [...table.matchAll(/^\| ([^|]+) \|/gm)]
        .flatMap(([, cell]) => [...(cell ?? "").matchAll(/`([^`]+)`/g)])
        .map(([, code]) => code),
    );
    expect([...explained].sort()).toEqual([...inCode].sort());
  });

  it("tell where a URL ends otherwise than a standard asks, as the tests have it", () => {
    const [, table = ""] = read("docs/reference/outcomes.md").split("## Where this is not");
    const told = [...table.matchAll(/^\| (?!behaviour|---)([^|]+) \| ([^|]+) \|$/gm)].map(([, name, why]) => [
      name,
      why,
    ]);
    const tested = HOSTILE_BEHAVIOURS.flatMap(({ name, deviates }) =>
      deviates === undefined ? [] : [[name, deviates]],
    );
    expect(told).toEqual(tested);
  });

  it("lead nowhere that is not there", () => {
    const pages = [
      "README.md",
      "CONTRIBUTING.md",
      ...["docs", "examples"].flatMap((folder) =>
        readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" })
          .filter((name) => name.endsWith(".md") && !name.includes("node_modules"))
          .map((name) => path.join(folder, name)),
      ),
    ];
    const missing = pages.flatMap((page) =>
      [...read(page).matchAll(/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g)]
        .map(([, target]) => path.join(path.dirname(page), target ?? ""))
        .filter((target) => {
          try {
            readdirSync(path.join(ROOT, target));
            return false;
          } catch (error) {
            return (error as NodeJS.ErrnoException).code === "ENOENT";
          }
        })
        .map((target) => `${page}: ${target}`),
    );
    expect(missing).toEqual([]);
  });
});
