import { type AnyNode, type Document, type Element, isTag, isText, type ParentNode } from "domhandler";
import type { PageBudget } from "./page-budget.js";

/** What is worked out about a whole page at the first question, since each element by itself would be the square of it. */
export class TreeIndex {
  readonly #root: Document;
  readonly #budget: PageBudget;
  readonly #places = new Map<string, Map<Element, number>>();
  #texts: { readonly all: string; readonly spans: Map<Element, readonly [number, number]> } | undefined;
  readonly #occurrences = new Map<string, readonly number[]>();

  constructor(root: Document, budget: PageBudget) {
    this.#root = root;
    this.#budget = budget;
  }

  /** Its place among its siblings, or those of its name, from 1. */
  placeOf(element: Element, ofType: boolean, fromEnd: boolean): number {
    const key = `${ofType} ${fromEnd}`;
    let places = this.#places.get(key);
    if (places === undefined) {
      places = new Map();
      this.#places.set(key, places);
    }
    const known = places.get(element);
    if (known !== undefined) return known;
    const siblings = (element.parent?.children ?? [element]).filter(isTag);
    this.#budget.spend(siblings.length);
    if (fromEnd) siblings.reverse();
    const counts = new Map<string, number>();
    for (const sibling of siblings) {
      const group = ofType ? sibling.name : "";
      const place = (counts.get(group) ?? 0) + 1;
      counts.set(group, place);
      places.set(sibling, place);
    }
    return places.get(element) ?? 1;
  }

  /** Whether the text of an element, with all that is in it, has this somewhere. */
  containsText(element: Element, text: string): boolean {
    const { all, spans } = this.#allTexts();
    const [start, end] = spans.get(element) ?? [0, 0];
    let places = this.#occurrences.get(text);
    if (places === undefined) {
      places = occurrencesOf(text, all, this.#budget);
      this.#occurrences.set(text, places);
    }
    this.#budget.spend(1);
    const first = places[firstFrom(places, start)];
    return first !== undefined && first + text.length <= end;
  }

  #allTexts() {
    if (this.#texts !== undefined) return this.#texts;
    const parts: string[] = [];
    const spans = new Map<Element, readonly [number, number]>();
    let length = 0;
    const visit = (parent: ParentNode): void => {
      for (const node of parent.children as AnyNode[]) {
        this.#budget.spend(1);
        if (isText(node)) {
          parts.push(node.data);
          length += node.data.length;
        } else if (isTag(node)) {
          const start = length;
          visit(node);
          spans.set(node, [start, length]);
        }
      }
    };
    visit(this.#root);
    this.#texts = { all: parts.join(""), spans };
    return this.#texts;
  }
}

const CHARACTERS_A_STEP = 16;

function occurrencesOf(text: string, all: string, budget: PageBudget): number[] {
  budget.spend(Math.ceil(all.length / CHARACTERS_A_STEP));
  const places: number[] = [];
  for (let at = all.indexOf(text); at >= 0; at = all.indexOf(text, at + 1)) {
    // A text that repeats itself is compared anew at each character.
    budget.spend(1 + Math.ceil(text.length / CHARACTERS_A_STEP));
    places.push(at);
  }
  return places;
}

/** The index of the first number that is not below this one; the numbers ascend. */
function firstFrom(numbers: readonly number[], least: number): number {
  let from = 0;
  let to = numbers.length;
  while (from < to) {
    const middle = (from + to) >> 1;
    if ((numbers[middle] ?? 0) < least) from = middle + 1;
    else to = middle;
  }
  return from;
}
