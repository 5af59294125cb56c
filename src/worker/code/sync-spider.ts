import type { HandlersOf } from "../../bus/index.js";
import { SpiderUnavailableError } from "../../crawl/errors.js";
import type { Spider } from "../../crawl/spider.js";
import type { NodeCalls } from "../../protocol/index.js";
import { CommandError } from "../errors.js";
import type { CodeCatalog, Wanted } from "./code-catalog.js";
import type { SpiderDirectory } from "./spider-directory.js";

export type SyncableSpiders = {
  readonly bundled: { get(name: string): Spider | undefined };
  readonly catalog: Pick<CodeCatalog, "current" | "sync" | "report" | "describe">;
  readonly directory: Pick<SpiderDirectory, "forget">;
};

type Sync = HandlersOf<NodeCalls>["sync-spider"];

/** Does what `sync-spider` asks for. @throws CommandError `not-found`, `unavailable` */
export async function syncSpider(
  { bundled, catalog, directory }: SyncableSpiders,
  { spider: name, version, describe = false, look = false }: Parameters<Sync>[0],
): ReturnType<Sync> {
  const ours = bundled.get(name);
  if (ours !== undefined) {
    const has = ours.version ?? "bundled";
    if (version !== undefined && version !== has) throw notHere(name, version, `, but "${has}"`);
    return { spider: name, version: has, state: "ready" };
  }
  // Whoever sends this knows of something new.
  directory.forget(name);
  const wanted: Wanted | undefined = version === undefined ? await catalog.current(name) : { name, version };
  if (wanted === undefined) throw new CommandError("not-found", `there is no spider "${name}" here`);
  const head = { spider: name, version: wanted.version };
  try {
    if (look) return { ...head, ...(await catalog.report(wanted)) };
    if (!(await catalog.sync(wanted))) throw notHere(name, wanted.version);
    const description = describe ? await catalog.describe(wanted) : undefined;
    return {
      ...head,
      ...(await catalog.report(wanted)),
      ...(description && { description: { ...description } }),
    };
  } catch (error) {
    if (error instanceof SpiderUnavailableError) throw new CommandError("unavailable", error.message);
    throw error;
  }
}

function notHere(name: string, version: string, but = ""): CommandError {
  return new CommandError("not-found", `there is no version "${version}" of spider "${name}" here${but}`);
}
