import { execFile, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdirSync } from "node:fs";
import path from "node:path";
import { promisify } from "node:util";

const ROOT = path.resolve(import.meta.dirname, "../..");
const EXAMPLES = path.join(ROOT, "examples");
/** Where everything that is downloaded or built goes. */
const PLACE = path.join(ROOT, ".warren", "examples");
const PYTHON_PACKAGES = path.join(ROOT, ".warren", "python");
const DOWNLOAD_MS = 300_000;
const PROGRAM_MS = 60_000;

const run = promisify(execFile);

export type ProgramName = "publish" | "ask" | "crawl" | "node";

/** What a program left behind. */
export type Outcome = {
  readonly code: number;
  /** The lines of its standard output. */
  readonly lines: readonly string[];
  readonly stderr: string;
};

export type Language = {
  readonly name: string;
  /** Programs that must be on this machine. */
  readonly tools: readonly string[];
  /** Whether its crawl program shows the tasks' events, too. */
  readonly showsTasks: boolean;
  /** Downloads and builds. @throws MissingPart when a package cannot be had */
  prepare(): Promise<void>;
  /** The command line of a program, and its environment. */
  command(program: ProgramName): { readonly line: readonly string[]; readonly env?: Environment };
};

type Environment = Readonly<Record<string, string>>;

/** This machine lacks something that a language needs: a reason to skip its tests, not a failure of the programs. */
export class MissingPart extends Error {}

export const LANGUAGES: readonly Language[] = [
  {
    name: "Python",
    tools: ["python3"],
    showsTasks: true,
    async prepare() {
      if (existsSync(path.join(PYTHON_PACKAGES, "pika"))) return;
      const requirements = path.join(EXAMPLES, "python", "requirements.txt");
      await download("python3", [
        ...["-m", "pip", "install", "--quiet", "--target", PYTHON_PACKAGES],
        ...["-r", requirements],
      ]);
    },
    command: (program) => ({
      line: ["python3", path.join(EXAMPLES, "python", `${program}.py`)],
      env: { PYTHONPATH: PYTHON_PACKAGES },
    }),
  },
  {
    name: "Go",
    tools: ["go"],
    showsTasks: true,
    async prepare() {
      const folder = path.join(EXAMPLES, "go");
      const programs = path.join(PLACE, "go", "programs") + path.sep;
      const env = {
        GOMODCACHE: path.join(PLACE, "go", "modules"),
        GOCACHE: path.join(PLACE, "go", "cache"),
        GOFLAGS: "-modcacherw -buildvcs=false",
        GOTOOLCHAIN: "local",
      };
      await download("go", ["mod", "download"], { cwd: folder, env });
      await build("go", ["vet", "./..."], { cwd: folder, env });
      mkdirSync(programs, { recursive: true });
      await build("go", ["build", "-o", programs, "./..."], { cwd: folder, env });
    },
    command: (program) => ({ line: [path.join(PLACE, "go", "programs", program)] }),
  },
  {
    name: "Java",
    tools: ["java", "mvn"],
    showsTasks: true,
    async prepare() {
      const folder = path.join(PLACE, "java");
      for (const part of ["pom.xml", "src"]) {
        cpSync(path.join(EXAMPLES, "java", part), path.join(folder, part), { recursive: true });
      }
      const repository = `-Dmaven.repo.local=${path.join(PLACE, "maven")}`;
      try {
        await build("mvn", ["--quiet", "--batch-mode", repository, "compile"], { cwd: folder });
      } catch (error) {
        if (String(error).includes("COMPILATION ERROR")) throw error;
        throw new MissingPart(`Maven could not get what it needs: ${String(error)}`);
      }
    },
    command: (program) => ({
      line: ["java", `${program.charAt(0).toUpperCase()}${program.slice(1)}`],
      env: {
        CLASSPATH: ["classes", "libraries/*"].map((part) => path.join(PLACE, "java/target", part)).join(":"),
      },
    }),
  },
  {
    name: "Node",
    tools: ["node"],
    showsTasks: true,
    // It finds the project's own amqplib.
    prepare: async () => {},
    command: (program) => ({ line: ["node", path.join(EXAMPLES, "node", `${program}.js`)] }),
  },
  {
    name: "shell",
    tools: ["sh", "curl", "base64"],
    showsTasks: false,
    prepare: async () => void managementUrl(),
    command: (program) => ({
      line: ["sh", path.join(EXAMPLES, "shell", `${program}.sh`)],
      env: { RABBITMQ_MANAGEMENT_URL: managementUrl() },
    }),
  },
];

/** Says what this machine lacks for the programs of a language, or gets them ready to run. */
export async function prepared(language: Language): Promise<string | undefined> {
  const missing = language.tools.filter(
    (tool) => spawnSync(tool, ["--version"], { stdio: "ignore" }).error !== undefined,
  );
  if (missing.length > 0) return `not on this machine: ${missing.join(", ")}`;
  try {
    await language.prepare();
    return undefined;
  } catch (error) {
    if (error instanceof MissingPart) return error.message;
    throw error;
  }
}

/** Runs a program to its end, whatever that is. */
export async function outcomeOf(
  language: Language,
  program: ProgramName,
  args: readonly string[],
  environment: Environment,
): Promise<Outcome> {
  const { line, env } = language.command(program);
  const [file = "", ...first] = line;
  const options = { env: { ...process.env, ...env, ...environment }, timeout: PROGRAM_MS };
  const { code, stdout, stderr } = await run(file, [...first, ...args], options).then(
    (output) => ({ ...output, code: 0 }),
    (error: { code: unknown; stdout: string; stderr: string }) => error,
  );
  if (typeof code !== "number") {
    throw new Error(`${[...line, ...args].join(" ")} did not end by itself: ${stdout}\n${stderr}`);
  }
  return { code, lines: stdout.split("\n").filter((text) => text !== ""), stderr };
}

type Workplace = { readonly cwd?: string; readonly env?: Environment };

async function build(file: string, args: readonly string[], { cwd, env }: Workplace = {}): Promise<void> {
  const options = {
    ...(cwd !== undefined && { cwd }),
    env: { ...process.env, ...env },
    timeout: DOWNLOAD_MS,
  };
  await run(file, args, options).catch((error: { stdout: string; stderr: string }) => {
    throw new Error(`${file} ${args.join(" ")} failed: ${error.stdout}${error.stderr}`);
  });
}

async function download(...parameters: Parameters<typeof build>): Promise<void> {
  await build(...parameters).catch((error: Error) => {
    throw new MissingPart(error.message);
  });
}

/** The management page of the test run's RabbitMQ, with the user of AMQP_URL. */
function managementUrl(): string {
  const { RABBITMQ_MANAGEMENT_URL: page, AMQP_URL = "amqp://localhost" } = process.env;
  if (page === undefined) {
    throw new MissingPart("RABBITMQ_MANAGEMENT_URL is not set, as when RabbitMQ was given by AMQP_URL");
  }
  const url = new URL(page);
  const { username, password } = new URL(AMQP_URL.split(",")[0] ?? "");
  if (url.username === "")
    Object.assign(url, { username: username || "guest", password: password || "guest" });
  return url.href.replace(/\/$/, "");
}
