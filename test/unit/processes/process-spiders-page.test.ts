import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { processManifest } from "../../../src/crawl/process-manifest.js";
import { parsedLine } from "../../../src/worker/processes/protocol.js";

const PAGE = readFileSync(new URL("../../../docs/reference/process-spiders.md", import.meta.url), "utf8");

it("shows manifests that are taken", () => {
  const manifests = [...PAGE.matchAll(/```json\n(.*?)```/gs)].map(
    ([, text = ""]) => JSON.parse(text) as unknown,
  );
  expect(manifests).toHaveLength(2);
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
