// Writes docs/asyncapi.yaml from the schemas of messages: `node scripts/write-asyncapi.mjs`, after a build.
import { writeFileSync } from "node:fs";
import path from "node:path";
import { stringify } from "yaml";

const ROOT = path.resolve(import.meta.dirname, "..");

/** The page, from the document. */
export function asyncApiPage(document) {
  const yaml = stringify(document, { aliasDuplicateObjects: false, lineWidth: 110 });
  return `# Written from the schemas in src/protocol and src/bus by scripts/write-asyncapi.mjs.\n${yaml}`;
}

if (process.argv[1] === import.meta.filename) {
  const { asyncApiDocument } = await import("../dist/protocol/index.js");
  const { VERSION } = await import("../dist/lib/version.js");
  const document = asyncApiDocument({ namespace: "warren", version: VERSION });
  writeFileSync(path.join(ROOT, "docs/asyncapi.yaml"), asyncApiPage(document));
}
