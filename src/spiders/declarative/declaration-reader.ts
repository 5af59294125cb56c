import { messageOf } from "../../lib/errors.js";
import { fieldErrorsOf } from "../../lib/field-errors.js";
import { type DeclarativeSpider, declarativeSpider } from "./declaration.js";
import { SpiderDeclarationError } from "./errors.js";
import { parseYaml } from "./yaml-text.js";

/** Values in a declaration, each as often as an alias names it. */
const MAX_VALUES = 20_000;
const MAX_DEPTH = 40;

/**
 * What a text in YAML, of which JSON is a part, says.
 * @throws SpiderDeclarationError if it is neither, or too long
 */
export function parseDeclaration(text: string): unknown {
  try {
    return parseYaml(text);
  } catch (error) {
    const message = `is no declaration in JSON or YAML: ${messageOf(error)}`;
    throw new SpiderDeclarationError([{ field: "", message }], { cause: error });
  }
}

/**
 * A declaration of which every member is as it must be: selectors and expressions are known to compile.
 * @throws SpiderDeclarationError naming each member that is wrong
 */
export function checkedDeclaration(given: unknown): DeclarativeSpider {
  refuseExcess(given);
  const parsed = declarativeSpider.safeParse(given);
  if (parsed.success) return parsed.data;
  throw new SpiderDeclarationError(fieldErrorsOf(parsed.error), { cause: parsed.error });
}

type Visited = { readonly value: unknown; readonly path: string; readonly depth: number };

/**
 * Refuses what would keep the schema busy, or be lost on it: too many values, nested too deep, and `__proto__`. Without
 * recursion, and no further than the bounds.
 */
function refuseExcess(given: unknown): void {
  const refuse = (field: string, message: string): never => {
    throw new SpiderDeclarationError([{ field, message }]);
  };
  const waiting: Visited[] = [{ value: given, path: "", depth: 0 }];
  let count = 0;
  for (let visited = waiting.pop(); visited !== undefined; visited = waiting.pop()) {
    const { value, path, depth } = visited;
    if (typeof value !== "object" || value === null) continue;
    if (depth >= MAX_DEPTH) refuse(path.slice(0, 200), `is nested deeper than ${MAX_DEPTH}`);
    for (const key of Object.keys(value)) {
      count += 1;
      if (count > MAX_VALUES) refuse("", `has more than ${MAX_VALUES} values`);
      const inner = path === "" ? key : `${path}.${key}`;
      if (key === "__proto__") refuse(inner.slice(0, 200), "is no name");
      waiting.push({
        value: (value as Readonly<Record<string, unknown>>)[key],
        path: depth > 8 ? path : inner,
        depth: depth + 1,
      });
    }
  }
}
