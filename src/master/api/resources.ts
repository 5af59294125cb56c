import type { FastifyInstance } from "fastify";
import { parseResourceRequest, type ResourceRequest } from "../crawl-request.js";
import type { CrawlView } from "../crawl-service.js";
import type { ApiParts } from "./parts.js";

/**
 * Crawls by the name of what they crawl: add it, delete it, add it again and it goes on. Outside the
 * versioned API, under the path that programs written for it use.
 */
export function resourceRoutes(api: FastifyInstance, { crawls }: Pick<ApiParts, "crawls">): void {
  api.post("/crawler/resource", async (request, reply) => {
    const resource = parseResourceRequest(request.body);
    const { crawl, isNew } = await crawls.resourceAdd(resource);
    return reply.code(isNew ? 201 : 200).send(view(resource, crawl));
  });

  api.delete("/crawler/resource", async (request) => {
    const resource = parseResourceRequest(request.body ?? request.query);
    return view(resource, await crawls.resourceDelete(resource.name));
  });
}

function view(resource: ResourceRequest, crawl: CrawlView) {
  return { ...crawl, crawl: crawl.id, resource };
}
