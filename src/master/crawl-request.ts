import { z } from "zod";
import { type CrawlChanges, crawlChanges } from "../crawl/crawl-changes.js";
import {
  type AddUrlsRequest,
  addUrlsRequest,
  type CrawlRequest,
  crawlRequest,
  MAX_URL_CHARACTERS,
  type RecrawlRequest,
  recrawlRequest,
} from "../crawl/crawl-request.js";
import { invalidBySchema } from "./errors.js";

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseCrawlRequest(input: unknown): CrawlRequest {
  return parse(crawlRequest, input);
}

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseCrawlChanges(input: unknown): CrawlChanges {
  return parse(crawlChanges, input);
}

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseAddUrlsRequest(input: unknown): AddUrlsRequest {
  return parse(addUrlsRequest, input);
}

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseRecrawlRequest(input: unknown): RecrawlRequest {
  return parse(recrawlRequest, input);
}

const resourceRequest = z.strictObject({
  id: z.string().min(1, "must not be empty").max(200, "must have at most 200 characters").exactOptional(),
  name: z
    .string()
    .trim()
    .min(1, "must not be empty")
    .max(MAX_URL_CHARACTERS, `must have at most ${MAX_URL_CHARACTERS} characters`),
});

/** A resource by name: one URL, or a spider that has seeds of its own. */
export type ResourceRequest = { readonly id?: string; readonly name: string };

/** @throws RequestError `invalid`, naming each member that is wrong or unknown */
export function parseResourceRequest(input: unknown): ResourceRequest {
  return parse(resourceRequest, input);
}

/** Parses what came from outside. @throws RequestError `invalid` */
export function parse<Output>(schema: z.ZodType<Output>, input: unknown): Output {
  const result = schema.safeParse(input);
  if (!result.success) throw invalidBySchema(result.error);
  return result.data;
}
