import { parseArgs } from "node:util";
import { HelpRequested } from "../lib/config.js";
import { ConfigError, messageOf } from "../lib/errors.js";
import { ApiClient } from "./api-client.js";
import type { Command } from "./command.js";

export type ProgramInput = {
  readonly argv: readonly string[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly out: (text: string) => void;
  readonly note: (text: string) => void;
};

const DEFAULT_URL = "http://127.0.0.1:8080";
const COMMON = {
  url: { type: "string" },
  token: { type: "string" },
  json: { type: "boolean" },
  help: { type: "boolean" },
} as const;

/**
 * Does what the arguments say.
 * @throws ConfigError for what is no command, or not as it is used; HelpRequested; ApiCallError
 */
export async function runProgram(
  commands: readonly Command[],
  { argv, environment, out, note }: ProgramInput,
): Promise<void> {
  const words = wordsOf(commands, argv);
  const command = commands.find(({ name }) => name.split(" ").every((word, index) => words[index] === word));
  if (command === undefined) {
    if (argv.includes("--help") || argv.length === 0) throw new HelpRequested(helpOf(commands));
    throw new ConfigError(`there is no command "${words.slice(0, 2).join(" ")}"; see --help`);
  }
  const { values, positionals } = parsed(command, argv);
  if (values.help === true) throw new HelpRequested(helpOf([command]));
  const args = positionals.slice(command.name.split(" ").length);
  const [least, most] = command.args;
  if (args.length < least || args.length > most) {
    throw new ConfigError(`usage: warren ${command.name} ${command.usage}`);
  }
  const url = String(values.url ?? environment.WARREN_URL ?? DEFAULT_URL);
  if (!/^https?:\/\//.test(url) || !URL.canParse(url)) {
    throw new ConfigError(`--url, WARREN_URL: must be the URL of a master's API, not "${url}"`);
  }
  const token = values.token ?? environment.WARREN_TOKEN;
  await command.run({
    args,
    flags: values,
    api: new ApiClient({ url, ...(typeof token === "string" && token !== "" && { token }) }),
    show: (answer, inWords) =>
      out(`${values.json === true ? JSON.stringify(answer, undefined, 2) : inWords()}\n`),
    note: (text) => note(`${text}\n`),
  });
}

/** What is no flag, nor the value of one. */
function wordsOf(commands: readonly Command[], argv: readonly string[]): readonly string[] {
  const options = Object.assign({}, COMMON, ...commands.map(({ flags }) => flags)) as typeof COMMON;
  return parseArgs({ args: [...argv], options, allowPositionals: true, strict: false }).positionals;
}

function parsed(command: Command, argv: readonly string[]) {
  try {
    const options = { ...COMMON, ...command.flags };
    const { values, positionals } = parseArgs({ args: [...argv], options, allowPositionals: true });
    return { values: values as Record<string, string | boolean | undefined>, positionals };
  } catch (error) {
    throw new ConfigError(`${messageOf(error)}\nusage: warren ${command.name} ${command.usage}`);
  }
}

function helpOf(commands: readonly Command[]): string {
  const rows = commands.map(({ name, usage, about }) => `  warren ${name} ${usage}\n      ${about}`);
  return `Usage: warren COMMAND … [--url URL] [--token TOKEN] [--json]

${rows.join("\n")}

  --url URL      a master's API [${DEFAULT_URL}] (WARREN_URL)
  --token TOKEN  who you are (WARREN_TOKEN)
  --json         answers as JSON

Exit code 0: done; 1: it failed; 2: wrong usage.
`;
}
