import path from "node:path";
import { pathToFileURL } from "node:url";
import type { Spider } from "../crawl/spider.js";
import type { SpiderCatalog } from "../crawl/spider-catalog.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { bundledSpiders } from "../spiders/index.js";

/**
 * The bundled spiders, and the one in a file if `wanted` names one.
 * @throws ConfigError when there is no such spider, or the file holds none
 */
export async function spiderCatalog(wanted: string | undefined): Promise<SpiderCatalog> {
  if (wanted === undefined || bundledSpiders.has(wanted)) return bundledSpiders;
  if (!/[./\\]/.test(wanted)) {
    const known = bundledSpiders.list().map(({ name }) => name);
    throw new ConfigError(`--spider: there is no spider "${wanted}"; there are ${known.join(", ")}`);
  }
  let loaded: unknown;
  try {
    loaded = await import(pathToFileURL(path.resolve(wanted)).href);
  } catch (error) {
    throw new ConfigError(`--spider: cannot load ${wanted}: ${messageOf(error)}`, { cause: error });
  }
  const spider =
    typeof loaded === "object" && loaded !== null && "default" in loaded ? loaded.default : undefined;
  if (!isSpider(spider)) {
    throw new ConfigError(`--spider: ${wanted} must export by default an object with \`name\` and \`parse\``);
  }
  return { get: (name) => (name === wanted || name === spider.name ? spider : bundledSpiders.get(name)) };
}

function isSpider(value: unknown): value is Spider {
  if (typeof value !== "object" || value === null) return false;
  const { name, parse } = value as { name?: unknown; parse?: unknown };
  return typeof name === "string" && name !== "" && typeof parse === "function";
}
