import { pathToFileURL } from "node:url";
import { z } from "zod";
import { type SpiderDescription, spiderDescription } from "../crawl/spider-manifest.js";

/** What a module exports, as far as it is of use here. */
const exported = z.object({
  default: z.looseObject({
    name: z.string().min(1).exactOptional(),
    parse: z.custom<object>((value) => typeof value === "function", "must be a function"),
    item: z.unknown().optional(),
  }),
});

const LOAD_TIMEOUT_MS = 20_000;

/**
 * Loads a module into this process and asks what it says of itself.
 * @throws Error when it cannot be loaded here, or is no spider
 */
export async function describeModule(
  file: string,
): Promise<{ readonly name?: string; readonly description: SpiderDescription }> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`was not loaded in ${LOAD_TIMEOUT_MS} ms`)), LOAD_TIMEOUT_MS);
  });
  try {
    const { name, item, ...rest } = exported.parse(
      await Promise.race([import(pathToFileURL(file).href), late]),
    ).default;
    const itemSchema = item === undefined ? undefined : jsonSchemaOf(item);
    const description = spiderDescription
      .strip()
      .parse({ ...rest, ...(itemSchema !== undefined && { itemSchema }) });
    return { ...(name !== undefined && { name }), description };
  } finally {
    clearTimeout(timer);
  }
}

/** Standard Schema's JSON Schema of what a schema gives; undefined if its library cannot say so. */
function jsonSchemaOf(schema: unknown): unknown {
  try {
    const converter = (schema as { "~standard": { jsonSchema?: { output(o: object): unknown } } })[
      "~standard"
    ];
    return converter.jsonSchema?.output({ target: "draft-2020-12" });
  } catch {
    return undefined;
  }
}
