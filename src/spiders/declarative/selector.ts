import { type AnyNode, type Document, type Element, isTag, type ParentNode } from "domhandler";
import type { PageBudget } from "./page-budget.js";
import {
  type Combinator,
  type ComplexSelector,
  parseSelector,
  type SimpleSelector,
} from "./selector-syntax.js";
import type { TreeIndex } from "./tree-index.js";

/** Where a search begins: the page, or an element. */
export type Scope = Document | Element;

/** A search: whence, on which page, at whose expense. What was found out about elements is kept as long as it. */
class Search {
  readonly scope: Scope;
  readonly index: TreeIndex;
  readonly budget: PageBudget;
  #known: Map<object, Map<Element, boolean>> | undefined;

  constructor(scope: Scope, index: TreeIndex, budget: PageBudget) {
    this.scope = scope;
    this.index = index;
    this.budget = budget;
  }

  /** What is known by this question about elements. */
  known(question: object): Map<Element, boolean> {
    this.#known ??= new Map();
    let answers = this.#known.get(question);
    if (answers === undefined) {
      answers = new Map();
      this.#known.set(question, answers);
    }
    return answers;
  }

  from(scope: Element): Search {
    return new Search(scope, this.index, this.budget);
  }
}

type Test = (element: Element, search: Search) => boolean;

/** Attributes whose values HTML compares without regard to case (HTML, 4.16.2). */
const CASELESS_VALUES = new Set(
  (
    "accept accept-charset align alink axis bgcolor charset checked clear codetype color compact declare defer dir " +
    "direction disabled enctype face frame hreflang http-equiv lang language link media method multiple nohref " +
    "noresize noshade nowrap readonly rel rev rules scope scrolling selected shape target text type valign valuetype vlink"
  ).split(" "),
);

/**
 * A selector, compiled. A search takes time in proportion to the size of the page for almost every selector: what is
 * found out about ancestors, siblings and descendants is remembered, where engines made for the browser's small pages
 * look again. What is left (`:has()` with several elements inside) ends at the page's budget.
 */
export class Selector {
  readonly #test: Test;
  readonly #looksAfter: boolean;

  /** @throws Error saying what is wrong with the text */
  constructor(text: string) {
    const list = parseSelector(text);
    this.#test = anyOf(list.map((complex) => complexTest(complex, leadingOf(complex))));
    this.#looksAfter = list.some(({ leading }) => leading === "+" || leading === "~");
  }

