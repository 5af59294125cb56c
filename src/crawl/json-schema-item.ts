import { createRequire } from "node:module";
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { Ajv2020, ErrorObject, ValidateFunction } from "ajv/dist/2020.js";
import type { FormatsPlugin } from "ajv-formats";
import { RE2JS } from "re2js";
import { messageOf } from "../lib/errors.js";

const require = createRequire(import.meta.url);
const DRAFT_06_OR_07 = /^https?:\/\/json-schema\.org\/draft-0[67]\/schema#?$/;
/** Characters of an item's JSON up to which all that is wrong with it is told, and not only what is found first. */
const MAX_EXPLAINED_CHARACTERS = 65_536;

/**
 * A JSON Schema (2020-12, or draft 6 or 7 if its `$schema` says so) as a schema for items. Items are kept as they are:
 * nothing is made to fit, and defaults are not filled in.
 * @throws Error saying what is wrong with the schema
 */
export function jsonSchemaItem(
  schema: Readonly<Record<string, unknown>>,
): StandardSchemaV1<unknown, Record<string, unknown>> {
  const validate = compiled(schema, false);
  let explain: ValidateFunction | undefined;
  const issuesOf = (value: unknown) => {
    if (JSON.stringify(value).length > MAX_EXPLAINED_CHARACTERS) return validate.errors;
    explain ??= compiled(schema, true);
    explain(value);
    return explain.errors;
  };
  return {
    "~standard": {
      version: 1,
      vendor: "json-schema",
      validate: (value) =>
        validate(value) === true
          ? { value: value as Record<string, unknown> }
          : { issues: (issuesOf(value) ?? []).map(issueOf) },
    },
  };
}

/**
 * Whatever somebody has uploaded is compiled here: no reference leads outside, and patterns are matched in linear time,
 * for they run in the worker itself.
 */
function compiled(schema: Readonly<Record<string, unknown>>, allErrors: boolean): ValidateFunction {
  if (schema.$async !== undefined) throw new Error("itemSchema: $async is not known");
  // Loaded with the first spider that has a schema.
  const draft07 = require("ajv") as { Ajv: typeof Ajv2020 };
  const draft2020 = require("ajv/dist/2020.js") as { Ajv2020: typeof Ajv2020 };
  const formats = require("ajv-formats") as { default: FormatsPlugin };
  const isOld = typeof schema.$schema === "string" && DRAFT_06_OR_07.test(schema.$schema);
  const Compiler = isOld ? draft07.Ajv : draft2020.Ajv2020;
  try {
    const ajv = new Compiler({ strict: false, logger: false, allErrors, code: { regExp: linearPattern } });
    formats.default(ajv);
    // Draft 6 has nothing that 7 lacks.
    return ajv.compile(isOld ? { ...schema, $schema: "http://json-schema.org/draft-07/schema#" } : schema);
  } catch (error) {
    throw new Error(`itemSchema: ${messageOf(error)}`, { cause: error });
  }
}

const linearPattern = Object.assign(
  (pattern: string) => {
    const expression = RE2JS.compile(pattern);
    // Ajv tells patterns apart by what they are as text.
    return { test: (text: string) => expression.matcher(text).find(), toString: () => pattern };
  },
  { code: "linearPattern" },
);

function issueOf({ instancePath, message = "is not as it must be", params }: ErrorObject) {
  const path = instancePath.split("/").slice(1).map(unescaped);
  const named = "additionalProperty" in params ? `: "${String(params.additionalProperty)}"` : "";
  return { message: `${message}${named}`, path };
}

/** RFC 6901. */
function unescaped(segment: string): string {
  return segment.replaceAll("~1", "/").replaceAll("~0", "~");
}
