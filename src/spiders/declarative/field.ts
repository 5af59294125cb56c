import { isTag } from "domhandler";
import type {
  FieldDeclaration,
  FieldObject,
  FieldsDeclaration,
  PageFact,
  TransformStep,
} from "./declaration.js";
import { ownTextOf, textOf } from "./element-text.js";
import { makesList, regexStep, transformStep, typedValue, type ValueStep } from "./field-value.js";
import { parseJsonPath, valueAt } from "./json-path.js";
import type { RuledPage } from "./ruled-page.js";
import { attributeOf, type Scope, Selector } from "./selector.js";

/** Values of a field of one element at most. */
const MAX_VALUES = 10_000;

/** What fields have found: their values, and what is wrong with them. */
export type Found = {
  readonly data: Record<string, unknown>;
  /** By the field's path: `price: "Free" is no number`. */
  readonly faults: string[];
  /** Something of it was taken from this page, and not only from the declaration or about the page. */
  isOfPage: boolean;
};

type FieldReader = (scope: Scope, on: RuledPage, found: Found) => unknown;

/** Where members stand in the declaration, and what they inherit. */
export type Place = { readonly path: string; readonly locale: string | undefined };

/** The fields of an item, compiled. */
export class Fields {
  readonly #readers: readonly (readonly [name: string, FieldReader])[];
  /** Whether all of them are the same for every element of a page. */
  readonly isConstant: boolean;

  /** @param name the path of the fields' names in an item, for faults */
  constructor(fields: FieldsDeclaration, place: Place, name = "") {
    this.#readers = Object.entries(fields).map(([key, field]) => [
      key,
      fieldReader(field, { ...place, path: `${place.path}.${key}` }, name === "" ? key : `${name}.${key}`),
    ]);
    this.isConstant = Object.values(fields).every(isConstant);
  }

  read(scope: Scope, on: RuledPage): Found {
    const found: Found = { data: {}, faults: [], isOfPage: false };
    this.readInto(scope, on, found);
    return found;
  }

  readInto(scope: Scope, on: RuledPage, found: Found): void {
    for (const [name, reader] of this.#readers) {
      const value = reader(scope, on, found);
      if (value !== undefined) found.data[name] = value;
    }
  }
}

function isConstant(field: FieldDeclaration): boolean {
  if (typeof field === "string") return field.startsWith("$");
  return field.css === undefined && SOURCES_ELSEWHERE.some((source) => field[source] !== undefined);
}

const SOURCES_ELSEWHERE = ["value", "fact", "meta", "param"] as const;

function fieldReader(declared: FieldDeclaration, place: Place, name: string): FieldReader {
  const field = typeof declared === "string" ? short(declared) : declared;
  const locale = field.locale ?? place.locale;
  const here = { path: place.path, locale };
  const read =
    field.fields !== undefined
      ? nestedReader(field, field.fields, here, name)
      : valueReader(field, here, name);
  const { required = false, default: otherwise } = field;
  const ofPage = !isConstant(field);
  return (scope, on, found) => {
    on.budget.member = place.path;
    const value = read(scope, on, found);
    if (isThere(value)) {
      // That there is no such element is no finding.
      if (ofPage && !(field.exists === true && value === false)) found.isOfPage = true;
      return value;
    }
    if (otherwise !== undefined) return otherwise;
    if (required) found.faults.push(`${name}: is missing`);
    return value;
  };
}

/** Nothing, an empty text and an empty list are not. */
function isThere(value: unknown): boolean {
  return value !== undefined && value !== "" && !(Array.isArray(value) && value.length === 0);
}

function short(text: string): FieldObject {
  return text.startsWith("$") ? { fact: text.slice(1) as PageFact } : { css: text };
}

function nestedReader(field: FieldObject, inner: FieldsDeclaration, place: Place, name: string): FieldReader {
  const fields = new Fields(inner, { ...place, path: `${place.path}.fields` }, name);
  const elements = elementsOf(field.css);
  return (scope, on, found) => {
    const list: unknown[] = [];
    for (const element of elements(scope, on)) {
      const part: Found = { data: {}, faults: [], isOfPage: false };
      fields.readInto(element, on, part);
      if (!part.isOfPage && !fields.isConstant && part.faults.length === 0) continue;
      found.faults.push(...part.faults);
      if (field.all !== true) return part.data;
      list.push(part.data);
      if (list.length >= MAX_VALUES) break;
    }
    return field.all === true ? list : undefined;
  };
}

