import { readFile, stat } from "node:fs/promises";
import path from "node:path";
import { ConfigError, messageOf } from "../lib/errors.js";
import { parseDeclaration } from "../spiders/declarative/index.js";

/** A spider on this machine: which kind it is of, and where it lies. */
export type SpiderSource = {
  /** All of its files, as an absolute path. */
  readonly folder: string;
  /** The file in it that is read, executed or, of a process, says what to run. */
  readonly entry: string;
} & (
  | { readonly kind: "module" }
  | { readonly kind: "declarative"; readonly manifest: unknown }
  | { readonly kind: "process"; readonly manifest: unknown }
);

const MODULES: ReadonlySet<string> = new Set([".js", ".mjs", ".cjs", ".ts", ".mts", ".cts"]);
const MANIFESTS: ReadonlySet<string> = new Set([".json", ".yaml", ".yml"]);
/** What a folder's entry may be called, the first that is there counting, if its package.json names none. */
const ENTRIES = ["spider.mjs", "spider.js", "spider.ts", "spider.json", "spider.yaml", "spider.yml"] as const;
const MAX_BYTES = 4_194_304;

/**
 * Finds out what kind of spider a file or a folder holds.
 * @throws ConfigError when it cannot be read, or is none
 */
export async function spiderSource(place: string): Promise<SpiderSource> {
  const whole = path.resolve(place);
  const isFolder = (await statOf(whole, place)).isDirectory();
  const folder = isFolder ? whole : path.dirname(whole);
  const entry = isFolder ? await entryOf(folder, place) : path.basename(whole);
  const extension = path.extname(entry).toLowerCase();
  if (MODULES.has(extension)) return { folder, entry, kind: "module" };
  if (!MANIFESTS.has(extension)) {
    const known = [...MODULES, ...MANIFESTS].join(", ");
    throw new ConfigError(
      `${path.join(place, isFolder ? entry : "")} is no spider: its name must end in ${known}`,
    );
  }
  const file = path.join(folder, entry);
  const manifest = read(file, await textOf(file, place));
  return { folder, entry, kind: isOfProcess(manifest) ? "process" : "declarative", manifest };
}

async function statOf(file: string, place: string) {
  try {
    return await stat(file);
  } catch (error) {
    throw new ConfigError(`cannot load ${place}: ${messageOf(error)}`, { cause: error });
  }
}

async function textOf(file: string, place: string): Promise<string> {
  const { size } = await statOf(file, place);
  if (size > MAX_BYTES) throw new ConfigError(`cannot load ${place}: ${size} bytes, of ${MAX_BYTES} at most`);
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    throw new ConfigError(`cannot load ${place}: ${messageOf(error)}`, { cause: error });
  }
}

/** `main` of its package.json, or else one of the usual names. */
async function entryOf(folder: string, place: string): Promise<string> {
  const main = await mainOf(path.join(folder, "package.json"));
  const [entry] = (
    await Promise.all((main === undefined ? ENTRIES : [main]).map((name) => ifFile(folder, name)))
  ).filter((name) => name !== undefined);
  if (entry !== undefined) return entry;
  const sought = main === undefined ? ENTRIES.join(", ") : `${main}, which its package.json names`;
  throw new ConfigError(`cannot load ${place}: it holds no ${sought}`);
}

async function mainOf(file: string): Promise<string | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch {
    return undefined;
  }
  const { main } = (read(file, text) ?? {}) as { readonly main?: unknown };
  return typeof main === "string" && main !== "" ? main : undefined;
}

async function ifFile(folder: string, name: string): Promise<string | undefined> {
  const file = path.resolve(folder, name);
  // What is outside is not part of the spider.
  if (!file.startsWith(folder + path.sep)) return undefined;
  const found = await stat(file).catch(() => undefined);
  return found?.isFile() === true ? path.relative(folder, file) : undefined;
}

function read(file: string, text: string): unknown {
  try {
    return file.endsWith(".json") ? JSON.parse(text) : parseDeclaration(text);
  } catch (error) {
    throw new ConfigError(`${file}: ${messageOf(error)}`, { cause: error });
  }
}

function isOfProcess(manifest: unknown): boolean {
  return typeof manifest === "object" && manifest !== null && "command" in manifest;
}
