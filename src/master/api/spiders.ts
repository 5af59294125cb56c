import type { FastifyInstance, FastifyReply } from "fastify";
import { z } from "zod";
import { type BundleLimits, DEFAULT_BUNDLE_LIMITS } from "../../crawl/bundles/bundle-files.js";
import { spiderName, versionNumber } from "../../crawl/crawl-request.js";
import type { SpiderSettings } from "../../crawl/spider.js";
import { shownSettings } from "../../crawl/spider-settings.js";
import type { StoredFile, StoredVersion } from "../../store/index.js";
import { parse } from "../crawl-request.js";
import { notFound, RequestError } from "../errors.js";
import { diffOf, textOf } from "../spider-diff.js";
import { readUpload, UPLOAD_TYPES, type UploadType } from "../spider-upload.js";
import type { ApiParts } from "./parts.js";
import { listQuery } from "./query.js";

export type SpiderUploadOptions = {
  /** Bytes of an upload, as it comes over the wire. */
  readonly maxUploadBytes: number;
  /** What it may hold, once unpacked. */
  readonly limits: BundleLimits;
};

export const DEFAULT_UPLOAD_OPTIONS: SpiderUploadOptions = {
  maxUploadBytes: 32 * 2 ** 20,
  limits: DEFAULT_BUNDLE_LIMITS,
};

/** That a spider is someone else's. */
const declaration = z.strictObject({ external: z.literal(true, { error: "must be true" }) });
const named = z.object({ name: spiderName });
const ofVersion = z.object({ name: spiderName, version: versionNumber });
const ofFile = ofVersion.extend({ "*": z.string().min(1, "must name a file").max(300) });
const listed = z.strictObject(listQuery);
const compared = z.strictObject({ from: versionNumber.exactOptional(), to: versionNumber.exactOptional() });
const rollback = z.strictObject({ version: versionNumber });
const nothing = z.union([z.undefined(), z.null(), z.strictObject({})], { error: "this route takes no body" });
const ADMINS_ONLY = { role: "admin" } as const;
/** How long nodes are waited for that tell how a version stands there, in milliseconds. */
const LOOK_TIMEOUT_MS = 3_000;

