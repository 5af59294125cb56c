import { z } from "zod";

/** When a rendered page counts as there. Each is waited for as long as `timeoutMs` allows. */
export const WAITS = ["load", "domcontentloaded", "networkidle"] as const;

/** `networkidle`: nothing was asked of the network for half a second. `css`: an element matches. */
export type WaitFor = (typeof WAITS)[number] | { readonly css: string };

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

/** What a request says about its own rendering; what it leaves out is the crawl's to say. */
export type RenderRequest = boolean | Partial<Omit<Rendering, "blockedTypes">>;

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

/** Longest `timeoutMs`: a task must end in time, with its fetch and its spider. */
export const MAX_RENDER_TIMEOUT_MS = 45_000;
const MAX_SCROLLS = 50;
const MAX_SELECTOR_CHARACTERS = 1_000;

function whole(least: number, most: number) {
  const bounds = `must be a whole number from ${least} to ${most}`;
  return z.int(bounds).min(least, bounds).max(most, bounds);
}

const waitFor = z.union(
  [z.enum(WAITS), z.strictObject({ css: z.string().min(1).max(MAX_SELECTOR_CHARACTERS) })],
  { error: `must be one of ${WAITS.join(", ")}, or {"css": SELECTOR}` },
);
const timeoutMs = whole(100, MAX_RENDER_TIMEOUT_MS);
const scroll = whole(0, MAX_SCROLLS);

/** The member `render` of a request, from wherever it comes. */
export const renderRequest = z.union(
  [
    z.boolean(),
    z.strictObject({
      waitFor: waitFor.exactOptional(),
      timeoutMs: timeoutMs.exactOptional(),
      scroll: scroll.exactOptional(),
      screenshot: z.boolean().exactOptional(),
    }),
  ],
  {
    error: `must be true, false or an object of waitFor, timeoutMs (100 to ${MAX_RENDER_TIMEOUT_MS}), scroll (0 to ${MAX_SCROLLS}) and screenshot`,
  },
);

/** The member `render` of a crawl. */
export const renderOptions = z.strictObject({
  mode: z.enum(["never", "asked", "always"]).default(DEFAULT_RENDER_OPTIONS.mode),
  waitFor: waitFor.default(DEFAULT_RENDER_OPTIONS.waitFor),
  timeoutMs: timeoutMs.default(DEFAULT_RENDER_OPTIONS.timeoutMs),
  scroll: scroll.default(DEFAULT_RENDER_OPTIONS.scroll),
  screenshot: z.boolean().default(DEFAULT_RENDER_OPTIONS.screenshot),
  blockedTypes: z.array(z.enum(BLOCKABLE_TYPES)).default([...DEFAULT_RENDER_OPTIONS.blockedTypes]),
});

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
