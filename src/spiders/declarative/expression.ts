import { RE2JS } from "re2js";
import { messageOf } from "../../lib/errors.js";
import type { PageBudget } from "./page-budget.js";

export const MAX_EXPRESSION_CHARACTERS = 1_000;
/**
 * Steps of one expression, some 20 in an ordinary one; repetitions such as {1,500} count as often. The time for a text
 * grows with its length and with these.
 */
const MAX_EXPRESSION_STEPS = 500;
/** Steps of an expression, over characters, that cost as much as one step of a page's budget. */
const EXPRESSION_STEPS_A_STEP = 4;

/** A regular expression in linear time (RE2), at the expense of a page's budget. */
export class Expression {
  readonly #expression: RE2JS;
  readonly #steps: number;

  /** @throws Error saying what RE2 cannot make of it */
  constructor(pattern: string, flags = 0) {
    try {
      this.#expression = RE2JS.compile(pattern, flags);
    } catch (error) {
      throw new Error(
        `must be an expression that RE2 knows (linear time: no back-references, no look-around): ${messageOf(error)}`,
        { cause: error },
      );
    }
    this.#steps = this.#expression.programSize();
    if (this.#steps > MAX_EXPRESSION_STEPS) {
      throw new Error(
        `has ${this.#steps} steps, of ${MAX_EXPRESSION_STEPS} at most: repetitions such as {1,500} count as often`,
      );
    }
  }

  get groups(): number {
    return this.#expression.groupCount();
  }

  hasGroup(name: string): boolean {
    return Object.hasOwn(this.#expression.namedGroups(), name);
  }

  /** Whether it matches somewhere in a short text. */
  test(text: string): boolean {
    return this.#expression.test(text);
  }

  /** What the group holds at the first match; undefined when there is none, or the group took no part. */
  groupIn(text: string, group: number | string, budget: PageBudget): string | undefined {
    this.#pay(text, budget);
    const matcher = this.#expression.matcher(text);
    if (!matcher.find()) return undefined;
    // Its declarations name either kind of argument in overloads.
    const found = typeof group === "number" ? matcher.group(group) : matcher.group(group);
    return found ?? undefined;
  }

  /** @param replacement `$1` and `${name}` stand for groups */
  replaceIn(text: string, replacement: string, budget: PageBudget): string {
    this.#pay(text, budget);
    return this.#expression.matcher(text).replaceAll(replacement);
  }

  splitIn(text: string, budget: PageBudget): readonly string[] {
    this.#pay(text, budget);
    return this.#expression.split(text, -1);
  }

  #pay(text: string, budget: PageBudget): void {
    budget.spend(1 + Math.ceil((text.length * this.#steps) / EXPRESSION_STEPS_A_STEP));
  }
}
