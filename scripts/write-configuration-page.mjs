// Writes docs/reference/configuration.md from the table of settings: `node scripts/write-configuration-page.mjs`.
import { writeFileSync } from "node:fs";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "..");

/** The page, from a table of settings. */
export function configurationPage(settings) {
  const cell = (text) => text.replaceAll("|", "\\|");
  const rows = Object.values(settings).map(({ flag, variable, value, help, fallback }) => {
    const name = `\`--${flag}${value === undefined ? "" : ` ${cell(value)}`}\``;
    return `| ${name} | \`${variable}\` | ${fallback ? `\`${cell(fallback)}\`` : ""} | ${cell(help)} |`;
  });
  return `# Configuration

Every setting is a flag and an environment variable; flags win. \`--help\` of a program lists those that it takes. An
unknown flag, or an unknown variable that begins with \`WARREN_\`, is an error that names it (exit code 2).

| flag | variable | default | |
| --- | --- | --- | --- |
${rows.join("\n")}

Durations are in milliseconds, sizes in bytes. This page is written from the table in \`src/lib/settings.ts\`.
`;
}

if (process.argv[1] === import.meta.filename) {
  const { SETTINGS } = await import("../dist/lib/settings.js");
  writeFileSync(path.join(ROOT, "docs/reference/configuration.md"), configurationPage(SETTINGS));
}
