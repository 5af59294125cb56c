import { readFile } from "node:fs/promises";
import { parse as parseYaml } from "yaml";
import type { Crawl } from "../crawl/crawl.js";
import { crawlRequest } from "../crawl/crawl-request.js";
import type { SpiderCatalog } from "../crawl/engine.js";
import type { Config } from "../lib/config.js";
import { ConfigError, messageOf } from "../lib/errors.js";

type Settings = Config<"config" | "seed" | "spider" | "maxDepth" | "maxPages">;

/**
 * The crawl that a standalone worker was asked for: its configuration file, with what flags say on top.
 * @throws ConfigError naming the flag or the member of the file that is wrong
 */
export async function crawlOf(settings: Settings, spiders: SpiderCatalog): Promise<Crawl> {
  const fromFile = settings.config === undefined ? {} : await readCrawlFile(settings.config);
  const limits = {
    ...(typeof fromFile.limits === "object" ? fromFile.limits : {}),
    ...(settings.maxDepth !== undefined && { maxDepth: settings.maxDepth }),
    ...(settings.maxPages !== undefined && { maxPages: settings.maxPages }),
  };
  const given = {
    ...fromFile,
    ...(settings.spider !== undefined && { spider: settings.spider }),
    ...(settings.seed.length > 0 && { seeds: settings.seed }),
    limits,
  };
  const name = typeof given.spider === "string" ? given.spider : "links";
  const spider = spiders.get(name);
  if (spider === undefined) throw new ConfigError(`--spider: there is no spider "${name}"`);
  const seeds = "seeds" in given ? given.seeds : spider.seeds;
  if (seeds === undefined) throw new ConfigError("--seed: nothing to crawl; give at least one URL");
  const parsed = crawlRequest.safeParse({ ...given, spider: name, seeds });
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const member = issue?.path.join(".") ?? "";
    const flag = member.startsWith("seeds") ? "--seed" : `--config ${member}`;
    throw new ConfigError(`${flag}: ${issue?.message ?? "is not a crawl"}`);
  }
  const { nodes: _nodes, ...spec } = parsed.data;
  return {
    ...spec,
    id: "standalone",
    status: "running",
    generation: 1,
    startedAt: Date.now(),
  };
}

async function readCrawlFile(file: string): Promise<Record<string, unknown>> {
  let parsed: unknown;
  try {
    parsed = parseYaml(await readFile(file, "utf8"));
  } catch (error) {
    throw new ConfigError(`--config: cannot read ${file}: ${messageOf(error)}`, { cause: error });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new ConfigError(`--config: ${file} must hold an object with the members of a crawl`);
  }
  return { ...parsed };
}
