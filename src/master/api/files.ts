import { Readable } from "node:stream";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { WarcWriter } from "../../crawl/archive/warc.js";
import type { FileRecord } from "../../crawl/records.js";
import { VERSION } from "../../lib/version.js";
import { parse } from "../crawl-request.js";
import { notFound, RequestError } from "../errors.js";
import { byteRangeOf, matchesAny } from "./byte-range.js";
import type { ApiParts } from "./parts.js";
import { crawlId, fileId, idOf, listQuery } from "./query.js";

const listed = z.strictObject(listQuery);

/** Stored bodies: a list of a crawl's, and the bytes of each. */
export function fileRoutes(
  api: FastifyInstance,
  { crawls, store, clock }: Pick<ApiParts, "crawls" | "store" | "clock">,
): void {
  api.get("/crawls/:id/files", async (request) => {
    const id = idOf(request.params, crawlId);
    const query = parse(listed, request.query);
    await crawls.get(id);
    const { items, next } = await store.files.list(id, query);
    return { items: items.map(viewOf), next };
  });

  api.get("/crawls/:id/export.warc.gz", async (request, reply) => {
    const id = idOf(request.params, crawlId);
    const { archive } = await crawls.get(id);
    if (archive !== true)
      throw new RequestError("conflict", `crawl "${id}" was not archived: create it with "archive": true`);
    const writer = new WarcWriter({ software: `Warren/${VERSION}`, crawl: id, at: clock.now() });
    reply.type("application/warc").header("content-disposition", attachmentNamed(`${id}.warc.gz`));
    if (request.method === "HEAD") return reply.send();
    return reply.send(Readable.from(writer.write(store.archive.read(id)), { objectMode: false }));
  });

  const send = async (request: FastifyRequest, reply: FastifyReply) => {
    const id = idOf(request.params, fileId);
    const file = await store.files.get(id);
    if (file === undefined) throw notFound("file", id);
    const etag = `"${file.sha256}"`;
    reply.header("etag", etag).header("accept-ranges", "bytes");
    const { "if-none-match": known, range, "if-range": ifRange } = request.headers;
    if (matchesAny(known, etag)) return reply.code(304).send();
    // A range is asked for by GET alone, and only of what is still what the client has the rest of (RFC 9110, 14.2).
    const asked = request.method === "GET" && (ifRange === undefined || ifRange === etag) ? range : undefined;
    const part = byteRangeOf(asked, file.bytes);
    if (part === "unsatisfiable") {
      return reply.code(416).header("content-range", `bytes */${file.bytes}`).send();
    }
    const { start, end } = part ?? { start: 0, end: file.bytes };
    if (part !== undefined) {
      reply.code(206).header("content-range", `bytes ${start}-${end - 1}/${file.bytes}`);
    }
    reply
      .type(safeType(file.contentType))
      .header("content-length", end - start)
      .header("content-disposition", attachmentNamed(file.name))
      // Whatever a stranger's server called this, no browser runs it here.
      .header("content-security-policy", "default-src 'none'; sandbox");
    if (request.method === "HEAD") return reply.send();
    return reply.send(await store.contents.open(file.contentId, part ?? {}));
  };
  // HEAD by its own: the one that comes with GET would say that there is nothing.
  api.route({ method: ["GET", "HEAD"], url: "/files/:id", handler: send });
}

function viewOf({ contentId: _contentId, expiresAt, ...file }: FileRecord) {
  return {
    ...file,
    at: new Date(file.at).toISOString(),
    ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt).toISOString() }),
  };
}

/** A type as some server gave it, unless it could not stand in a header. */
function safeType(contentType: string): string {
  return /^[\w!#$&^.+-]+\/[\w!#$&^.+-]+(\s*;[\t\x20-\x7e]*)?$/.test(contentType)
    ? contentType
    : "application/octet-stream";
}

/** RFC 6266: a plain name for all, the exact one for those who can read it. */
function attachmentNamed(name: string): string {
  const base = name.split(/[\\/]/).at(-1) || "file";
  const plain = base.replace(/[^\x20-\x7e]|["\\%]/g, "_");
  const exact = encodeURIComponent(Buffer.from(base).toString()).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return `attachment; filename="${plain}"; filename*=UTF-8''${exact}`;
}
