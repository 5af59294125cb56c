import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { spiderName } from "../../crawl/crawl-request.js";
import { shownSettings } from "../../crawl/spider-settings.js";
import { parse } from "../crawl-request.js";
import { notFound } from "../errors.js";
import type { KnownSpider } from "../spider-catalog.js";
import type { ApiParts } from "./parts.js";

/** What may be put so far: that a spider is someone else's. Code will be another content type. */
const declaration = z.strictObject({
  external: z.literal(true, {
    error: "must be true: only external spiders can be put so far, code and declarative spiders cannot",
  }),
});
const named = z.object({ name: spiderName });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})], { error: "this route takes no body" });
const ADMINS_ONLY = { config: { role: "admin" } } as const;

/** The spiders that are there: those that come with Warren, and those that were put. */
export function spiderRoutes(api: FastifyInstance, { spiders }: Pick<ApiParts, "spiders">): void {
  api.get("/spiders", async () => ({ items: (await spiders.list()).map(viewOf), next: null }));

  api.get<{ Params: { name: string } }>("/spiders/:name", async (request) => {
    const { name } = request.params;
    const spider = await spiders.get(name);
    if (spider === undefined) throw notFound("spider", name);
    return viewOf(spider);
  });

  api.put("/spiders/:name", ADMINS_ONLY, async (request, reply) => {
    const { name } = parse(named, request.params);
    parse(declaration, request.body);
    const { spider, isNew } = await spiders.putExternal(name);
    return reply.code(isNew ? 201 : 200).send(viewOf(spider));
  });

  api.delete("/spiders/:name", ADMINS_ONLY, async (request, reply) => {
    const { name } = parse(named, request.params);
    parse(nothing, request.body);
    await spiders.remove(name);
    return reply.code(204).send();
  });
}

/** What its crawls send to sites, such as passwords, is not shown. */
function viewOf({ settings, ...spider }: KnownSpider): KnownSpider {
  return settings === undefined ? spider : { ...spider, settings: shownSettings(settings) };
}
