import { z } from "zod";
import { duplicatesMode } from "./content-index.js";
import { crawlLimits } from "./crawl-request.js";
import { fetchOptions, withoutSecrets } from "./fetch/fetch-options.js";
import { linkOptions } from "./pages/link-options.js";
import { politeness } from "./politeness.js";
import { recrawlOptions } from "./recrawl-options.js";
import { renderOptions } from "./render/render-options.js";
import type { SpiderSettings } from "./spider.js";
import { scopeOption } from "./urls/scope-options.js";
import { urlOptions } from "./urls/url-options.js";

const groups = z.strictObject({
  scope: scopeOption.exactOptional(),
  limits: crawlLimits.exactOptional(),
  politeness: politeness.exactOptional(),
  urls: urlOptions.exactOptional(),
  links: linkOptions.exactOptional(),
  fetch: fetchOptions.exactOptional(),
  render: renderOptions.exactOptional(),
  recrawl: recrawlOptions.exactOptional(),
  duplicates: duplicatesMode.exactOptional(),
});

/** The settings of a spider as they come from outside. They stay as they are: what they leave out, a crawl fills in. */
export const spiderSettings: z.ZodType<SpiderSettings> = z.unknown().transform((given, context) => {
  const { error } = groups.safeParse(given);
  if (error === undefined) return given as SpiderSettings;
  for (const { path, message } of error.issues) {
    context.issues.push({ code: "custom", path: [...path], message, input: given });
  }
  return z.NEVER;
});

/**
 * What someone asks of a crawl, with what its spider's settings say where that says nothing: group by group, and of a
 * group member by member. What is no request stays as it is, for the schema to refuse.
 */
export function withSettings(request: unknown, settings: SpiderSettings | undefined): unknown {
  if (settings === undefined || !isRecord(request)) return request;
  const merged: Record<string, unknown> = { ...request };
  for (const [group, ofSpider] of Object.entries(settings)) {
    const given = request[group];
    if (given === undefined) merged[group] = ofSpider;
    else if (isRecord(given) && isRecord(ofSpider)) merged[group] = { ...ofSpider, ...given };
  }
  return merged;
}

/** As they are shown: without what is sent to sites and is nobody else's business. */
export function shownSettings(settings: SpiderSettings): SpiderSettings {
  const { fetch, ...others } = settings;
  return fetch === undefined ? others : { ...others, fetch: withoutSecrets(fetch) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
