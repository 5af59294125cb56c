import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { DELIVERY_STATES, type DeliveryRecord } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import { invalid, notFound } from "../errors.js";
import type { ApiParts } from "./parts.js";
import { crawlId, deliveryId, idOf, listQuery } from "./query.js";

const listed = z.strictObject({
  ...listQuery,
  state: z.enum(DELIVERY_STATES).exactOptional(),
  crawl: crawlId.exactOptional(),
});
const replayed = z.strictObject({ crawl: crawlId.exactOptional(), all: z.boolean().exactOptional() });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})], { error: "this route takes no body" });

/** What is posted to webhooks: what waits, what was taken, and what was given up, which can be tried again. */
export function deliveryRoutes(
  api: FastifyInstance,
  { store: { deliveries } }: Pick<ApiParts, "store">,
): void {
  api.get("/deliveries", async (request) => {
    const { limit, cursor, ...filter } = parse(listed, request.query);
    const { items, next } = await deliveries.list(filter, { limit, ...(cursor !== undefined && { cursor }) });
    return { items: items.map(viewOf), next };
  });

  api.post("/deliveries/replay", async (request) => {
    const { all, crawl } = parse(replayed, request.body ?? {});
    // A filter that was forgotten must not act on everything.
    if (crawl === undefined && all !== true) throw invalid("all", "must be true when no crawl is given");
    if (crawl !== undefined && all === true) throw invalid("all", "goes without crawl");
    return { replayed: await deliveries.replayAll(crawl === undefined ? {} : { crawl }) };
  });

  api.get("/deliveries/:id", async (request) => {
    const id = idOf(request.params, deliveryId);
    const [delivery, text] = await Promise.all([deliveries.get(id), deliveries.textOf(id)]);
    if (delivery === undefined) throw notFound("delivery", id);
    return { ...viewOf(delivery), ...(text !== undefined && { body: JSON.parse(text) as unknown }) };
  });

  api.post("/deliveries/:id/replay", async (request) => {
    parse(nothing, request.body);
    return viewOf(await deliveries.replay(idOf(request.params, deliveryId)));
  });

  api.delete("/deliveries/:id", async (request, reply) => {
    await deliveries.remove(idOf(request.params, deliveryId));
    return reply.code(204).send();
  });
}

function viewOf({ at, nextAt, endedAt, ...delivery }: DeliveryRecord) {
  return {
    ...delivery,
    at: new Date(at).toISOString(),
    ...(nextAt !== undefined && { nextAt: new Date(nextAt).toISOString() }),
    ...(endedAt !== undefined && { endedAt: new Date(endedAt).toISOString() }),
  };
}
