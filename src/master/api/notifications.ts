import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { parse } from "../crawl-request.js";
import type { ApiParts } from "./parts.js";
import { listQuery } from "./query.js";

const listed = z.strictObject(listQuery);

/** Notifications that were sent over the bus, newest first. */
export function notificationRoutes(api: FastifyInstance, { store }: Pick<ApiParts, "store">): void {
  api.get("/notifications", async (request) => {
    const { items, next } = await store.notifications.list(parse(listed, request.query));
    return { items: items.map(({ at, ...rest }) => ({ ...rest, at: new Date(at).toISOString() })), next };
  });
}