  /** The elements below the scope that match, in their order; for `+` and `~` at the beginning, those after it too. */
  *matches(scope: Scope, index: TreeIndex, budget: PageBudget): Generator<Element> {
    const search = new Search(scope, index, budget);
    for (
      let at = elementAfter(scope, scope, budget);
      at !== undefined;
      at = elementAfter(at, scope, budget)
    ) {
      if (this.#test(at, search)) yield at;
    }
    if (!this.#looksAfter) return;
    for (let node = scope.next; node !== null; node = node.next) {
      if (!isTag(node)) continue;
      budget.spend(1);
      if (this.#test(node, search)) yield node;
      for (const element of below(node, budget)) if (this.#test(element, search)) yield element;
    }
  }
}

/** All of a selector is meant to be the scope itself, or below it, unless it says how it stands to the scope. */
function leadingOf({ leading, compounds }: ComplexSelector): Combinator | undefined {
  const namesScope = compounds.flat().some((simple) => simple.kind === "plain" && simple.name === "scope");
  // What is searched is below it anyway.
  return leading ?? (namesScope || compounds.length === 1 ? undefined : " ");
}

/** The elements below a node, in their order. */
export function* below(root: ParentNode, budget: PageBudget): Generator<Element> {
  for (let at = elementAfter(root, root, budget); at !== undefined; at = elementAfter(at, root, budget))
    yield at;
}

/** The next element below a root, in their order; no generator, since every search of a page goes through it. */
function elementAfter(from: ParentNode, root: ParentNode, budget: PageBudget): Element | undefined {
  let node: AnyNode = from;
  let inner: AnyNode | null = from.firstChild;
  for (;;) {
    if (inner === null) {
      while (node.next === null || node === root) {
        if (node === root || node.parent === null || node.parent === root) return undefined;
        node = node.parent;
      }
      node = node.next;
    } else node = inner;
    budget.spend(1);
    if (isTag(node)) return node;
    inner = null;
  }
}

function parentOf(element: Element): Element | undefined {
  const { parent } = element;
  return parent !== null && isTag(parent) ? parent : undefined;
}

function elementBefore(element: Element, { budget }: Search): Element | undefined {
  for (let node = element.prev; node !== null; node = node.prev) {
    budget.spend(1);
    if (isTag(node)) return node;
  }
  return undefined;
}

function anyOf(tests: readonly Test[]): Test {
  const [first, second] = tests;
  if (first !== undefined && second === undefined) return first;
  return (element, search) => tests.some((test) => test(element, search));
}

/** @param leading how the first compound stands to the scope, if it matters */
function complexTest({ compounds, combinators }: ComplexSelector, leading: Combinator | undefined): Test {
  let test: Test = compoundTest(compounds[0] ?? []);
  if (leading !== undefined) test = led(leading, test);
  for (const [at, combinator] of combinators.entries()) {
    test = joined(test, combinator, compoundTest(compounds[at + 1] ?? []));
  }
  return test;
}

function led(combinator: Combinator, test: Test): Test {
  switch (combinator) {
    case ">":
      return (element, search) => element.parent === search.scope && test(element, search);
    case "+":
      return (element, search) => test(element, search) && elementBefore(element, search) === search.scope;
    case "~":
      // Only what comes after the scope is looked at.
      return (element, search) =>
        element !== search.scope && element.parent === search.scope.parent && test(element, search);
    case " ":
      return (element, search) => test(element, search) && isWithin(element, search);
    default:
      return combinator satisfies never;
  }
}

function isWithin(element: Element, { scope, budget }: Search): boolean {
  if (!isTag(scope)) return true;
  for (let node: ParentNode | null = element; node !== null; node = node.parent) {
    budget.spend(1);
    if (node === scope) return true;
  }
  return false;
}

function joined(left: Test, combinator: Combinator, right: Test): Test {
  switch (combinator) {
    case ">":
      return (element, search) => {
        if (!right(element, search)) return false;
        const parent = parentOf(element);
        return parent !== undefined && left(parent, search);
      };
    case "+":
      return (element, search) => {
        if (!right(element, search)) return false;
        const before = elementBefore(element, search);
        return before !== undefined && left(before, search);
      };
    case " ":
      return along(left, right, parentOf);
    case "~":
      return along(left, right, elementBefore);
    default:
      return combinator satisfies never;
  }
}

/** Whether an element on the way passes `left`; for every element of the way, this is found out once a search. */
function along(
  left: Test,
  right: Test,
  next: (element: Element, search: Search) => Element | undefined,
): Test {
  const question = {};
  return (element, search) => {
    if (!right(element, search)) return false;
    const known = search.known(question);
    const way: Element[] = [];
    let answer = false;
    for (let at = next(element, search); at !== undefined; at = next(at, search)) {
      search.budget.spend(1);
      const before = known.get(at);
      if (before !== undefined) {
        answer = before;
        break;
      }
      way.push(at);
      if (left(at, search)) {
        answer = true;
        break;
      }
    }
    for (const passed of way) known.set(passed, answer);
    return answer;
  };
}

function compoundTest(simple: readonly SimpleSelector[]): Test {
  const tests = simple.map(simpleTest);
  const [first, second, third] = tests;
  if (first === undefined) return () => true;
  if (second === undefined) return first;
  if (third === undefined) return (element, search) => first(element, search) && second(element, search);
  return (element, search) => tests.every((test) => test(element, search));
}

function simpleTest(simple: SimpleSelector): Test {
  switch (simple.kind) {
    case "tag": {
      const { name } = simple;
      const lower = name.toLowerCase();
      if (lower === name) return (element) => element.name === name;
      // Elements of SVG and MathML keep their capitals in a browser's tree.
      return (element) => element.name === lower || element.name === name;
    }
    case "id":
      return (element) => attributeOf(element, "id") === simple.id;
    case "class":
      return (element) => hasWord(attributeOf(element, "class"), simple.name);
    case "attribute":
      return attributeTest(simple);
    case "is":
      return anyOf(simple.selectors.map((complex) => complexTest(complex, undefined)));
    case "not": {
      const test = anyOf(simple.selectors.map((complex) => complexTest(complex, undefined)));
      return (element, search) => !test(element, search);
    }
    case "has":
      return anyOf(simple.selectors.map(hasTest));
    case "contains":
      return (element, { index }) => index.containsText(element, simple.text);
    case "nth": {
      const { step, offset, ofType, fromEnd } = simple;
      return (element, { index }) => {
        const beyond = index.placeOf(element, ofType, fromEnd) - offset;
        return step === 0 ? beyond === 0 : beyond % step === 0 && beyond / step >= 0;
      };
    }
    case "plain":
      return plainTest(simple.name);
    default:
      return simple satisfies never;
  }
}

function plainTest(name: Extract<SimpleSelector, { kind: "plain" }>["name"]): Test {
  switch (name) {
    case "root":
      return (element) => parentOf(element) === undefined;
    case "scope":
      return (element, { scope }) => element === scope || (element.parent === scope && !isTag(scope));
    case "empty":
      return (element, { budget }) => {
        for (const child of element.children) {
          budget.spend(1);
          if (isTag(child) || child.type === "text") return false;
        }
        return true;
      };
    case "checked":
      return (element) =>
        element.name === "option"
          ? attributeOf(element, "selected") !== undefined
          : element.name === "input" && attributeOf(element, "checked") !== undefined;
    case "selected":
      return (element) => element.name === "option" && attributeOf(element, "selected") !== undefined;
    case "disabled":
      return (element) => attributeOf(element, "disabled") !== undefined;
    case "enabled":
      return (element) => FORM_PARTS.has(element.name) && attributeOf(element, "disabled") === undefined;
    case "link":
      return (element) =>
        (element.name === "a" || element.name === "area") && attributeOf(element, "href") !== undefined;
    default:
      return name satisfies never;
  }
}

const FORM_PARTS = new Set(["button", "input", "select", "textarea", "option", "optgroup", "fieldset"]);

/** Elements that have some other one. The usual kinds, one compound below, inside or after, are found out in one go. */
function hasTest(complex: ComplexSelector): Test {
  const { compounds, leading = " " } = complex;
  const test = compoundTest(compounds[0] ?? []);
  if (compounds.length === 1 && leading === " ") return hasBelow(test);
  if (compounds.length === 1 && leading === ">") {
    return (element, search) =>
      element.children.some((child) => {
        search.budget.spend(1);
        return isTag(child) && test(child, search);
      });
  }
  const whole = complexTest(complex, leading);
  const isAfter = leading === "+" || leading === "~";
  return (element, search) => {
    const inner = search.from(element);
    if (!isAfter) {
      for (const candidate of below(element, search.budget)) if (whole(candidate, inner)) return true;
      return false;
    }
    for (let node = element.next; node !== null; node = node.next) {
      search.budget.spend(1);
      if (!isTag(node)) continue;
      if (whole(node, inner)) return true;
      if (compounds.length > 1) {
        for (const candidate of below(node, search.budget)) if (whole(candidate, inner)) return true;
      } else if (leading === "+") return false;
    }
    return false;
  };
}

function hasBelow(test: Test): Test {
  const question = {};
  // Trees are at most some hundred elements deep.
  const found = (element: Element, search: Search, known: Map<Element, boolean>): boolean => {
    const before = known.get(element);
    if (before !== undefined) return before;
    let answer = false;
    for (const child of element.children) {
      search.budget.spend(1);
      if (!isTag(child)) continue;
      answer = test(child, search) || found(child, search, known);
      if (answer) break;
    }
    known.set(element, answer);
    return answer;
  };
  return (element, search) => found(element, search, search.known(question));
}

function attributeTest(simple: Extract<SimpleSelector, { kind: "attribute" }>): Test {
  const { operator, ignoresCase = CASELESS_VALUES.has(simple.name.toLowerCase()) } = simple;
  const name = simple.name.toLowerCase();
  const wanted = ignoresCase ? simple.value.toLowerCase() : simple.value;
  const passes = comparison(operator, wanted);
  return (element) => {
    const value = attributeOf(element, name) ?? attributeOf(element, simple.name);
    return value !== undefined && passes(ignoresCase ? value.toLowerCase() : value);
  };
}

function comparison(operator: Extract<SimpleSelector, { kind: "attribute" }>["operator"], wanted: string) {
  switch (operator) {
    case "exists":
      return () => true;
    case "=":
      return (value: string) => value === wanted;
    case "~=":
      return (value: string) => hasWord(value, wanted);
    case "|=":
      return (value: string) => value === wanted || value.startsWith(`${wanted}-`);
    case "^=":
      return (value: string) => wanted !== "" && value.startsWith(wanted);
    case "$=":
      return (value: string) => wanted !== "" && value.endsWith(wanted);
    case "*=":
      return (value: string) => wanted !== "" && value.includes(wanted);
    default:
      return operator satisfies never;
  }
}

/** Its value; what every object has (`constructor`) is no attribute. */
export function attributeOf(element: Element, name: string): string | undefined {
  return Object.hasOwn(element.attribs, name) ? element.attribs[name] : undefined;
}

/** Whether a list of words, parted by white space, has this one. */
function hasWord(list: string | undefined, word: string): boolean {
  if (list === undefined || word === "") return false;
  if (list === word) return true;
  for (let at = list.indexOf(word); at >= 0; at = list.indexOf(word, at + 1)) {
    const end = at + word.length;
    if (
      (at === 0 || isSpace(list.charCodeAt(at - 1))) &&
      (end === list.length || isSpace(list.charCodeAt(end)))
    ) {
      return true;
    }
  }
  return false;
}

function isSpace(code: number): boolean {
  return code === 32 || (code >= 9 && code <= 13 && code !== 11);
}
