import { z } from "zod";

/** When a rendered page counts as there. Each is waited for as long as the time allows. */
export const WAITS = ["load", "domcontentloaded", "networkidle"] as const;

/** `networkidle`: nothing was asked of the network for half a second. `css`: an element matches. */
export type WaitFor = (typeof WAITS)[number] | { readonly css: string };

/** Whether a page is to be rendered by a browser, and how; what is left out is the crawl's to say. */
export type RenderRequest =
  | boolean
  | {
      readonly waitFor?: WaitFor;
      /** For the page to be there, in milliseconds. */
      readonly timeoutMs?: number;
      /** How often it is scrolled to its end. */
      readonly scroll?: number;
      /** Whether a picture of it is stored as a file. */
      readonly screenshot?: boolean;
    };

/** Longest `timeoutMs`: a task must end in time, with its fetch and its spider. */
export const MAX_RENDER_TIMEOUT_MS = 45_000;
const MAX_SCROLLS = 50;
const MAX_SELECTOR_CHARACTERS = 1_000;

function whole(least: number, most: number) {
  const bounds = `must be a whole number from ${least} to ${most}`;
  return z.int(bounds).min(least, bounds).max(most, bounds);
}

/** The members that a request and a crawl have in common. */
export const renderMembers = {
  waitFor: z.union([z.enum(WAITS), z.strictObject({ css: z.string().min(1).max(MAX_SELECTOR_CHARACTERS) })], {
    error: `must be one of ${WAITS.join(", ")}, or {"css": SELECTOR}`,
  }),
  timeoutMs: whole(100, MAX_RENDER_TIMEOUT_MS),
  scroll: whole(0, MAX_SCROLLS),
  screenshot: z.boolean("must be true or false"),
} as const;

/** The member `render` of a request, from wherever it comes. */
export const renderRequest = z.union(
  [
    z.boolean(),
    z.strictObject({
      waitFor: renderMembers.waitFor.exactOptional(),
      timeoutMs: renderMembers.timeoutMs.exactOptional(),
      scroll: renderMembers.scroll.exactOptional(),
      screenshot: renderMembers.screenshot.exactOptional(),
    }),
  ],
  {
    error: `must be true, false or an object of waitFor, timeoutMs (100 to ${MAX_RENDER_TIMEOUT_MS}), scroll (0 to ${MAX_SCROLLS}) and screenshot`,
  },
);
