// Writes docs/reference/spider.schema.json from the schema of declarations: `node scripts/write-spider-schema.mjs`, after
// a build.
import { writeFileSync } from "node:fs";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "..");

/** The file, from the schema. */
export function spiderSchemaFile(schema) {
  return `${JSON.stringify(schema, null, 2)}\n`;
}

if (process.argv[1] === import.meta.filename) {
  const { declarationSchema } = await import("../dist/spiders/declarative/index.js");
  const file = path.join(ROOT, "docs/reference/spider.schema.json");
  writeFileSync(file, spiderSchemaFile(declarationSchema()));
}
