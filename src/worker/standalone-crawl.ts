import { readFile } from "node:fs/promises";
import { parse as parseYaml } from "yaml";
import type { ZodError } from "zod";
import type { Crawl } from "../crawl/crawl.js";
import { crawlRequest, spiderOf } from "../crawl/crawl-request.js";
import { asRun, isRunnable } from "../crawl/run.js";
import type { SpiderCatalog } from "../crawl/spider-catalog.js";
import { withSettings } from "../crawl/spider-settings.js";
import { canonicalUrl } from "../crawl/urls/url.js";
import type { Config } from "../lib/config.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { fieldErrorsOf } from "../lib/field-errors.js";
import { withoutPassword } from "../lib/logger.js";

type Settings = Config<"config" | "seed" | "spider" | "maxDepth" | "maxPages">;

/**
 * The crawl that a standalone worker was asked for: its configuration file, with what flags say on top.
 * @throws ConfigError naming the flag or the member of the file that is wrong
 */
export async function crawlOf(settings: Settings, spiders: SpiderCatalog): Promise<Crawl> {
  const fromFile = settings.config === undefined ? {} : await readCrawlFile(settings.config);
  const flags = await flagsOver(settings, spiders);
  const { limits, ...over } = flags;
  const given = {
    ...fromFile,
    ...over,
    // What is no object in the file stays as it is, for the schema to refuse.
    ...(isRecord(fromFile.limits ?? {}) && { limits: { ...(fromFile.limits ?? {}), ...limits } }),
  };
  const name = spiderOf(given)?.spider;
  const spider = name === undefined ? undefined : await spiders.get(name);
  const parsed = crawlRequest.safeParse(withSettings(given, spider?.settings));
  if (!parsed.success) throw refusal(parsed.error, flags);
  const { nodes: _nodes, ...spec } = parsed.data;
  if (spider === undefined) throw new ConfigError(`--config spider: there is no spider "${spec.spider}"`);
  const seeds = spec.seeds.length > 0 ? spec.seeds : (spider.seeds ?? []);
  const runs = isRunnable(spider);
  if (seeds.length === 0 && !runs) throw new ConfigError("--seed: nothing to crawl; give at least one URL");
  for (const seed of seeds) {
    if (canonicalUrl(seed) !== undefined) continue;
    const origin =
      over.seeds !== undefined ? "--seed" : spec.seeds.length > 0 ? "--config seeds:" : "--spider: its seed";
    throw new ConfigError(`${origin} must be an absolute http(s) URL, not "${withoutPassword(seed)}"`);
  }
  const whole = { ...spec, seeds };
  return {
    ...(runs ? asRun(whole) : whole),
    id: "standalone",
    status: "running",
    generation: 1,
    startedAt: Date.now(),
  };
}

/** What the flags say of the crawl. A spider that was given as a file goes by its own name from here on. */
async function flagsOver(settings: Settings, spiders: SpiderCatalog) {
  const { spider, seed, maxDepth, maxPages } = settings;
  const named = spider === undefined ? undefined : await spiders.get(spider);
  if (spider !== undefined && named === undefined) {
    throw new ConfigError(`--spider: there is no spider "${spider}"`);
  }
  return {
    ...(named !== undefined && { spider: named.name }),
    ...(seed.length > 0 && { seeds: seed }),
    limits: { ...(maxDepth !== undefined && { maxDepth }), ...(maxPages !== undefined && { maxPages }) },
  };
}

/** The first fault that the schema found, told by the flag or the member of the file that it is in. */
function refusal(error: ZodError, flags: Awaited<ReturnType<typeof flagsOver>>): ConfigError {
  const [fault] = fieldErrorsOf(error);
  const { field, message } = fault ?? { field: "", message: "is not a crawl" };
  const [first] = field.split(".");
  const origin =
    first === "seeds" && flags.seeds !== undefined
      ? "--seed"
      : first === "spider" && flags.spider !== undefined
        ? "--spider"
        : `--config ${field}`;
  return new ConfigError(`${origin}: ${message}`);
}

async function readCrawlFile(file: string): Promise<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = parseYaml(await readFile(file, "utf8"));
  } catch (error) {
    throw new ConfigError(`--config: cannot read ${file}: ${messageOf(error)}`, { cause: error });
  }
  if (!isRecord(parsed)) {
    throw new ConfigError(`--config: ${file} must hold an object with the members of a crawl`);
  }
  return parsed;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
