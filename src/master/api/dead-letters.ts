import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { DEAD_LETTER_REASONS } from "../../bus/index.js";
import type { DeadLetterFilter, DeadLetterRecord } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import { invalid } from "../errors.js";
import type { ApiParts } from "./parts.js";
import { deadLetterId, idOf, listQuery } from "./query.js";

const filter = {
  reason: z.enum(DEAD_LETTER_REASONS).exactOptional(),
  host: z.string().min(1, "must not be empty").max(300).exactOptional(),
  crawl: z.string().min(1, "must not be empty").max(200).exactOptional(),
  error: z.string().min(1, "must not be empty").max(500).exactOptional(),
};
const listed = z.strictObject({ ...listQuery, ...filter });
const discarded = z.strictObject({
  ...filter,
  all: z.enum(["true", "false"]).exactOptional(),
});
const replayed = z.strictObject({ ...filter, all: z.boolean().exactOptional() });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})], { error: "this route takes no body" });

/** As much of a body as a list shows, in characters. */
const PREVIEW_CHARACTERS = 300;

/** Messages given up: look at them, hand them in again, discard them. */
export function deadLetterRoutes(api: FastifyInstance, { deadLetters }: Pick<ApiParts, "deadLetters">): void {
  api.get("/dead-letters", async (request) => {
    const { limit, cursor, ...wanted } = parse(listed, request.query);
    const { items, next } = await deadLetters.list(wanted, {
      limit,
      ...(cursor !== undefined && { cursor }),
    });
    return { items: items.map(rowOf), next };
  });

  api.delete("/dead-letters", async (request) => {
    const { all, ...wanted } = parse(discarded, request.query);
    requireFilter(wanted, all === "true");
    return { discarded: await deadLetters.discardAll(wanted) };
  });

  api.post("/dead-letters/replay", async (request) => {
    const { all, ...wanted } = parse(replayed, request.body ?? {});
    requireFilter(wanted, all === true);
    return deadLetters.replayAll(wanted);
  });

  api.get("/dead-letters/:id", async (request) =>
    viewOf(await deadLetters.get(idOf(request.params, deadLetterId))),
  );

  api.post("/dead-letters/:id/replay", async (request) => {
    parse(nothing, request.body);
    return rowOf(await deadLetters.replay(idOf(request.params, deadLetterId)));
  });

  api.delete("/dead-letters/:id", async (request, reply) => {
    await deadLetters.discard(idOf(request.params, deadLetterId));
    return reply.code(204).send();
  });
}

/** A filter that was forgotten must not act on everything. @throws RequestError `invalid` */
function requireFilter(wanted: DeadLetterFilter, isAll: boolean): void {
  const isEmpty = Object.keys(wanted).length === 0;
  if (isEmpty && !isAll) {
    throw invalid("all", "must be true when none of reason, host, crawl and error is given");
  }
  if (!isEmpty && isAll) throw invalid("all", "goes without reason, host, crawl and error");
}

function rowOf({ body, headers: _headers, at, crashes, ...letter }: DeadLetterRecord) {
  return {
    ...letter,
    at: new Date(at).toISOString(),
    preview: body
      .subarray(0, 4 * PREVIEW_CHARACTERS)
      .toString("utf8")
      .slice(0, PREVIEW_CHARACTERS),
    ...(crashes !== undefined && {
      crashes: crashes.map((crash) => ({ ...crash, at: new Date(crash.at).toISOString() })),
    }),
  };
}

function viewOf(letter: DeadLetterRecord) {
  const { preview: _preview, ...row } = rowOf(letter);
  const { body, bytes, headers } = letter;
  return {
    ...row,
    isWhole: body.length === bytes && headers !== undefined,
    ...(headers !== undefined && { headers }),
    ...bodyOf(body),
  };
}

/** Text as text, anything else in base64. */
function bodyOf(body: Buffer): { readonly body: string } | { readonly bodyBase64: string } {
  try {
    return { body: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(body) };
  } catch {
    return { bodyBase64: body.toString("base64") };
  }
}
