import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { CRAWL_LOG_LEVELS } from "../../crawl/crawl-log.js";
import type { StoredLogLine } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import { type CrawlLogStreams, textOf } from "./crawl-log-streams.js";
import type { ApiParts } from "./parts.js";
import { crawlId, idOf, nodeId } from "./query.js";

/** Lines of one answer at most. */
const MAX_LINES = 10_000;

const LINES = `must be a whole number from 1 to ${MAX_LINES}`;
const whole = (message: string) =>
  z
    .string()
    .regex(/^\d{1,12}$/, message)
    .transform(Number);

const query = z.strictObject({
  lines: whole(LINES)
    .refine((lines) => lines >= 1 && lines <= MAX_LINES, LINES)
    .default(100),
  after: whole("must be the number of a line").exactOptional(),
  level: z.enum(CRAWL_LOG_LEVELS, { error: `must be one of ${CRAWL_LOG_LEVELS.join(", ")}` }).exactOptional(),
  // A control character is in no line as such, and the database takes none in what is searched for.
  text: z
    .string()
    .regex(/^[^\p{Cc}\p{Cs}]{1,200}$/u, "must be 1 to 200 characters, without control characters")
    .exactOptional(),
  node: nodeId.exactOptional(),
  follow: z.enum(["true", "false", "1", "0", ""], { error: "must be true or false" }).default("false"),
});

/**
 * What was logged about a crawl on any node. Without `after` the newest lines, by time; with it, lines in the order in
 * which they arrived, which is the order of their numbers.
 */
export function crawlLogRoutes(
  api: FastifyInstance,
  { crawls, store }: Pick<ApiParts, "crawls" | "store">,
  streams: CrawlLogStreams,
): void {
  api.get("/crawls/:id/log", async (request, reply) => {
    const id = idOf(request.params, crawlId);
    const { follow, ...given } = parse(query, request.query);
    await crawls.get(id);
    const isFollowing = !["false", "0"].includes(follow);
    const seen = isFollowing ? lastSeen(request.headers["last-event-id"]) : undefined;
    const wanted = seen === undefined ? given : { ...given, after: seen };
    if (request.method === "HEAD") {
      return reply.type(isFollowing ? "text/event-stream" : NDJSON).send();
    }
    if (isFollowing) {
      const { level, text, node, after } = wanted;
      const filter = {
        crawl: id,
        ...(level !== undefined && { level }),
        ...(text !== undefined && { text }),
        ...(node !== undefined && { node }),
      };
      // Without a place to go on from, the newest lines come first.
      const first = after === undefined ? await store.crawlLogs.read(id, wanted) : undefined;
      reply.hijack();
      streams.add(reply.raw, { ...filter, after: first?.next ?? after ?? 0 }, first?.lines ?? []);
      return reply;
    }
    const { lines, next } = await store.crawlLogs.read(id, wanted);
    const shown = wanted.after === undefined ? byTime(lines) : lines;
    reply.type(NDJSON).header("x-next", String(next));
    return shown.map((line) => `${textOf(line)}\n`).join("");
  });
}

const NDJSON = "application/x-ndjson; charset=utf-8";

/** Of one node its own order counts, whatever its clock did. */
function byTime(lines: readonly StoredLogLine[]): readonly StoredLogLine[] {
  const latest = new Map<string, number>();
  const timed = lines.map((line) => {
    const at = Math.max(line.at, latest.get(line.node) ?? line.at);
    latest.set(line.node, at);
    return { line, at };
  });
  return timed.toSorted((a, b) => a.at - b.at || a.line.number - b.line.number).map(({ line }) => line);
}

/** What a client that comes back saw last; anything else that it says is not from here. */
function lastSeen(header: string | string[] | undefined): number | undefined {
  return typeof header === "string" && /^\d{1,12}$/.test(header) ? Number(header) : undefined;
}
