import { z } from "zod";
import { messageOf } from "../../lib/errors.js";
import { type FieldError, fieldErrorsOf, summaryOf } from "../../lib/field-errors.js";
import { depthOf } from "../crawl-request.js";
import {
  type CodeKind,
  type ManifestFile,
  type SpiderDescription,
  type SpiderManifest,
  spiderDescription,
} from "../spider-manifest.js";
import { BundleError } from "./bundle-error.js";
import { type BundleFile, inOrder, sha256Of } from "./bundle-files.js";

/** The code of one version of a spider, as it was uploaded or packed. */
export type Bundle = {
  readonly manifest: SpiderManifest;
  /** In the order of their paths. */
  readonly files: readonly BundleFile[];
  /** Of the sorted list of its files: the same folder has the same, wherever and whenever it was packed. */
  readonly sha256: string;
};

/** What is known of declarations and manifests to whoever runs them. */
export type BundleReaders = {
  /** What is wrong with such a `spider.json`, member by member. */
  readonly faultsOf: {
    readonly [Kind in Exclude<CodeKind, "module">]?: (
      about: Readonly<Record<string, unknown>>,
    ) => readonly FieldError[];
  };
  /** Reads YAML. @throws Error that says what is wrong */
  readonly parseYaml?: (text: string) => unknown;
};

/** What describes a module, put there by its author or by whoever packed it. */
export const DESCRIPTION_FILE = "warren.json";
export const MODULE_FILE = "spider.mjs";
export const DECLARATION_FILE = "spider.json";
/** The spider of a folder whose package.json names none: the first of these that is there. */
const ENTRIES = [MODULE_FILE, "spider.js", "spider.ts", DECLARATION_FILE, "spider.yaml", "spider.yml"];
const MODULES = /\.[cm]?[jt]s$/;
const YAML = /\.ya?ml$/;
const PACKAGE_FILE = "package.json";

/** Of the files that are read here. */
const MAX_JSON_BYTES = 2 ** 20;
const MAX_JSON_DEPTH = 64;

const packageFile = z.looseObject({ main: z.string().min(1).exactOptional() });
/** What `spider.json` says for people and crawls; the rest of it is for whoever runs it. */
const ownDescription = spiderDescription.strip();
const object = z.record(z.string(), z.unknown());

/**
 * Tells what the files of a spider are: the `main` of its `package.json`, else `spider.mjs`, else `spider.json`. A
 * `spider.json` with a `command` is a process spider, any other a declarative one.
 * @throws BundleError
 */
export function bundleOf(
  name: string,
  given: readonly BundleFile[],
  readers: BundleReaders = { faultsOf: {} },
): Bundle {
  const files = inOrder(withoutTopFolder(given));
  const byPath = new Map(files.map((file) => [file.path, file]));
  const found = entryOf(byPath, readers);
  const { entry, kind, about } = found;
  const described = descriptionOf(name, byPath, found, readers);
  const listed = files.map(
    ({ path, body, isExecutable }): ManifestFile => ({
      path,
      bytes: body.byteLength,
      sha256: sha256Of(body),
      ...(isExecutable && { executable: true as const }),
    }),
  );
  const manifest: SpiderManifest = {
    name,
    kind,
    entry,
    files: listed,
    ...described,
    ...(kind === "process" && { process: about }),
    ...(kind === "declarative" && { declarative: about }),
  };
  return { manifest, files, sha256: bundleSha256(listed) };
}

/** @see Bundle.sha256 */
export function bundleSha256(files: readonly ManifestFile[]): string {
  const lines = inOrder(files).map(({ path, sha256, executable }) =>
    JSON.stringify([path, sha256, executable === true]),
  );
  return sha256Of(lines.join("\n"));
}

type Found = {
  readonly entry: string;
  readonly kind: CodeKind;
  readonly about: Readonly<Record<string, unknown>>;
};

