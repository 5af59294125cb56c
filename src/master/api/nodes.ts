import { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { CallError } from "../../bus/index.js";
import { nodeLabels } from "../../crawl/node-selection.js";
import { LOG_LEVELS } from "../../lib/logger.js";
import { MAX_LOG_LINES, MAX_PROFILE_SECONDS } from "../../protocol/index.js";
import { NODE_STATUSES, type NodeRow } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import { notFound } from "../errors.js";
import type { ApiParts } from "./parts.js";
import { idOf, listQuery, nodeId } from "./query.js";

/** How long a change of a node's settings waits for the node, in milliseconds. */
const TELL_TIMEOUT_MS = 3_000;

const listed = z.strictObject({ ...listQuery, status: z.enum(NODE_STATUSES).exactOptional() });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})], { error: "this route takes no body" });

const change = z
  .strictObject({
    concurrency: z
      .int()
      .min(1, "must be from 1 to 1000")
      .max(1_000, "must be from 1 to 1000")
      .nullable()
      .exactOptional(),
    logLevel: z.enum(LOG_LEVELS).nullable().exactOptional(),
    labels: nodeLabels.exactOptional(),
  })
  .refine(
    (asked) => Object.keys(asked).length > 0,
    "must have at least one of concurrency, logLevel and labels",
  );

const logQuery = z.strictObject({
  crawl: z.string().min(1).max(100).exactOptional(),
  lines: numeric(1, MAX_LOG_LINES).default(100),
  after: numeric(0, Number.MAX_SAFE_INTEGER).exactOptional(),
});

const profileQuery = z.strictObject({
  kind: z.enum(["cpu", "heap"], { error: 'must be "cpu" or "heap"' }),
  seconds: numeric(1, MAX_PROFILE_SECONDS).default(5),
});

/** A whole number in a query. */
function numeric(least: number, most: number) {
  const bounds = `must be a whole number from ${least} to ${most}`;
  return z.coerce.number(bounds).int(bounds).min(least, bounds).max(most, bounds);
}

/** How much longer than the profile takes a master waits for it, in milliseconds. */
const PROFILE_GRACE_MS = 15_000;

async function* profileText(first: string, rest: AsyncIterable<string>): AsyncGenerator<string> {
  yield first;
  yield* rest;
}

/** The nodes: what is known of them, and commands to them. */
export function nodeRoutes(api: FastifyInstance, { store, bus }: Pick<ApiParts, "store" | "bus">): void {
  const find = async (params: unknown): Promise<NodeRow> => {
    const id = idOf(params, nodeId);
    const node = await store.nodes.get(id);
    if (node === undefined) throw notFound("node", id);
    return node;
  };

  api.get("/nodes", async (request) => {
    const { items, next } = await store.nodes.list(parse(listed, request.query));
    return { items: items.map(viewOf), next };
  });

  api.get("/nodes/:id", async (request) => viewOf(await find(request.params)));

  api.get("/nodes/:id/system", async (request) => {
    const { id } = await find(request.params);
    return bus.calls.callNode(id, "system-info");
  });

  api.get("/nodes/:id/tasks", async (request) => {
    const { id } = await find(request.params);
    const { tasks } = await bus.calls.callNode(id, "active-tasks");
    return { items: tasks, next: null };
  });

  api.get("/nodes/:id/log", async (request, reply) => {
    const query = parse(logQuery, request.query);
    const { id } = await find(request.params);
    const { lines, next } = await bus.calls.callNode(id, "get-log", query);
    reply.type("application/x-ndjson; charset=utf-8").header("x-next", String(next));
    return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
  });

  api.get("/nodes/:id/profile", { config: { role: "operator" } }, async (request, reply) => {
    const { kind, seconds } = parse(profileQuery, request.query);
    const { id } = await find(request.params);
    const leaving = new AbortController();
    reply.raw.once("close", () => leaving.abort());
    const parts = bus.calls.streamNode(
      id,
      "get-profile",
      { kind, seconds },
      { timeoutMs: seconds * 1_000 + PROFILE_GRACE_MS, signal: leaving.signal },
    );
    // The first part tells whether there is a profile at all, while that can still be said by the status.
    const first = await parts.next();
    reply
      .type("application/json")
      .header("content-disposition", `attachment; filename="${id}.${kind}profile"`);
    return reply.send(Readable.from(profileText(first.value ?? "", parts)));
  });

  for (const command of ["pause", "resume", "drain", "shutdown"] as const) {
    api.post(`/nodes/:id/${command}`, async (request) => {
      parse(nothing, request.body);
      const { id } = await find(request.params);
      return { node: id, result: (await bus.calls.callNode(id, command)) ?? null };
    });
  }

  api.patch("/nodes/:id", async (request) => {
    const { labels: newLabels, ...settings } = parse(change, request.body);
    const { id } = await find(request.params);
    if (newLabels !== undefined) await store.nodes.describe(id, newLabels);
    // Kept first: a node that is away, or that this does not reach, catches up with its next heartbeat.
    if (Object.keys(settings).length > 0) await store.nodes.want(id, settings);
    const told = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== null));
    if (Object.keys(told).length > 0) {
      try {
        await bus.calls.callNode(id, "set-config", told, { timeoutMs: TELL_TIMEOUT_MS });
      } catch (error) {
        if (!(error instanceof CallError) || !["unavailable", "timeout"].includes(error.code)) throw error;
      }
    }
    const node = await find(request.params);
    return viewOf({
      ...node,
      ...(typeof settings.concurrency === "number" && { concurrency: settings.concurrency }),
    });
  });
}

function viewOf({ startedAt, heartbeatAt, ...node }: NodeRow) {
  return {
    ...node,
    startedAt: new Date(startedAt).toISOString(),
    heartbeatAt: new Date(heartbeatAt).toISOString(),
  };
}
