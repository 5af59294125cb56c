import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { parse } from "../crawl-request.js";
import type { EventFilter, EventStreams } from "./event-streams.js";
import { crawlId } from "./query.js";

const query = z.strictObject({
  crawl: crawlId.exactOptional(),
  /** One type, several separated by commas, or several members. */
  type: z.union([z.string(), z.array(z.string())]).exactOptional(),
});

const typePattern = z.array(
  z.string().regex(/^(#|[a-z]+(\.([a-z-]+|\*))?)$/, 'must be like "task.completed", "crawl.*" or "#"'),
);

/** What happens, as it happens: server-sent events, each the JSON of one event. */
export function eventRoutes(api: FastifyInstance, streams: EventStreams): void {
  api.get("/events", (request, reply) => {
    const { crawl, type } = parse(query, request.query);
    const types =
      type === undefined
        ? []
        : parse(z.object({ type: typePattern }), { type: [type].flat().join(",").split(",") }).type;
    if (request.method === "HEAD") return reply.type("text/event-stream").send();
    const filter: EventFilter = {
      ...(crawl === undefined ? {} : { crawl }),
      ...(types.length === 0 ? {} : { types }),
    };
    reply.hijack();
    const lastEventId = request.headers["last-event-id"];
    streams.add(reply.raw, filter, typeof lastEventId === "string" ? lastEventId : undefined);
    return reply;
  });
}