/** The spiders that are there: those that come with Warren, and those that were put. */
export function spiderRoutes(
  api: FastifyInstance,
  { spiders, store, bus }: Pick<ApiParts, "spiders" | "store" | "bus">,
  { maxUploadBytes, limits }: SpiderUploadOptions = DEFAULT_UPLOAD_OPTIONS,
): void {
  const bytesOf = async ({ contentId, sha256 }: StoredFile) => {
    const chunks: Buffer[] = [];
    for await (const chunk of await store.code.open(contentId)) chunks.push(chunk as Buffer);
    const bytes = Buffer.concat(chunks);
    return { bytes, etag: `"${sha256}"` };
  };

  api.get("/spiders", async () => ({ items: (await spiders.list()).map(shown), next: null }));

  api.get("/spiders/:name", async (request) => {
    const { name } = parse(named, request.params);
    const spider = await spiders.get(name);
    if (spider === undefined) throw notFound("spider", name);
    if (spider.sha256 === undefined) return shown(spider);
    return { ...shown(spider), versions: await store.versions.count(name) };
  });

  api.register((uploads, _options, done) => {
    for (const type of UPLOAD_TYPES) {
      if (type === "application/json") continue;
      uploads.addContentTypeParser(type, { parseAs: "buffer" }, (_request, body, parsed) =>
        parsed(null, body),
      );
    }
    uploads.addContentTypeParser("*", (_request, _payload, parsed) => parsed(unsupported()));
    uploads.put(
      "/spiders/:name",
      { config: ADMINS_ONLY, bodyLimit: maxUploadBytes },
      async (request, reply) => {
        const { name } = parse(named, request.params);
        const { body } = request;
        if (typeof body === "object" && body !== null && "external" in body) {
          parse(declaration, body);
          const { spider, isNew } = await spiders.putExternal(name);
          return reply.code(isNew ? 201 : 200).send(spider);
        }
        const bundle = await readUpload(
          name,
          { type: typeOf(request.headers["content-type"]), body },
          limits,
        );
        const { version, sha256, kind } = await spiders.putCode(bundle);
        return reply
          .code(201)
          .header("location", `/api/v1/spiders/${name}/versions/${version}`)
          .send({ name, version, sha256, kind });
      },
    );
    done();
  });

  api.delete("/spiders/:name", { config: ADMINS_ONLY }, async (request, reply) => {
    const { name } = parse(named, request.params);
    parse(nothing, request.body);
    await spiders.remove(name);
    return reply.code(204).send();
  });

  api.get("/spiders/:name/versions", async (request) => {
    const { name } = parse(named, request.params);
    const { items, next } = await spiders.versions(name, parse(listed, request.query));
    return { items: items.map(({ createdAt, ...row }) => ({ ...row, createdAt: isoOf(createdAt) })), next };
  });

  api.get("/spiders/:name/versions/:version", async (request) => {
    const { name, version } = parse(ofVersion, request.params);
    return viewOf(await spiders.version(name, version));
  });

  api.get("/spiders/:name/versions/:version/files/*", async (request, reply) => {
    const { name, version, "*": path } = parse(ofFile, request.params);
    const { files } = await spiders.version(name, version);
    const file = files.find((each) => each.path === path);
    if (file === undefined) throw notFound(`file of version ${version} of spider "${name}"`, path);
    const { bytes, etag } = await bytesOf(file);
    return sendFile(reply.header("etag", etag), bytes);
  });

  api.get("/spiders/:name/versions/:version/nodes", async (request) => {
    const { name, version } = parse(ofVersion, request.params);
    await spiders.version(name, version);
    const expected = (await store.nodes.present()).map(({ id }) => id);
    if (expected.length === 0) return { items: [], silent: [] };
    const { answers, silent } = await bus.calls.broadcastCall(
      "sync-spider",
      { spider: name, version, look: true },
      { expected, timeoutMs: LOOK_TIMEOUT_MS },
    );
    const items = answers.map((answer) => {
      if (!answer.ok) return { node: answer.node, state: "missing", error: answer.error.message };
      const { state, install, error } = answer.result;
      return {
        ...{ node: answer.node, state },
        ...(install !== undefined && { install }),
        ...(error !== undefined && { error }),
      };
    });
    return { items, silent };
  });

  api.delete("/spiders/:name/versions/:version", { config: ADMINS_ONLY }, async (request, reply) => {
    const { name, version } = parse(ofVersion, request.params);
    parse(nothing, request.body);
    await spiders.removeVersion(name, version);
    return reply.code(204).send();
  });

  api.get("/spiders/:name/diff", async (request) => {
    const { name } = parse(named, request.params);
    const query = parse(compared, request.query);
    const { from, to } = { ...(await spiders.lastChange(name, query)), ...query };
    const [before, after] = await Promise.all([spiders.version(name, from), spiders.version(name, to)]);
    return diffOf(before, after, async (file) => (await bytesOf(file)).bytes);
  });

  api.post("/spiders/:name/rollback", { config: ADMINS_ONLY }, async (request) => {
    const { name } = parse(named, request.params);
    return shown(await spiders.rollBack(name, parse(rollback, request.body).version));
  });
}

function typeOf(header: string | undefined): UploadType {
  const essence = header?.split(";", 1)[0]?.trim().toLowerCase();
  const type = UPLOAD_TYPES.find((known) => known === essence);
  if (type !== undefined) return type;
  throw unsupported();
}

function unsupported(): RequestError {
  return new RequestError("unsupported-media-type", `send the code as one of ${UPLOAD_TYPES.join(", ")}`);
}

function viewOf({ name, version, kind, sha256, bytes, createdAt, manifest, isDescribed }: StoredVersion) {
  const head = { name, version, kind, sha256, bytes, createdAt: isoOf(createdAt), isDescribed };
  return { ...head, manifest: shown(manifest) };
}

/** What its crawls send to sites, such as passwords, is not shown. */
function shown<Described extends { readonly settings?: SpiderSettings }>(described: Described): Described {
  const { settings } = described;
  return settings === undefined ? described : { ...described, settings: shownSettings(settings) };
}

function isoOf(at: number): string {
  return new Date(at).toISOString();
}

/** Whatever a spider's author called it, no browser runs it here. */
function sendFile(reply: FastifyReply, bytes: Buffer): FastifyReply {
  const type = textOf(bytes) === undefined ? "application/octet-stream" : "text/plain; charset=utf-8";
  return reply.type(type).header("content-security-policy", "default-src 'none'; sandbox").send(bytes);
}
