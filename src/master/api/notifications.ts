import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { MAIL_STATES } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import type { ApiParts } from "./parts.js";
import { idOf, listQuery, noBody, ruleId } from "./query.js";

const listed = z.strictObject(listQuery);
const mailsListed = z.strictObject({ ...listQuery, state: z.enum(MAIL_STATES).exactOptional() });

/** What people were told, the rules that ask for it, and the mails that bring it to them. */
export function notificationRoutes(
  api: FastifyInstance,
  { store, notificationRules }: Pick<ApiParts, "store" | "notificationRules">,
): void {
  api.get("/notifications", async (request) => {
    const { items, next } = await store.notifications.list(parse(listed, request.query));
    return { items: items.map(({ at, ...rest }) => ({ ...rest, at: new Date(at).toISOString() })), next };
  });

  api.post("/notification-rules", async (request, reply) => {
    const rule = await notificationRules.create(request.body);
    return reply.code(201).header("location", `/api/v1/notification-rules/${rule.id}`).send(rule);
  });

  api.get("/notification-rules", (request) => notificationRules.list(parse(listed, request.query)));

  api.get("/notification-rules/:id", (request) => notificationRules.get(idOf(request.params, ruleId)));

  api.delete("/notification-rules/:id", async (request, reply) => {
    parse(noBody, request.body);
    await notificationRules.remove(idOf(request.params, ruleId));
    return reply.code(204).send();
  });

  api.get("/mails", async (request) => {
    const { items, next } = await store.mails.list(parse(mailsListed, request.query));
    return {
      items: items.map(({ at, nextAt, ...rest }) => ({
        ...rest,
        at: new Date(at).toISOString(),
        nextAt: nextAt === undefined ? null : new Date(nextAt).toISOString(),
      })),
      next,
    };
  });
}
