import { type AnyNode, isTag, isText } from "domhandler";
import type { PageBudget } from "./page-budget.js";
import type { Scope } from "./selector.js";

/** Elements whose text nobody reads, unless one of them is asked for itself. */
const UNREAD = new Set(["script", "style", "template", "noscript"]);
/** What stands apart from the text before and after it. */
const APART = new Set(
  (
    "address article aside blockquote br caption center dd details div dl dt fieldset figcaption figure footer form " +
    "h1 h2 h3 h4 h5 h6 header hr legend li main nav ol option p pre section summary table tbody td tfoot th thead tr ul"
  ).split(" "),
);
const CHARACTERS_A_STEP = 16;

/** The text in it and in all below it, white space folded, blocks and line breaks apart by a space. */
export function textOf(scope: Scope, budget: PageBudget): string {
  let text = "";
  let node: AnyNode | null = scope.firstChild;
  while (node !== null) {
    budget.spend(1);
    let inner: AnyNode | null = null;
    if (isText(node)) text += node.data;
    else if (isTag(node) && !UNREAD.has(node.name)) {
      if (APART.has(node.name)) text += " ";
      inner = node.firstChild;
    }
    if (inner !== null) {
      node = inner;
      continue;
    }
    while (node.next === null) {
      const up: AnyNode | null = node.parent;
      if (up === null || up === scope) return folded(text, budget);
      if (isTag(up) && APART.has(up.name)) text += " ";
      node = up;
    }
    node = node.next;
  }
  return folded(text, budget);
}

/** The text in it that is in no element below it, white space folded. */
export function ownTextOf(scope: Scope, budget: PageBudget): string {
  let text = "";
  for (const node of scope.children as AnyNode[]) {
    budget.spend(1);
    text += isText(node) ? node.data : " ";
  }
  return folded(text, budget);
}

export function folded(text: string, budget: PageBudget): string {
  budget.spend(Math.ceil(text.length / CHARACTERS_A_STEP));
  return text.replace(/\s+/g, " ").trim();
}
