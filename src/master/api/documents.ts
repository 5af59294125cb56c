import type { FastifyInstance } from "fastify";
import { asyncApiDocument } from "../../protocol/index.js";

/** What machines can read about how to talk to this cluster, under the names that it uses. */
export function documentRoutes(
  server: FastifyInstance,
  about: { readonly namespace: string; readonly version: string },
): void {
  const asyncApi = JSON.stringify(asyncApiDocument(about));
  server.get("/asyncapi.json", (_request, reply) => reply.type("application/json").send(asyncApi));
}
