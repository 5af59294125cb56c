import type { FastifyInstance } from "fastify";
import { z } from "zod";
import { canonicalUrl, MAX_URL_LENGTH } from "../../crawl/urls/url.js";
import { LISTED_STATES, type UrlRow } from "../../store/url-list.js";
import { parse } from "../crawl-request.js";
import { invalid } from "../errors.js";
import { UrlExplainer } from "../url-explainer.js";
import type { ApiParts } from "./parts.js";
import { crawlId, idOf, listQuery } from "./query.js";

const listed = z.strictObject({
  ...listQuery,
  state: z.enum(LISTED_STATES).exactOptional(),
  host: z.string().min(1).max(300).exactOptional(),
});

const asked = z.strictObject({ url: z.string().min(1).max(MAX_URL_LENGTH) });

/** The URLs of a crawl: look at them, add more, ask why one is as it is. */
export function urlRoutes(
  api: FastifyInstance,
  { crawls, store, waitReasons }: Pick<ApiParts, "crawls" | "store" | "waitReasons">,
): void {
  const explainer = new UrlExplainer({ urls: store.urls, pages: store.pages, waitReasons });

  api.post("/crawls/:id/urls", async (request, reply) => {
    const added = await crawls.addUrls(idOf(request.params, crawlId), request.body);
    return reply.code(202).send(added);
  });

  api.post("/crawls/:id/recrawl", async (request, reply) => {
    const reopened = await crawls.recrawl(idOf(request.params, crawlId), request.body);
    return reply.code(202).send(reopened);
  });

  api.get("/crawls/:id/urls", async (request) => {
    const id = idOf(request.params, crawlId);
    const query = parse(listed, request.query);
    const { status, nodes } = await crawls.get(id);
    const { items, next } = await store.urls.list(id, query);
    const reasons = await waitReasons.of({ id, status, nodes }, items);
    const view = (row: UrlRow) => {
      const { readyAt: _readyAt, nextVisitAt: _nextVisitAt, ...shown } = row;
      const waitReason = reasons.get(row.id);
      return {
        ...shown,
        at: new Date(row.at).toISOString(),
        ...(waitReason !== undefined && { waitReason }),
      };
    };
    return { items: items.map(view), next };
  });

  api.get("/crawls/:id/urls/why", async (request) => {
    const id = idOf(request.params, crawlId);
    const url = canonicalUrl(parse(asked, request.query).url.trim());
    if (url === undefined) throw invalid("url", "must be an absolute http or https URL");
    return explainer.explain(await crawls.record(id), url);
  });
}
