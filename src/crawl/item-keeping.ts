import { hash } from "node:crypto";
import type { CrawlSpec } from "./crawl.js";
import type { ItemOptions } from "./item-options.js";
import type { FileRecord, ItemKeeping, ItemRecord } from "./records.js";

/** Characters of a hash, of 6 bits each. */
const HASH_CHARACTERS = 21;

/**
 * Items and files of a task, with how their crawl wants them kept. Costs nothing where it does not say. Files of a crawl
 * that is archived are part of its archive, and stay.
 */
export function keptAs<Found extends { items: readonly ItemRecord[]; files: readonly FileRecord[] }>(
  found: Found,
  { items: options, archive = false }: Pick<CrawlSpec, "items" | "archive">,
): Found {
  if (options === undefined) return found;
  const { retentionMs } = options;
  return {
    ...found,
    items: found.items.map((item) => ({ ...item, keeping: keepingOf(item, options) })),
    ...(retentionMs !== undefined &&
      !archive && { files: found.files.map((file) => ({ ...file, expiresAt: file.at + retentionMs })) }),
  };
}

function keepingOf({ at, data }: ItemRecord, options: ItemOptions): ItemKeeping {
  const { key, history, retentionMs, publish, webhooks } = options;
  const names = key === undefined ? undefined : namesOf(data, typeof key === "string" ? [key] : key);
  return {
    ...names,
    ...(names !== undefined && history && { hasHistory: true as const }),
    ...((publish || webhooks.length > 0) && { isFed: true as const }),
    ...(retentionMs !== undefined && { expiresAt: at + retentionMs }),
  };
}

/** Undefined of an item without a key; and of one that cannot be written as JSON, which has none either. */
function namesOf(
  data: ItemRecord["data"],
  fields: readonly string[],
): { readonly key: string; readonly digest: string } | undefined {
  try {
    const key = keyHash(data, fields);
    return key === undefined ? undefined : { key, digest: digestOf(data) };
  } catch {
    return undefined;
  }
}

/**
 * What names an item within its crawl, by the values of these fields: 126 bits of the SHA-256 of their canonical JSON,
 * so that `"1"` and `1` are two. A field that is missing counts as null.
 * @returns undefined when all are missing, so that the item has no key
 */
export function keyHash(
  data: Readonly<Record<string, unknown>>,
  fields: readonly string[],
): string | undefined {
  const values = fields.map((field) => valueAt(data, field) ?? null);
  return values.every((value) => value === null) ? undefined : digestOf(values);
}

/** A member of this very name first: names with dots in them are nothing unusual. */
function valueAt(data: Readonly<Record<string, unknown>>, field: string): unknown {
  if (Object.hasOwn(data, field)) return data[field];
  let value: unknown = data;
  for (const part of field.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, part)) return undefined;
    value = (value as Readonly<Record<string, unknown>>)[part];
  }
  return value;
}

function digestOf(value: unknown): string {
  return hash("sha256", canonicalJson(value), "base64url").slice(0, HASH_CHARACTERS);
}

/** The same text for the same value, in whatever order its members came. */
function canonicalJson(value: unknown): string {
  return (
    JSON.stringify(value, (_, inner: unknown) => {
      if (typeof inner === "bigint") return `${inner}n`;
      if (typeof inner !== "object" || inner === null || Array.isArray(inner)) return inner;
      return Object.fromEntries(Object.entries(inner).sort(([one], [other]) => (one < other ? -1 : 1)));
    }) ?? "null"
  );
}
