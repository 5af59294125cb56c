import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { processManifest } from "../../../src/crawl/process-manifest.js";
import { parsedLine } from "../../../src/worker/processes/protocol.js";

const PAGE = readFileSync(new URL("../../../docs/reference/process-spiders.md", import.meta.url), "utf8");

it("shows manifests that are taken", () => {
  const manifests = [...PAGE.matchAll(/```json\n(.*?)```/gs)].map(
    ([, text = ""]) => JSON.parse(text) as unknown,
  );
  expect(manifests).toHaveLength(3);
  for (const manifest of manifests) expect(processManifest.safeParse(manifest).error).toBeUndefined();
});

it("shows messages as they are", () => {
  const said = [...PAGE.matchAll(/^→ (.*)$/gm)].map(([, line = ""]) => parsedLine(line));
  expect(said).toHaveLength(4);
  for (const line of said) expect(line).toMatchObject({ kind: "message" });
  for (const [, line = ""] of PAGE.matchAll(/^← (.*)$/gm)) expect(() => JSON.parse(line)).not.toThrow();
});

it("names every message that a process may send, and every limit", () => {
  const types = ["item", "request", "store", "done", "error", "log", "stats"];
  const state = ["get", "set", "add", "delete"].map((call) => `state.${call}`);
  for (const type of [...types, ...state]) expect(PAGE).toContain(`{"type":"${type}"`);
  const { limits } = processManifest.shape;
  for (const limit of Object.keys(limits.unwrap().shape)) expect(PAGE).toContain(`\`${limit}\``);
});

it.each([
  [{ command: [] }, "command"],
  [{ command: ["a\0b"] }, "command.0"],
  [{ command: "rm -rf /" }, "command"],
  [{ env: { WARREN_CRAWL_ID: "other" } }, "env"],
  [{ limits: { pageTimeoutMs: 2 ** 31 } }, "limits.pageTimeoutMs"],
  [{ settings: { politeness: { delayMs: "slow" } } }, "settings"],
  [{ stdin: "pages" }, "stdin"],
])("takes no other manifest: %j", (wrong, field) => {
  const { error } = processManifest.safeParse({ name: "books", command: ["true"], ...wrong });
  const [issue] = error?.issues ?? [];
  const at = issue?.code === "unrecognized_keys" ? issue.keys[0] : issue?.path.join(".");
  expect(at?.startsWith(field)).toBe(true);
});
