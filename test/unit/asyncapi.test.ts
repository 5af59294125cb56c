import { readFileSync } from "node:fs";
import path from "node:path";
import { Parser } from "@asyncapi/parser";
import { describe, expect, it } from "vitest";
import { asyncApiPage } from "../../scripts/write-asyncapi.mjs";
import { VERSION } from "../../src/lib/version.js";
import { asyncApiDocument, CALLS, EVENTS } from "../../src/protocol/index.js";

const FILE = path.resolve(import.meta.dirname, "../../docs/asyncapi.yaml");

async function faultsOf(document: unknown): Promise<string[]> {
  const { diagnostics } = await new Parser().parse(JSON.stringify(document));
  // Severity 0 is an error; the others are advice.
  return diagnostics
    .filter(({ severity }) => severity === 0)
    .map(({ path: at, message }) => `${at.join(".")}: ${message}`);
}

describe("the AsyncAPI document", () => {
  const document = asyncApiDocument({ namespace: "warren", version: VERSION });

  it("is one, says the parser of its makers, who finds a fault where there is one", async () => {
    expect(await faultsOf(document)).toEqual([]);
    expect(await faultsOf({ ...document, operations: { broken: { action: "shout" } } })).not.toEqual([]);
  });

  it("is the one among the docs", () => {
    expect(readFileSync(FILE, "utf8")).toBe(asyncApiPage(document));
  });

  it("has an operation for each call, and a message for each event", async () => {
    const { document: parsed } = await new Parser().parse(JSON.stringify(document));
    const operations = parsed
      ?.operations()
      .all()
      .map((operation) => operation.id());
    for (const type of Object.keys(CALLS.node)) {
      expect(operations).toContain(`node.${type}`);
      expect(operations).toContain(`every.${type}`);
    }
    for (const type of Object.keys(CALLS.master)) expect(operations).toContain(`master.${type}`);
    const messages = parsed
      ?.channels()
      .get("events")
      ?.messages()
      .all()
      .map((message) => message.name());
    expect(messages?.sort()).toEqual(Object.keys(EVENTS).sort());
  });

  it("says what the schemas say", () => {
    const { components } = JSON.parse(JSON.stringify(document));
    expect(components.messages["node.set-config"].payload.properties.args).toMatchObject({
      additionalProperties: false,
      properties: { concurrency: { type: "integer", minimum: 1, maximum: 1_000 } },
    });
    expect(components.messages.task.payload).toMatchObject({
      required: ["url"],
      properties: { priority: { minimum: 0, maximum: 9 }, method: { enum: ["GET", "HEAD", "POST"] } },
    });
  });
});
