import type { FastifyInstance } from "fastify";
import type { Spider } from "../../crawl/spider.js";
import { notFound } from "../errors.js";
import type { ApiParts } from "./parts.js";

/** The spiders that are there. */
export function spiderRoutes(api: FastifyInstance, { spiders }: Pick<ApiParts, "spiders">): void {
  api.get("/spiders", () => ({ items: spiders.list().map(view), next: null }));

  api.get<{ Params: { name: string } }>("/spiders/:name", (request) => {
    const spider = spiders.get(request.params.name);
    if (spider === undefined) throw notFound("spider", request.params.name);
    return view(spider);
  });
}

function view({ name, version = "1", seeds = [] }: Pick<Spider, "name" | "version" | "seeds">) {
  return { name, version, seeds };
}
