import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { RUN_STATES } from "../../crawl/run.js";
import type { RunRow } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import { notFound, RequestError } from "../errors.js";
import type { ApiParts } from "./parts.js";
import { crawlId, idOf, listQuery, nodeId } from "./query.js";

const filter = { state: z.enum(RUN_STATES).exactOptional(), node: nodeId.exactOptional() };
const listed = z.strictObject({ ...listQuery, ...filter, crawl: crawlId.exactOptional() });
const listedOfCrawl = z.strictObject({ ...listQuery, ...filter });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})], { error: "this route takes no body" });

/** The runs of spiders that run as a whole: where each runs, and what became of it. */
export function runRoutes(api: FastifyInstance, { crawls, store }: Pick<ApiParts, "crawls" | "store">): void {
  api.get("/runs", async (request) => {
    const { limit, cursor, ...wanted } = parse(listed, request.query);
    const { items, next } = await store.runs.list(wanted, { limit, ...(cursor !== undefined && { cursor }) });
    return { items: items.map(viewOf), next };
  });

  api.get("/crawls/:id/runs", async (request) => {
    const crawl = idOf(request.params, crawlId);
    const { limit, cursor, ...wanted } = parse(listedOfCrawl, request.query);
    await crawls.get(crawl);
    const options = { limit, ...(cursor !== undefined && { cursor }) };
    const { items, next } = await store.runs.list({ ...wanted, crawl }, options);
    return { items: items.map(viewOf), next };
  });

  api.post<{ Params: { run: string } }>("/runs/:run/cancel", async (request) => {
    parse(nothing, request.body);
    const { run } = request.params;
    const cancelled = await store.runs.cancel(run);
    if (cancelled !== undefined) return viewOf(cancelled);
    const known = await store.runs.get(run);
    if (known === undefined) throw notFound("run", run);
    throw new RequestError("conflict", `run "${run}" has ended: it is ${known.state}`);
  });
}

function viewOf({ createdAt, startedAt, endedAt, ...run }: RunRow) {
  return {
    ...run,
    createdAt: new Date(createdAt).toISOString(),
    startedAt: startedAt === undefined ? null : new Date(startedAt).toISOString(),
    endedAt: endedAt === undefined ? null : new Date(endedAt).toISOString(),
  };
}
