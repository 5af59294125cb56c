import { type CST, Parser, parse } from "yaml";

const MAX_CHARACTERS = 262_144;
const MAX_DEPTH = 50;
/** A value's tag and anchor. */
const MAX_PROPERTIES = 2;
/** How often aliases may name something, all told. */
const MAX_ALIASES = 100;

type Member = { readonly token: CST.Token; readonly depth: number };

/**
 * What a YAML text of somebody else's says. Its tokens are looked at first, without recursion: the package's composer
 * recurses until the stack is used up, which at a bad place ends the process, and takes the square of the number of keys
 * to find two that are the same, and of that of anchors and tags to find one too many.
 *
 * @throws Error saying why it is none, or too much
 */
export function parseYaml(text: string): unknown {
  if (text.length > MAX_CHARACTERS) {
    throw new Error(`has ${text.length} characters, of ${MAX_CHARACTERS} at most`);
  }
  for (const token of new Parser().parse(text)) check(token);
  return parse(text, {
    schema: "core",
    uniqueKeys: false,
    maxAliasCount: MAX_ALIASES,
    logLevel: "error",
  });
}

function check(document: CST.Token): void {
  const waiting: Member[] = [{ token: document, depth: 0 }];
  for (let member = waiting.pop(); member !== undefined; member = waiting.pop()) {
    const { token, depth } = member;
    if (depth > MAX_DEPTH) throw new Error(`is nested deeper than ${MAX_DEPTH}`);
    if ("start" in token && Array.isArray(token.start)) checkProperties(token.start);
    if (token.type === "document") {
      if (token.value !== undefined) waiting.push({ token: token.value, depth: depth + 1 });
      continue;
    }
    if (!("items" in token)) continue;
    const keys = new Set<string>();
    for (const { start, key, sep, value } of token.items) {
      checkProperties(start);
      if (sep !== undefined) checkProperties(sep);
      if (key !== undefined && key !== null) {
        waiting.push({ token: key, depth: depth + 1 });
        if ("source" in key && token.type !== "block-seq") {
          if (keys.has(key.source)) throw new Error(`names ${key.source.slice(0, 100)} twice in one place`);
          keys.add(key.source);
        }
      }
      if (value !== undefined) waiting.push({ token: value, depth: depth + 1 });
    }
  }
}

function checkProperties(tokens: readonly CST.SourceToken[]): void {
  const count = tokens.filter(({ type }) => type === "tag" || type === "anchor").length;
  if (count > MAX_PROPERTIES) throw new Error("has more than one tag and anchor on a value");
}
