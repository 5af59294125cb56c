import { DateStyle } from "./date-text.js";
import type { TransformStep, ValueType } from "./declaration.js";
import { folded } from "./element-text.js";
import { Expression } from "./expression.js";
import { parseJsonPath, valueAt } from "./json-path.js";
import { decimalSignOf, numberIn } from "./number-text.js";
import type { RuledPage } from "./ruled-page.js";

/** What becomes of the values that a field found: none, one, or several. */
export type ValueStep = (values: readonly unknown[], on: RuledPage) => readonly unknown[];

/** A value of the type; undefined if there is nothing; a fault if it is none of that type. */
export type TypedValue = (
  value: unknown,
  on: RuledPage,
) => { readonly value?: unknown } | { readonly fault: string };

/** A step for each text; what is no text stays as it is. */
function ofTexts(change: (text: string, on: RuledPage) => unknown): ValueStep {
  return (values, on) =>
    values.flatMap((value) => {
      const changed = typeof value === "string" ? change(value, on) : value;
      return changed === undefined ? [] : [changed];
    });
}

export function regexStep(pattern: string, group?: number | string): ValueStep {
  const expression = new Expression(pattern);
  const which = group ?? (expression.groups > 0 ? 1 : 0);
  return (values, on) =>
    values.flatMap((value) => {
      const found = expression.groupIn(asText(value), which, on.budget);
      return found === undefined ? [] : [found];
    });
}

export function transformStep(step: TransformStep): ValueStep {
  if (typeof step === "string") return NAMED[step];
  if ("replace" in step) return replaceStep(step.replace);
  if ("split" in step) {
    const { split } = step;
    const expression = typeof split === "string" ? undefined : new Expression(split.regex);
    const parts = (text: string, on: RuledPage) =>
      expression?.splitIn(text, on.budget) ?? text.split(split as string);
    return (values, on) =>
      values.flatMap((value) =>
        parts(asText(value), on)
          .map((part) => part.trim())
          .filter((part) => part !== ""),
      );
  }
  if ("join" in step)
    return (values) => (values.length === 0 ? values : [values.map(asText).join(step.join)]);
  if ("regex" in step) return regexStep(step.regex, step.group);
  if ("prefix" in step) return ofTexts((text) => `${step.prefix}${text}`);
  if ("suffix" in step) return ofTexts((text) => `${text}${step.suffix}`);
  if ("map" in step) {
    const map = new Map<string, unknown>(Object.entries(step.map));
    return ofTexts((text) => (map.has(text) ? map.get(text) : text));
  }
  const path = parseJsonPath(step.json);
  return (values, on) =>
    values.flatMap((value) => {
      const found = valueAt(typeof value === "string" ? parsedJson(value, on) : value, path);
      return found === undefined || found === null ? [] : [found];
    });
}

/** Whether several values remain after it, whatever there were before. */
export function makesList(step: TransformStep, isList: boolean): boolean {
  if (typeof step === "string") return isList;
  return "split" in step || (isList && !("join" in step));
}

const NAMED = {
  trim: ofTexts((text) => text.trim()),
  collapse: ofTexts((text, on) => folded(text, on.budget)),
  lower: ofTexts((text) => text.toLowerCase()),
  upper: ofTexts((text) => text.toUpperCase()),
  url: ofTexts((text, on) => on.absolute(text)),
} satisfies Record<Extract<TransformStep, string>, ValueStep>;

function replaceStep(
  replace: Exclude<Extract<TransformStep, { replace: unknown }>, string>["replace"],
): ValueStep {
  if ("text" in replace) return ofTexts((text) => text.replaceAll(replace.text, () => replace.with));
  const expression = new Expression(replace.regex);
  return ofTexts((text, on) => expression.replaceIn(text, replace.with, on.budget));
}

function parsedJson(text: string, on: RuledPage): unknown {
  on.budget.spend(Math.ceil(text.length / 4));
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** How values of a type are read; undefined leaves them as they are. */
export function typedValue(type: ValueType | undefined, locale: string | undefined): TypedValue | undefined {
  switch (type) {
    case undefined:
      return undefined;
    case "string":
      return (value) => ({ value: asText(value) });
    case "number":
    case "integer":
      return numberValue(type, locale);
    case "boolean":
      return booleanValue;
    case "date": {
      const style = new DateStyle(locale);
      return (value) => {
        const text = asText(value);
        if (text.trim() === "") return {};
        const date = style.dateIn(text);
        return date === undefined ? { fault: `${shown(text)} is no date` } : { value: date };
      };
    }
    case "url":
      return (value, on) => {
        const text = asText(value);
        if (text.trim() === "") return {};
        const url = on.absolute(text);
        return url === undefined ? { fault: `${shown(text)} is no http(s) URL` } : { value: url };
      };
    default:
      return type satisfies never;
  }
}

function numberValue(type: "number" | "integer", locale: string | undefined): TypedValue {
  const decimal = locale === undefined ? undefined : decimalSignOf(locale);
  return (value) => {
    if (typeof value === "string" && value.trim() === "") return {};
    const number = typeof value === "number" ? value : numberIn(asText(value), decimal);
    if (number === undefined) return { fault: `${shown(asText(value))} is no number` };
    if (type === "integer" && !Number.isSafeInteger(number)) return { fault: `${number} is no whole number` };
    return { value: number };
  };
}

const YES = new Set(["true", "yes", "on", "1", "y"]);
const NO = new Set(["false", "no", "off", "0", "n"]);

/** An attribute that is there without a value is true, as in HTML. */
function booleanValue(value: unknown): ReturnType<TypedValue> {
  if (typeof value === "boolean") return { value };
  const text = asText(value).trim().toLowerCase();
  if (text === "" || YES.has(text)) return { value: true };
  if (NO.has(text)) return { value: false };
  return { fault: `${shown(text)} is neither true nor false` };
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : (JSON.stringify(value) ?? "");
}

function shown(text: string): string {
  return JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
}
