import { parseArgs } from "node:util";
import { ConfigError } from "./errors.js";
import type { Optional, Setting } from "./setting.js";
import { type AMQP_SETTINGS, SETTINGS, type SettingName } from "./settings.js";

/** Variables that other programs of ours read, and that are therefore not unknown here. */
const OTHER_VARIABLES = ["WARREN_URL", "WARREN_TOKEN"];

type ValueOf<S> = S extends Optional<infer T> ? T | undefined : S extends Setting<infer T> ? T : never;

export type Config<Names extends SettingName> = {
  readonly [Name in Names]: ValueOf<(typeof SETTINGS)[Name]>;
};

export type Program<Names extends SettingName> = {
  /** As it is called, for help and errors: `node dist/master.js`. */
  readonly usage: string;
  readonly about: string;
  readonly settings: readonly Names[];
};

/** The part of them that is not the URLs, as the bus takes it. */
export function amqpSecurityOf(config: Config<(typeof AMQP_SETTINGS)[number]>) {
  return {
    auth: config.amqpAuth,
    caFile: config.amqpCaFile,
    certFile: config.amqpCertFile,
    keyFile: config.amqpKeyFile,
    keyPassphrase: config.amqpKeyPassphrase,
  };
}

/** `--help` was asked for; `message` is the text. */
export class HelpRequested extends Error {}

/**
 * Reads a program's settings from its arguments and environment.
 * @throws ConfigError naming the flag or variable that is unknown or wrong
 * @throws HelpRequested for `--help`
 */
export function readConfig<Names extends SettingName>(
  program: Program<Names>,
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): Config<Names> {
  refuseUnknownVariables(environment);
  const flags = readFlags(program, argv);
  const values: Partial<Record<SettingName, unknown>> = {};
  for (const name of program.settings) {
    const about: Setting<unknown> = SETTINGS[name];
    const flag = flags.get(about.flag);
    const variable = environment[about.variable];
    const [given, origin] =
      flag !== undefined
        ? [flag, `--${about.flag}`]
        : variable !== undefined && variable !== ""
          ? [variable, about.variable]
          : [about.fallback, about.flag];
    if (given === undefined) continue;
    try {
      values[name] = about.parse(given);
    } catch (error) {
      throw new ConfigError(`${origin} ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return values as Config<Names>;
}

function readFlags<Names extends SettingName>(
  program: Program<Names>,
  argv: readonly string[],
): Map<string, string> {
  const known = new Map<string, Setting<unknown>>();
  for (const name of program.settings) known.set(SETTINGS[name].flag, SETTINGS[name]);
  const options: Record<string, { type: "string" | "boolean" }> = { help: { type: "boolean" } };
  for (const about of known.values()) {
    options[about.flag] = { type: about.value === undefined ? "boolean" : "string" };
  }
  const { tokens } = parseArgs({ args: [...argv], options, strict: false, tokens: true });
  const flags = new Map<string, string>();
  let last: Setting<unknown> | undefined;
  for (const token of tokens) {
    if (token.kind === "positional") {
      if (last?.isMultiple !== true)
        throw new ConfigError(`unexpected argument "${token.value}"; see --help`);
      flags.set(last.flag, `${flags.get(last.flag)}\n${token.value}`);
      continue;
    }
    if (token.kind !== "option") continue;
    if (token.name === "help") throw new HelpRequested(helpOf(program));
    const about = known.get(token.name);
    if (about === undefined) {
      throw new ConfigError(
        `unknown flag ${token.rawName}${didYouMean(token.name, known.keys(), "--")}; see --help`,
      );
    }
    last = about;
    const value = about.value === undefined ? (token.value ?? "true") : token.value;
    // The next flag is no value: `--output --standalone` forgot one. (`--flag=--x` says that it is meant.)
    if (value === undefined || (value.startsWith("--") && token.inlineValue !== true)) {
      throw new ConfigError(`--${about.flag} needs a value: ${about.value}`);
    }
    const before = flags.get(about.flag);
    flags.set(about.flag, about.isMultiple === true && before !== undefined ? `${before}\n${value}` : value);
  }
  return flags;
}

function refuseUnknownVariables(environment: Readonly<Record<string, string | undefined>>): void {
  const known = new Set(OTHER_VARIABLES);
  for (const about of Object.values<Setting<unknown>>(SETTINGS)) known.add(about.variable);
  for (const name of Object.keys(environment)) {
    if (!name.startsWith("WARREN_") || known.has(name)) continue;
    throw new ConfigError(`unknown environment variable ${name}${didYouMean(name, known, "")}`);
  }
}

/** The help text of a program: its settings, their variables and defaults. */
export function helpOf<Names extends SettingName>(program: Program<Names>): string {
  const rows = program.settings.map((name): [string, string] => {
    const about: Setting<unknown> = SETTINGS[name];
    const left = `--${about.flag}${about.value === undefined ? "" : ` ${about.value}`}`;
    const fallback = about.fallback === undefined || about.fallback === "" ? "" : ` [${about.fallback}]`;
    return [left, `${about.help}${fallback} (${about.variable})`];
  });
  rows.push(["--help", "this text"]);
  const width = Math.max(...rows.map(([left]) => left.length));
  const body = rows.map(([left, right]) => `  ${left.padEnd(width)}  ${right}`).join("\n");
  return `Usage: ${program.usage}\n\n${program.about}\n\nFlags (each has an environment variable; flags win):\n${body}\n`;
}

function didYouMean(given: string, known: Iterable<string>, prefix: string): string {
  let best: string | undefined;
  let bestDistance = 4;
  for (const name of known) {
    const distance = editDistance(given, name);
    if (distance < bestDistance) [best, bestDistance] = [name, distance];
  }
  return best === undefined ? "" : `, did you mean ${prefix}${best}?`;
}

/** Levenshtein distance: single-character insertions, deletions and replacements from one to the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= to.length; j += 1) {
      const replaced = (row[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}
