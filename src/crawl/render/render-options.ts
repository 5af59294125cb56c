import { z } from "zod";
import { type RenderRequest, renderMembers, type WaitFor } from "../../lib/render-request.js";

/** Kinds of requests of a page that can be left out, as the browser calls them. */
export const BLOCKABLE_TYPES = [
  "image",
  "media",
  "font",
  "stylesheet",
  "script",
  "xhr",
  "fetch",
  "document",
] as const;
export type BlockableType = (typeof BLOCKABLE_TYPES)[number];

/** How one page is to be rendered. */
export type Rendering = {
  /** @default "networkidle" */
  readonly waitFor: WaitFor;
  /** For the page to be there; what there is then is taken. In milliseconds. @default 15_000 */
  readonly timeoutMs: number;
  /** How often it is scrolled to its end, for pages that load more there. @default 0 */
  readonly scroll: number;
  /** Whether a picture of it is stored as a file of the crawl. @default false */
  readonly screenshot: boolean;
  /** Requests of the page that are not made; `document` stands for frames. @default image, media, font */
  readonly blockedTypes: readonly BlockableType[];
};

/** A crawl's rendering. */
export type RenderOptions = Rendering & {
  /** `asked`: pages whose request asks for it. @default "asked" */
  readonly mode: "never" | "asked" | "always";
};

export const DEFAULT_RENDER_OPTIONS: RenderOptions = {
  mode: "asked",
  waitFor: "networkidle",
  timeoutMs: 15_000,
  scroll: 0,
  screenshot: false,
  blockedTypes: ["image", "media", "font"],
};

/** The member `render` of a crawl. */
export const renderOptions = z.strictObject({
  mode: z.enum(["never", "asked", "always"]).default(DEFAULT_RENDER_OPTIONS.mode),
  waitFor: renderMembers.waitFor.default(DEFAULT_RENDER_OPTIONS.waitFor),
  timeoutMs: renderMembers.timeoutMs.default(DEFAULT_RENDER_OPTIONS.timeoutMs),
  scroll: renderMembers.scroll.default(DEFAULT_RENDER_OPTIONS.scroll),
  screenshot: renderMembers.screenshot.default(DEFAULT_RENDER_OPTIONS.screenshot),
  blockedTypes: z.array(z.enum(BLOCKABLE_TYPES)).default([...DEFAULT_RENDER_OPTIONS.blockedTypes]),
});

/** Whether a request asks for a rendered page. */
export function asksToRender(asked: RenderRequest | undefined): boolean {
  return asked !== undefined && asked !== false;
}

/** How a page of this crawl is to be rendered; undefined when it is not to be. */
export function renderingOf(
  options: RenderOptions | undefined,
  asked: RenderRequest | undefined,
): Rendering | undefined {
  // As nearly always.
  if (options === undefined && asked === undefined) return undefined;
  const { mode, ...rendering } = options ?? DEFAULT_RENDER_OPTIONS;
  if (mode === "never" || asked === false || (mode === "asked" && asked === undefined)) return undefined;
  return typeof asked === "object" ? { ...rendering, ...asked } : rendering;
}
