import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { CRAWL_STATUSES } from "../../crawl/crawl.js";
import { parse } from "../crawl-request.js";
import { invalid } from "../errors.js";
import type { ApiParts } from "./parts.js";
import { crawlId, idOf, listQuery, noBody } from "./query.js";

const listed = z.strictObject({ ...listQuery, status: z.enum(CRAWL_STATUSES).exactOptional() });
const deletion = z.strictObject({ purge: z.enum(["true", "false"]).default("false") });

export function crawlRoutes(api: FastifyInstance, { crawls }: Pick<ApiParts, "crawls">): void {
  api.post("/crawls", async (request, reply) => {
    const key = idempotencyKeyOf(request.headers["idempotency-key"]);
    const { crawl } = await crawls.create(request.body, key);
    return reply.code(201).header("location", `/api/v1/crawls/${crawl.id}`).send(crawl);
  });

  api.get("/crawls", (request) => crawls.list(parse(listed, request.query)));

  api.get("/crawls/:id", (request) => crawls.get(idOf(request.params, crawlId)));

  api.patch("/crawls/:id", (request) => crawls.update(idOf(request.params, crawlId), request.body));

  for (const change of ["pause", "resume", "close"] as const) {
    api.post(`/crawls/:id/${change}`, (request) => {
      parse(noBody, request.body);
      return crawls[change](idOf(request.params, crawlId));
    });
  }

  api.delete("/crawls/:id", async (request, reply) => {
    const id = idOf(request.params, crawlId);
    const { purge } = parse(deletion, request.query);
    parse(noBody, request.body);
    if (purge === "false") return crawls.close(id);
    await crawls.remove(id);
    return reply.code(204).send();
  });
}

/** The header is a string of structured fields in the draft and a bare word in common use: both are taken. */
function idempotencyKeyOf(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined;
  const key = typeof header === "string" ? header.trim().replace(/^"(.*)"$/, "$1") : "";
  if (!/^[\x21-\x7e]{1,255}$/.test(key))
    throw invalid("Idempotency-Key", "must be 1 to 255 visible ASCII characters");
  return key;
}
