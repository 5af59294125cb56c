/** Names and indexes from the outside inward. */
export type JsonPath = readonly string[];

/** `offers.0.price`; of a list, a name means its first entry that has it. */
export function parseJsonPath(text: string): JsonPath {
  return text.split(".");
}

/** What stands at the path; undefined if nothing does. */
export function valueAt(value: unknown, path: JsonPath): unknown {
  let at = value;
  for (const name of path) {
    at = stepInto(at, name);
    if (at === undefined || at === null) return undefined;
  }
  return at;
}

function stepInto(value: unknown, name: string): unknown {
  if (Array.isArray(value)) {
    if (/^\d{1,9}$/.test(name)) return value[Number(name)];
    for (const entry of value) {
      const found = memberOf(entry, name);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  return memberOf(value, name);
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) {
    return undefined;
  }
  return (value as Readonly<Record<string, unknown>>)[name];
}

/** The first object of this `@type` among the JSON-LD of a page, those inside `@graph` and lists included. */
export function jsonLdOf(nodes: readonly unknown[], type: string | undefined): unknown {
  // Bounded by what a page's metadata holds of it.
  const waiting = [...nodes];
  for (let at = 0; at < waiting.length; at += 1) {
    const node = waiting[at];
    if (Array.isArray(node)) {
      for (const inner of node) waiting.push(inner);
      continue;
    }
    if (typeof node !== "object" || node === null) continue;
    const types = memberOf(node, "@type");
    if (type === undefined || (Array.isArray(types) ? types.includes(type) : types === type)) {
      if (type !== undefined || memberOf(node, "@graph") === undefined) return node;
    }
    const graph = memberOf(node, "@graph") ?? memberOf(node, "mainEntity");
    if (graph !== undefined) waiting.push(graph);
  }
  return undefined;
}