function entryOf(byPath: ReadonlyMap<string, BundleFile>, readers: BundleReaders): Found {
  const main = packageFile.safeParse(jsonOf(byPath, PACKAGE_FILE) ?? {});
  if (!main.success)
    throw new BundleError("invalid", summaryOf(fieldErrorsOf(main.error)), { path: PACKAGE_FILE });
  const named = main.data.main?.replace(/^\.\//, "");
  if (named !== undefined && !byPath.has(named)) {
    throw new BundleError("invalid", `names "${named}" as main, which is not there`, { path: PACKAGE_FILE });
  }
  const entry = [named, ...ENTRIES].find((path) => path !== undefined && byPath.has(path));
  if (entry === undefined) {
    const sought = `a ${PACKAGE_FILE} with main, nor ${ENTRIES.join(", ")}`;
    throw new BundleError("invalid", `holds no spider: neither ${sought}`);
  }
  if (MODULES.test(entry)) return { entry, kind: "module", about: {} };
  const { parseYaml } = readers;
  if (!entry.endsWith(".json") && !(YAML.test(entry) && parseYaml !== undefined)) {
    throw new BundleError("invalid", "is named as the spider, and is neither code nor a declaration", {
      path: entry,
    });
  }
  const about = object.safeParse(
    entry.endsWith(".json") ? jsonOf(byPath, entry) : valueIn(byPath, entry, parseYaml ?? JSON.parse),
  );
  if (!about.success) throw new BundleError("invalid", "must be an object", { path: entry });
  return { entry, kind: "command" in about.data ? "process" : "declarative", about: about.data };
}

/** What a bundle says of its spider: in `warren.json`, and in its `spider.json`, which counts more. */
function descriptionOf(
  name: string,
  byPath: ReadonlyMap<string, BundleFile>,
  { entry, kind, about }: Found,
  { faultsOf }: BundleReaders,
): SpiderDescription {
  const described = spiderDescription.safeParse(jsonOf(byPath, DESCRIPTION_FILE) ?? {});
  if (!described.success) {
    throw new BundleError("invalid", summaryOf(fieldErrorsOf(described.error)), { path: DESCRIPTION_FILE });
  }
  if (kind === "module") return described.data;
  // The name under which it is put is the one that counts.
  const faults = faultsOf[kind]?.({ ...about, name }) ?? [];
  if (faults.length > 0) throw new BundleError("invalid", summaryOf(faults), { path: entry, faults });
  const own = ownDescription.safeParse({ ...about, ...("start" in about && { seeds: about.start }) });
  if (!own.success) {
    throw new BundleError("invalid", summaryOf(fieldErrorsOf(own.error)), { path: entry });
  }
  return { ...described.data, ...own.data };
}

function jsonOf(byPath: ReadonlyMap<string, BundleFile>, path: string): unknown {
  return valueIn(byPath, path, (text) => JSON.parse(text));
}

/** What is in a file, in JSON or YAML. */
function valueIn(
  byPath: ReadonlyMap<string, BundleFile>,
  path: string,
  parse: (text: string) => unknown,
): unknown {
  const file = byPath.get(path);
  if (file === undefined) return undefined;
  if (file.body.byteLength > MAX_JSON_BYTES) {
    throw new BundleError("too-large", `has more than the ${MAX_JSON_BYTES} bytes that it may have`, {
      path,
    });
  }
  let value: unknown;
  try {
    value = parse(new TextDecoder("utf-8", { fatal: true }).decode(file.body));
  } catch (error) {
    const form = path.endsWith(".json") ? "JSON" : "YAML";
    throw new BundleError("invalid", `is not ${form}: ${messageOf(error)}`, { path, cause: error });
  }
  if (depthOf(value, MAX_JSON_DEPTH) > MAX_JSON_DEPTH) {
    throw new BundleError("invalid", `must not be nested deeper than ${MAX_JSON_DEPTH}`, { path });
  }
  return value;
}

/** Archives of a folder hold that folder, as often as not: then its files are meant. */
function withoutTopFolder(files: readonly BundleFile[]): readonly BundleFile[] {
  const tops = new Set(
    files.map(({ path }) => (path.includes("/") ? path.slice(0, path.indexOf("/") + 1) : "")),
  );
  const [top] = tops;
  if (tops.size !== 1 || top === undefined || top === "") return files;
  return files.map((file) => ({ ...file, path: file.path.slice(top.length) }));
}
