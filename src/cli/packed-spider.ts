import { readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import ignore, { type Ignore } from "ignore";
import { type Bundle, bundleOf, DECLARATION_FILE, DESCRIPTION_FILE } from "../crawl/bundles/bundle.js";
import { BundleError } from "../crawl/bundles/bundle-error.js";
import { type BundleFile, BundleFiles, DEFAULT_BUNDLE_LIMITS } from "../crawl/bundles/bundle-files.js";
import { packTarGz } from "../crawl/bundles/tar-packing.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { parseDeclaration } from "../spiders/declarative/index.js";
import { describeModule } from "./module-description.js";

/** A spider as it is sent. */
export type PackedSpider = {
  /** What it calls itself, or else its folder or file is called. */
  readonly name: string;
  readonly type: "application/gzip" | "application/zip";
  readonly bytes: Uint8Array;
  /** Of the bundle; undefined where somebody else packed it. */
  readonly sha256?: string;
  readonly files?: number;
  /** What the user should know. */
  readonly notes: readonly string[];
};

const IGNORE_FILE = ".warrenignore";
/** Left out unless `.warrenignore` wants it after all. */
const LEFT_OUT = [".*", "node_modules/", "__pycache__/", "*.pyc", "venv/", "*~"];
const ARCHIVES = {
  ".tgz": "application/gzip",
  ".tar.gz": "application/gzip",
  ".zip": "application/zip",
} as const;
const EXECUTABLE = 0o111;

/**
 * Packs a spider: a folder without what its `.warrenignore` names, one file, or an archive as it is.
 * @throws ConfigError when there is nothing of the kind there, or it holds no spider
 */
export async function packSpider(place: string): Promise<PackedSpider> {
  const found = await stat(place).catch((error: unknown) => {
    throw new ConfigError(`cannot read ${place}: ${messageOf(error)}`, { cause: error });
  });
  const archive = Object.entries(ARCHIVES).find(([ending]) => place.toLowerCase().endsWith(ending));
  if (found.isFile() && archive !== undefined) {
    const [ending, type] = archive;
    return {
      name: path.basename(place).slice(0, -ending.length),
      type,
      bytes: await readFile(place),
      notes: [],
    };
  }
  try {
    const folder = found.isDirectory() ? path.resolve(place) : path.dirname(path.resolve(place));
    const files = found.isDirectory() ? await filesIn(folder) : [await fileAlone(place)];
    const fallback = path.basename(folder === path.resolve(place) ? folder : place).replace(/\.[^.]*$/, "");
    return await packed(files, { place, folder, isFolder: found.isDirectory(), fallback });
  } catch (error) {
    if (!(error instanceof BundleError)) throw error;
    throw new ConfigError(`${place}: ${error.message}`, { cause: error });
  }
}

type Place = {
  readonly place: string;
  readonly folder: string;
  readonly isFolder: boolean;
  readonly fallback: string;
};

async function packed(given: readonly BundleFile[], at: Place): Promise<PackedSpider> {
  const notes: string[] = [];
  let files = given;
  let { name, bundle } = look(files, at.fallback);
  const { kind, entry } = bundle.manifest;
  if (kind === "module" && !files.some(({ path: file }) => file === DESCRIPTION_FILE)) {
    const source = at.isFolder ? path.join(at.folder, entry) : path.resolve(at.place);
    try {
      const told = await describeModule(source);
      name = told.name ?? name;
      const body = Buffer.from(`${JSON.stringify(told.description, undefined, 2)}\n`);
      files = [...files, { path: DESCRIPTION_FILE, body, isExecutable: false }];
      bundle = bundleOf(name, files, READERS);
    } catch (error) {
      notes.push(`${entry} cannot be loaded here, so a node will be asked what it is: ${messageOf(error)}`);
    }
  }
  return {
    name,
    type: "application/gzip",
    bytes: packTarGz(files),
    sha256: bundle.sha256,
    files: files.length,
    notes,
  };
}

const READERS = { faultsOf: {}, parseYaml: parseDeclaration };

function look(files: readonly BundleFile[], fallback: string): { name: string; readonly bundle: Bundle } {
  const bundle = bundleOf(fallback, files, READERS);
  const { declarative, process: ofProcess } = bundle.manifest;
  const own = (declarative ?? ofProcess)?.name;
  return { name: typeof own === "string" ? own : fallback, bundle };
}

/** A file on its own, by the name that the entry of a bundle has. */
async function fileAlone(place: string): Promise<BundleFile> {
  const extension = path.extname(place).toLowerCase();
  const body = await readFile(place);
  if ([".mjs", ".js"].includes(extension)) return { path: "spider.mjs", body, isExecutable: false };
  if (extension === ".ts") return { path: "spider.ts", body, isExecutable: false };
  if (extension === ".json") return { path: DECLARATION_FILE, body, isExecutable: false };
  if ([".yaml", ".yml"].includes(extension)) return { path: "spider.yaml", body, isExecutable: false };
  throw new ConfigError(`${place}: must be a folder, an archive, or a .mjs, .js, .ts, .json or .yaml file`);
}

async function filesIn(folder: string): Promise<readonly BundleFile[]> {
  const rules = ignore().add(LEFT_OUT);
  const own = await readFile(path.join(folder, IGNORE_FILE), "utf8").catch(() => undefined);
  if (own !== undefined) rules.add(own);
  const files = new BundleFiles(DEFAULT_BUNDLE_LIMITS);
  await collect(folder, "", rules, files);
  return files.files;
}

async function collect(folder: string, below: string, rules: Ignore, files: BundleFiles): Promise<void> {
  for (const entry of await readdir(path.join(folder, below), { withFileTypes: true })) {
    const relative = below === "" ? entry.name : `${below}/${entry.name}`;
    if (rules.ignores(entry.isDirectory() ? `${relative}/` : relative) || relative === IGNORE_FILE) continue;
    if (entry.isDirectory()) {
      await collect(folder, relative, rules, files);
    } else if (entry.isFile()) {
      const file = path.join(folder, relative);
      const { size, mode } = await stat(file);
      const kept = files.expect(relative, size);
      files.add({ path: kept, body: await readFile(file), isExecutable: (mode & EXECUTABLE) !== 0 });
    } else {
      throw new BundleError("invalid", `is a link, or no file: leave it out in ${IGNORE_FILE}`, {
        path: relative,
      });
    }
  }
}
