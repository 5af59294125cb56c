import * as nodeModule from "node:module";

// What a spider may import without having it in its own folder: our package's types and functions for spiders, and the
// library for schemas that we use ourselves. It is also the program of the thread in which older Nodes resolve imports.

const OWN_SPIDER_API = "warren-crawler/spider";
const LENT = /^zod(?:\/|$)/;
const NOT_FOUND = new Set(["ERR_MODULE_NOT_FOUND", "MODULE_NOT_FOUND", "ERR_PACKAGE_PATH_NOT_EXPORTED"]);

const spiderApi = new URL("../../crawl/spider.js", import.meta.url).href;

type Context = { readonly parentURL?: string | undefined; readonly conditions?: readonly string[] };
type Resolved = { readonly url: string; readonly format?: string | null; readonly shortCircuit?: boolean };
type Next<Result> = (specifier: string, context?: Context) => Result;

/** The spider's own comes first; ours is lent to those that have none. */
export async function resolve(
  specifier: string,
  context: Context,
  next: Next<Resolved | Promise<Resolved>>,
): Promise<Resolved> {
  try {
    return await next(specifier, context);
  } catch (error) {
    const lent = lentFor(specifier, context, error);
    if (typeof lent === "string") return { url: lent, shortCircuit: true };
    return await next(specifier, lent);
  }
}

function resolveSync(specifier: string, context: Context, next: Next<Resolved>): Resolved {
  try {
    return next(specifier, context);
  } catch (error) {
    const lent = lentFor(specifier, context, error);
    if (typeof lent === "string") return { url: lent, shortCircuit: true };
    return next(specifier, lent);
  }
}

/** The URL of what is lent, or from where it is to be looked for. @throws the error if nothing is lent under that name */
function lentFor(specifier: string, context: Context, error: unknown): string | Context {
  const code = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined;
  if (code === undefined || !NOT_FOUND.has(code)) throw error;
  if (specifier === OWN_SPIDER_API) return spiderApi;
  if (LENT.test(specifier)) return { ...context, parentURL: import.meta.url };
  throw error;
}

/** From here on, imports of this process are resolved so. */
export function lendImports(): void {
  // In the same thread where Node can (22.15, 23.5), which is quicker, and covers `require`.
  const { registerHooks } = nodeModule as unknown as {
    registerHooks?: (hooks: { resolve: typeof resolveSync }) => void;
  };
  if (registerHooks !== undefined) registerHooks({ resolve: resolveSync });
  else nodeModule.register(import.meta.url);
}
