import { parseArgs } from "node:util";
import { SetupError } from "./setup-error.mjs";

export const DEFAULT_PORT = 8080;
const SPIDER = "pdf";
const WORKERS = 2;

export const HELP = `Usage: npm start [-- [URL] [--spider NAME] [--exit] [--workers N] [--port N]]

Brings up RabbitMQ, MongoDB, a master with its dashboard and workers, and crawls URL, or the bundled demo site.

  URL            what to crawl instead of the demo site
  --spider NAME  the spider [${SPIDER}]
  --workers N    how many workers [${WORKERS}]
  --port N       port of the API and the dashboard; 0 takes a free one [${DEFAULT_PORT}, or the next free one]
  --exit         stop everything when the crawl is over; exit code 0 only if it finished
  --help         this text

RabbitMQ and MongoDB are those that AMQP_URL and MONGODB_URI name, else containers if a Docker engine answers, else
private ones on this machine, with their data under .warren/start.
`;

const FLAGS = {
  spider: { type: "string" },
  workers: { type: "string" },
  port: { type: "string" },
  exit: { type: "boolean" },
  help: { type: "boolean" },
};

/**
 * What `npm start` was asked to do.
 * @param {readonly string[]} args
 * @returns {{ help: boolean, exit: boolean, spider: string, workers: number, url?: string, port?: number }}
 * @throws SetupError that names the flag
 */
export function readStartArguments(args) {
  const { values, positionals, tokens } = parseArgs({
    ...{ args: [...args], options: FLAGS, strict: false, allowPositionals: true, tokens: true },
  });
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const flag = Object.hasOwn(FLAGS, token.name) ? FLAGS[token.name] : undefined;
    if (flag === undefined)
      throw new SetupError(`unknown flag ${token.rawName}; npm start -- --help lists them`);
    if (flag.type === "string" && !token.value) throw new SetupError(`--${token.name} needs a value`);
    if (flag.type === "boolean" && token.value !== undefined)
      throw new SetupError(`--${token.name} takes no value, not "${token.value}" either`);
  }
  if (positionals.length > 1) {
    throw new SetupError(`one URL is crawled at a time, not ${positionals.length}: ${positionals.join(" ")}`);
  }
  const [url] = positionals;
  if (url !== undefined && !(URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) {
    throw new SetupError(`URL must be an absolute http or https URL, not "${url}"`);
  }
  return {
    help: values.help === true,
    exit: values.exit === true,
    spider: values.spider ?? SPIDER,
    workers: wholeNumber("workers", values.workers ?? String(WORKERS), 1, 64),
    ...(url !== undefined && { url }),
    ...(values.port !== undefined && { port: wholeNumber("port", values.port, 0, 65_535) }),
  };
}

function wholeNumber(flag, text, least, most) {
  const number = Number(text);
  if (/^\d+$/.test(text) && number >= least && number <= most) return number;
  throw new SetupError(`--${flag} must be a whole number from ${least} to ${most}, not "${text}"`);
}
