import type { FastifyInstance } from "fastify";
import { asyncApiDocument } from "../../protocol/index.js";
import { declarationSchema } from "../../spiders/declarative/index.js";

/** What machines can read about how to talk to this cluster, under the names that it uses, and to write spiders for it. */
export function documentRoutes(
  server: FastifyInstance,
  about: { readonly namespace: string; readonly version: string },
): void {
  const asyncApi = JSON.stringify(asyncApiDocument(about));
  const spiderSchema = JSON.stringify(declarationSchema());
  server.get("/asyncapi.json", (_request, reply) => reply.type("application/json").send(asyncApi));
  server.get("/spider.schema.json", (_request, reply) =>
    reply.type("application/schema+json").send(spiderSchema),
  );
}