/** The elements a field is about: those that match, or the one that it is in. */
function elementsOf(css: string | undefined): (scope: Scope, on: RuledPage) => Iterable<Scope> {
  if (css === undefined) return (scope) => [scope];
  const selector = new Selector(css);
  return (scope, on) => selector.matches(scope, on.index, on.budget);
}

function valueReader(field: FieldObject, { locale }: Place, name: string): FieldReader {
  const source = sourceOf(field);
  const steps: ValueStep[] = [
    ...(field.regex === undefined ? [] : [regexStep(field.regex, field.group)]),
    ...(field.transform ?? []).map(transformStep),
  ];
  const typed = typedValue(field.type, locale);
  const all = field.all === true;
  const isList = (field.transform ?? []).reduce(
    (list: boolean, step: TransformStep) => makesList(step, list),
    all,
  );
  const finish = (values: readonly unknown[], on: RuledPage, found: Found): unknown[] => {
    if (typed === undefined) return [...values];
    return values.flatMap((value) => {
      const result = typed(value, on);
      if (!("fault" in result)) return result.value === undefined ? [] : [result.value];
      found.isOfPage = true;
      if (field.default === undefined) found.faults.push(`${name}: ${result.fault}`);
      return [];
    });
  };
  return (scope, on, found) => {
    if (field.exists === true) {
      for (const _ of source(scope, on)) return true;
      return false;
    }
    if (all) {
      const raw: unknown[] = [];
      for (const value of source(scope, on)) {
        raw.push(value);
        if (raw.length >= MAX_VALUES) break;
      }
      const values = finish(through(steps, raw, on), on, found);
      return isList ? values.slice(0, MAX_VALUES) : values[0];
    }
    // The first that says something: where an expression fits one of several elements, it is that one.
    for (const value of source(scope, on)) {
      const stepped = through(steps, [value], on);
      if (stepped.length === 0) continue;
      const values = finish(stepped, on, found);
      return isList ? values.slice(0, MAX_VALUES) : values[0];
    }
    return undefined;
  };
}

function through(steps: readonly ValueStep[], values: readonly unknown[], on: RuledPage): readonly unknown[] {
  return steps.reduce((list, step) => step(list, on), values);
}

type Source = (scope: Scope, on: RuledPage) => Iterable<unknown>;

function sourceOf(field: FieldObject): Source {
  const { value, fact, meta, param, jsonLd } = field;
  if (value !== undefined) return () => [value];
  if (fact !== undefined) return (_, on) => present(on.fact(fact));
  if (meta !== undefined) return (_, on) => present(memberOf(on.page.meta, meta));
  if (param !== undefined) return (_, on) => present(memberOf(on.page.crawl.params, param));
  if (jsonLd !== undefined) {
    const path = parseJsonPath(jsonLd.path);
    return (_, on) => {
      const at = valueAt(on.jsonLd(jsonLd.type), path);
      return Array.isArray(at) ? at : present(at);
    };
  }
  const elements = elementsOf(field.css);
  if (field.exists === true) return elements;
  const taken = taking(field.attr ?? "text");
  return function* values(scope, on) {
    for (const element of elements(scope, on)) yield* present(taken(element, on));
  };
}

function present(value: unknown): readonly unknown[] {
  return value === undefined || value === null ? [] : [value];
}

function memberOf(values: Readonly<Record<string, unknown>>, name: string): unknown {
  return Object.hasOwn(values, name) ? values[name] : undefined;
}

/** What is taken of an element. */
function taking(attr: string): (scope: Scope, on: RuledPage) => string | undefined {
  switch (attr) {
    case "text":
      return (scope, on) => textOf(scope, on.budget);
    case "ownText":
      return (scope, on) => ownTextOf(scope, on.budget);
    case "html":
      return (scope, on) => on.htmlOf(scope, false);
    case "outerHtml":
      return (scope, on) => on.htmlOf(scope, true);
    default: {
      const name = (attr.startsWith("@") ? attr.slice(1) : attr).toLowerCase();
      return (scope) => (isTag(scope) ? attributeOf(scope, name) : undefined);
    }
  }
}
