import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { InvalidItemRecord } from "./records.js";

/** What became of an item: as it is to be stored, or why it is not. */
export type CheckedItem =
  | { readonly data: Readonly<Record<string, unknown>> }
  | { readonly invalid: unknown; readonly reasons: readonly string[] };

/** What is kept of an item: characters of its JSON, reasons, and characters of each of them. */
const AMPLE = { characters: 65_536, most: 20, each: 500 };
const SCARCE = { characters: 500, most: 3, each: 200 };
const MAX_PAGE_CHARACTERS = 4_194_304;

/**
 * An item as its schema gives it back, or as it is when there is none.
 * @returns a promise only if the schema takes one
 * @throws what the schema throws; Error when there is no schema and it is no object
 */
export function checkedItem(
  item: unknown,
  schema: StandardSchemaV1 | undefined,
): CheckedItem | Promise<CheckedItem> {
  if (schema === undefined) {
    if (isObject(item)) return { data: item };
    throw new Error(`an item must be an object, not ${nounOf(item)}`);
  }
  const result = schema["~standard"].validate(item);
  return result instanceof Promise ? result.then((late) => judged(item, late)) : judged(item, result);
}

/** What was refused as it can be kept: JSON, whatever it was, and not more than is needed to see what is wrong. */
export function keptAside(data: unknown, reasons: readonly string[]): KeptItem {
  return kept(data, reasons, AMPLE).item;
}

/** Keeps what was refused on one page: of the first millions of characters much, then little. */
export class RefusedItems {
  #leftCharacters = MAX_PAGE_CHARACTERS;

  kept(data: unknown, reasons: readonly string[]): KeptItem {
    const { item, characters } = kept(data, reasons, this.#leftCharacters > 0 ? AMPLE : SCARCE);
    this.#leftCharacters -= characters;
    return item;
  }
}

type KeptItem = Pick<InvalidItemRecord, "data" | "reasons">;

function kept(data: unknown, reasons: readonly string[], { characters: limit, most, each }: typeof AMPLE) {
  const { characters, data: shown } = asJson(data, limit);
  const told = reasons.slice(0, most).map((reason) => String(reason).slice(0, each));
  return { item: { data: shown, reasons: told }, characters };
}

function judged(item: unknown, result: StandardSchemaV1.Result<unknown>): CheckedItem {
  if (result.issues !== undefined) return { invalid: item, reasons: result.issues.map(inWords) };
  const { value } = result;
  if (isObject(value)) return { data: value };
  return { invalid: item, reasons: [`must be an object, not ${nounOf(value)}`] };
}

function inWords({ path = [], message }: StandardSchemaV1.Issue): string {
  const where = path.map((segment) => String(typeof segment === "object" ? segment.key : segment)).join(".");
  return where === "" ? message : `${where}: ${message}`;
}

function asJson(data: unknown, mostCharacters: number): { data: unknown; characters: number } {
  let json: string | undefined;
  try {
    json = JSON.stringify(data);
  } catch {
    // Circular, or with numbers of a kind that JSON lacks.
  }
  const text = json ?? String(data);
  const characters = Math.min(text.length, mostCharacters);
  if (json !== undefined && characters === json.length) return { data: JSON.parse(json), characters };
  return { data: characters < text.length ? `${text.slice(0, characters)}…` : text, characters };
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function nounOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}
