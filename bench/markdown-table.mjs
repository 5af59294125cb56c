/** @param {string[]} heads @param {string[][]} rows */
export function markdownTable(heads, rows) {
  const widths = heads.map((head, column) =>
    Math.max(head.length, 3, ...rows.map((row) => row[column].length)),
  );
  const line = (cells) => `| ${cells.map((cell, column) => cell.padEnd(widths[column])).join(" | ")} |`;
  return `${[line(heads), line(widths.map((width) => "-".repeat(width))), ...rows.map(line)].join("\n")}\n`;
}
