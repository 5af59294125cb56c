import { z } from "zod";
import { crawlRequest } from "../../crawl/crawl-request.js";
import type { SpiderSettings } from "../../crawl/spider.js";

const { scope, limits, politeness, urls, links, fetch, render, recrawl, duplicates } = crawlRequest.shape;
const groups = z
  .strictObject({
    scope: scope.unwrap(),
    limits: limits.unwrap(),
    politeness: politeness.unwrap(),
    urls,
    links,
    fetch,
    render,
    recrawl,
    duplicates,
  })
  .partial();

/**
 * Members of a crawl, checked as those of a crawl and kept as they are written, so that no default of theirs stands in
 * the way of what a crawl says.
 */
export const spiderSettings: z.ZodType<SpiderSettings> = z.unknown().transform((given, context) => {
  const { error } = groups.safeParse(given);
  if (error === undefined) return given as SpiderSettings;
  for (const { path, message } of error.issues) {
    context.issues.push({ code: "custom", path: [...path], message, input: given });
  }
  return z.NEVER;
});
