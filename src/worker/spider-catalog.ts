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
  module: async () => {
    throw new ConfigError("spiders that are modules cannot be run here");
  },
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
  makers: Partial<SpiderMakers> = {},
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
export async function loadSpider(place: string, makers: Partial<SpiderMakers> = {}): Promise<Spider> {
  try {
    return await made(await spiderSource(place), { ...MAKERS, ...makers });
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
