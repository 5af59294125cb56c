import { z } from "zod";
import { urlList } from "./crawl-request.js";
import type { SpiderSettings } from "./spider.js";
import { spiderSettings } from "./spider-settings.js";

/** What is uploaded: a declaration, a module, or a command that a worker runs. */
export const CODE_KINDS = ["declarative", "module", "process"] as const;
export type CodeKind = (typeof CODE_KINDS)[number];

/** Who reads a spider's pages: Warren with a spider of its own, workers in other languages, or what was uploaded. */
export const SPIDER_KINDS = ["bundled", "external", ...CODE_KINDS] as const;
export type SpiderKind = (typeof SPIDER_KINDS)[number];

/** A file of a version, as its manifest names it. */
export type ManifestFile = {
  /** Relative to the spider's folder, parted by `/`. */
  readonly path: string;
  readonly bytes: number;
  /** Of its bytes, in hexadecimal. */
  readonly sha256: string;
  readonly executable?: true;
};

/** What can be known of a spider without running it; of a module, only once somebody has loaded it. */
export type SpiderDescription = {
  /** In a sentence, for people. */
  readonly description?: string;
  readonly seeds?: readonly string[];
  readonly settings?: SpiderSettings;
  readonly fileTypes?: readonly string[];
  /** JSON Schema of its items' data. */
  readonly itemSchema?: Readonly<Record<string, unknown>>;
};

/** All that there is to say of one version of a spider. */
export type SpiderManifest = SpiderDescription & {
  readonly name: string;
  readonly kind: CodeKind;
  /** The file that is the spider, or says what it is. */
  readonly entry: string;
  readonly files: readonly ManifestFile[];
  /** `spider.json` of a process spider. */
  readonly process?: Readonly<Record<string, unknown>>;
  /** `spider.json` of a declarative one. */
  readonly declarative?: Readonly<Record<string, unknown>>;
};

const MAX_SCHEMA_BYTES = 262_144;

/** A description as it comes from outside: `warren.json` in a bundle, or what a node tells of a module. */
export const spiderDescription = z.strictObject({
  description: z.string().max(1_000, "must have at most 1000 characters").exactOptional(),
  seeds: urlList.exactOptional(),
  settings: spiderSettings.exactOptional(),
  fileTypes: z
    .array(z.string().regex(/^[a-z0-9.+*-]+\/[a-z0-9.+*-]+$/i, "must be a content type"))
    .max(100, "must be at most 100 content types")
    .exactOptional(),
  itemSchema: z
    .record(z.string(), z.unknown())
    .refine((schema) => JSON.stringify(schema).length <= MAX_SCHEMA_BYTES, "must be at most 256 KiB of JSON")
    .exactOptional(),
});
