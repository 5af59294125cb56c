import path from "node:path";
import { pathToFileURL } from "node:url";
import type { Spider } from "../crawl/spider.js";
import type { SpiderCatalog } from "../crawl/spider-catalog.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { compileSpider } from "../spiders/declarative/index.js";
import { bundledSpiders } from "../spiders/index.js";
import { type SpiderSource, spiderSource } from "./spider-source.js";

/** Makes a spider of what lies in a folder, for one kind of spiders. @throws anything that says why it cannot */
export type SpiderMaker<Kind extends SpiderSource["kind"] = SpiderSource["kind"]> = (
  source: Extract<SpiderSource, { readonly kind: Kind }>,
) => Promise<Spider>;

/** One for each kind. */
export type SpiderMakers = { readonly [Kind in SpiderSource["kind"]]: SpiderMaker<Kind> };

const MAKERS: SpiderMakers = {
  declarative: async ({ manifest }) => compileSpider(manifest),
  module: ({ folder, entry }) => importedSpider(path.join(folder, entry)),
  process: async () => {
    throw new ConfigError("spiders that are processes cannot be run in standalone mode");
  },
};

/**
 * The bundled spiders, and the one in a file or folder if `wanted` names one.
 * @throws ConfigError when there is no such spider, or the file holds none
 */
export async function spiderCatalog(
  wanted: string | undefined,
  makers: SpiderMakers = MAKERS,
): Promise<SpiderCatalog> {
  if (wanted === undefined || bundledSpiders.has(wanted)) return bundledSpiders;
  if (!/[./\\]/.test(wanted)) {
    const known = bundledSpiders.list().map(({ name }) => name);
    throw new ConfigError(`--spider: there is no spider "${wanted}"; there are ${known.join(", ")}`);
  }
  const spider = await loadSpider(wanted, makers);
  return { get: (name) => (name === wanted || name === spider.name ? spider : bundledSpiders.get(name)) };
}

/**
 * The spider in a file or a folder, of whatever kind it is.
 * @throws ConfigError when it holds none, or it cannot be made
 */
export async function loadSpider(place: string, makers: SpiderMakers = MAKERS): Promise<Spider> {
  try {
    return await made(await spiderSource(place), makers);
  } catch (error) {
    const isPlaced = error instanceof ConfigError && error.message.includes(place);
    const message = isPlaced ? messageOf(error) : `${place}: ${messageOf(error)}`;
    throw new ConfigError(`--spider: ${message}`, { cause: error });
  }
}

function made(source: SpiderSource, makers: SpiderMakers): Promise<Spider> {
  switch (source.kind) {
    case "declarative":
      return makers.declarative(source);
    case "module":
      return makers.module(source);
    case "process":
      return makers.process(source);
    default:
      return source satisfies never;
  }
}

/** A module in this process: of a user's own machine, who knows what it does. */
async function importedSpider(file: string): Promise<Spider> {
  let loaded: unknown;
  try {
    loaded = await import(pathToFileURL(file).href);
  } catch (error) {
    throw new Error(`cannot be loaded: ${messageOf(error)}`, { cause: error });
  }
  const spider =
    typeof loaded === "object" && loaded !== null && "default" in loaded ? loaded.default : undefined;
  if (!isSpider(spider)) throw new Error("must export by default an object with `name` and `parse`");
  return spider;
}

function isSpider(value: unknown): value is Spider {
  if (typeof value !== "object" || value === null) return false;
  const { name, parse } = value as { name?: unknown; parse?: unknown };
  return typeof name === "string" && name !== "" && typeof parse === "function";
}
