import type { ParseArgsConfig } from "node:util";
import type { ApiClient } from "./api-client.js";

/** What a command is given. */
export type CommandInput = {
  /** Arguments that are no flags, after the command's own words. */
  readonly args: readonly string[];
  readonly flags: Readonly<Record<string, string | boolean | undefined>>;
  readonly api: ApiClient;
  /** Shows what came: as JSON where that is asked for, else in words. */
  readonly show: (answer: unknown, words: () => string) => void;
  /** Tells something beside it, on standard error. */
  readonly note: (text: string) => void;
};

/** One thing that the tool does: `warren spiders push`. */
export type Command = {
  /** Its words: `spiders push`. */
  readonly name: string;
  /** What follows them: `FOLDER|FILE [--name NAME]`. */
  readonly usage: string;
  readonly about: string;
  /** How many arguments it takes. */
  readonly args: readonly [least: number, most: number];
  readonly flags?: NonNullable<ParseArgsConfig["options"]>;
  run(input: CommandInput): Promise<void>;
};

/** Rows in columns, as wide as they need to be. */
export function table(head: readonly string[], rows: readonly (readonly unknown[])[]): string {
  const cells = [head, ...rows].map((row) => row.map((cell) => String(cell ?? "")));
  const widths = head.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0)));
  return cells
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
