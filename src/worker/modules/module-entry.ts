import { pathToFileURL } from "node:url";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { z } from "zod";
import type { Spider } from "../../crawl/spider.js";
import { MODULE_HOOKS, type ModuleDescription } from "./messages.js";

/** What Node itself can make of TypeScript: it leaves the types out, and nothing else. */
const TYPESCRIPT = /\.[cm]?ts$/;

/**
 * The spider that a file exports by default.
 * @throws Error that says what is wrong with the file, or what its own code throws
 */
export async function importSpider(entry: string): Promise<Spider> {
  if (TYPESCRIPT.test(entry) && !canStripTypes()) {
    throw new Error(
      `this Node (${process.versions.node}) cannot run TypeScript; use Node 22.18 or later, or upload what tsc makes of it`,
    );
  }
  const module: unknown = await import(pathToFileURL(entry).href);
  const exported = memberOf(module, "default");
  // What a compiler makes of `export default` in a CommonJS file.
  const spider =
    memberOf(exported, "parse") === undefined ? (memberOf(exported, "default") ?? exported) : exported;
  return checked(spider);
}

/** What can be said of a spider in plain data. */
export function describeSpider(spider: Spider): ModuleDescription {
  const { name, seeds, settings, fileTypes, tree, callbacks = {}, item } = spider;
  const itemSchema = item === undefined ? undefined : jsonSchemaOf(item);
  return {
    name,
    ...(seeds !== undefined && { seeds: [...seeds] }),
    ...(settings !== undefined && { settings: plain(settings) }),
    ...(fileTypes !== undefined && { fileTypes: [...fileTypes] }),
    ...(tree !== undefined && { tree }),
    callbacks: Object.keys(callbacks),
    hooks: MODULE_HOOKS.filter((hook) => spider[hook] !== undefined),
    ...(itemSchema !== undefined && { itemSchema }),
  };
}

function canStripTypes(): boolean {
  return (
    memberOf(process.features, "typescript") === "strip" ||
    memberOf(process.features, "typescript") === "transform"
  );
}

/** @throws Error naming the member that is not as it should be */
function checked(spider: unknown): Spider {
  if (typeof spider !== "object" || spider === null) {
    throw new Error("it must export a spider by default: `export default defineSpider({ … })`");
  }
  const name = memberOf(spider, "name");
  if (typeof name !== "string" || name === "") throw new Error("the spider must have a `name`");
  if (typeof memberOf(spider, "parse") !== "function")
    throw new Error("the spider must have a function `parse`");
  for (const hook of MODULE_HOOKS) {
    const value = memberOf(spider, hook);
    if (value !== undefined && typeof value !== "function")
      throw new Error(`the spider's \`${hook}\` must be a function`);
  }
  const callbacks = memberOf(spider, "callbacks");
  if (callbacks !== undefined && (typeof callbacks !== "object" || callbacks === null)) {
    throw new Error("the spider's `callbacks` must be an object of functions");
  }
  for (const [callback, value] of Object.entries(callbacks ?? {})) {
    if (typeof value !== "function")
      throw new Error(`the spider's callback "${callback}" must be a function`);
  }
  for (const list of ["seeds", "fileTypes"]) {
    const value = memberOf(spider, list);
    if (value === undefined || (Array.isArray(value) && value.every((entry) => typeof entry === "string")))
      continue;
    throw new Error(`the spider's \`${list}\` must be a list of texts`);
  }
  const tree = memberOf(spider, "tree");
  if (tree !== undefined && tree !== "page" && tree !== "browser") {
    throw new Error('the spider\'s `tree` must be "page" or "browser"');
  }
  const item = memberOf(spider, "item");
  if (item !== undefined && typeof memberOf(memberOf(item, "~standard"), "validate") !== "function") {
    throw new Error(
      "the spider's `item` must be a schema of a library that speaks Standard Schema, as zod does",
    );
  }
  return spider as Spider;
}

function memberOf(value: unknown, name: string): unknown {
  const hasMembers = (typeof value === "object" && value !== null) || typeof value === "function";
  return hasMembers ? (value as Record<string, unknown>)[name] : undefined;
}

function plain<Value>(value: Value): Value {
  return JSON.parse(JSON.stringify(value)) as Value;
}

/** By the schema itself, as Standard JSON Schema says, or by zod; undefined if neither can. */
function jsonSchemaOf(schema: StandardSchemaV1): Record<string, unknown> | undefined {
  try {
    const output = memberOf(memberOf(memberOf(schema, "~standard"), "jsonSchema"), "output");
    if (typeof output === "function") {
      return plain(output({ target: "draft-2020-12" })) as Record<string, unknown>;
    }
    if (memberOf(schema, "_zod") === undefined) return undefined;
    return plain(
      z.toJSONSchema(schema as unknown as z.ZodType, { unrepresentable: "any" }) as Record<string, unknown>,
    );
  } catch {
    return undefined;
  }
}
