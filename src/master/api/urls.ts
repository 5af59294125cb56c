import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { LISTED_STATES, type UrlRow } from "../../store/url-list.js";
import { parse } from "../crawl-request.js";
import type { ApiParts } from "./parts.js";
import { crawlId, idOf, listQuery } from "./query.js";

const listed = z.strictObject({
  ...listQuery,
  state: z.enum(LISTED_STATES).exactOptional(),
  host: z.string().min(1).max(300).exactOptional(),
});

/** The URLs of a crawl: look at them, add more. */
export function urlRoutes(
  api: FastifyInstance,
  {
    crawls,
    store,
    nodes,
    clock,
    waitReason,
  }: Pick<ApiParts, "crawls" | "store" | "nodes" | "clock" | "waitReason">,
): void {
  api.post("/crawls/:id/urls", async (request, reply) => {
    const added = await crawls.addUrls(idOf(request.params, crawlId), request.body);
    return reply.code(202).send(added);
  });

  api.get("/crawls/:id/urls", async (request) => {
    const id = idOf(request.params, crawlId);
    const query = parse(listed, request.query);
    const { status } = await crawls.get(id);
    const { items, next } = await store.urls.list(id, query);
    const whyWaits = (row: UrlRow): string | undefined => {
      if (row.state !== "queued") return undefined;
      if (status !== "running") return status;
      if (nodes.capacity() === 0) return "no worker";
      if (row.readyAt !== undefined && row.readyAt > clock.now()) {
        return `retry at ${new Date(row.readyAt).toISOString()}`;
      }
      return waitReason?.(id, row.host);
    };
    const view = (row: UrlRow) => {
      const { readyAt: _readyAt, ...shown } = row;
      const reason = whyWaits(row);
      return {
        ...shown,
        at: new Date(row.at).toISOString(),
        ...(reason === undefined ? {} : { waitReason: reason }),
      };
    };
    return { items: items.map(view), next };
  });
}
