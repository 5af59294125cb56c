import type { StandardSchemaV1 } from "@standard-schema/spec";

/** What became of an item: as it is to be stored, or why it is not. */
export type CheckedItem =
  | { readonly data: Readonly<Record<string, unknown>> }
  | { readonly invalid: unknown; readonly reasons: readonly string[] };

const MAX_REASONS = 20;
const MAX_REASON_CHARACTERS = 500;
const MAX_KEPT_CHARACTERS = 65_536;

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
export function keptAside(data: unknown, reasons: readonly string[]) {
  return {
    data: asJson(data),
    reasons: reasons.slice(0, MAX_REASONS).map((reason) => String(reason).slice(0, MAX_REASON_CHARACTERS)),
  };
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

function asJson(data: unknown): unknown {
  let json: string | undefined;
  try {
    json = JSON.stringify(data);
  } catch {
    // Circular, or with numbers of a kind that JSON lacks.
  }
  if (json === undefined) return String(data).slice(0, MAX_KEPT_CHARACTERS);
  return json.length > MAX_KEPT_CHARACTERS
    ? `${json.slice(0, MAX_KEPT_CHARACTERS)}…`
    : (JSON.parse(json) as unknown);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function nounOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "a list" : `a ${typeof value}`;
}
