import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import path from "node:path";
import type {
  BrowserContext,
  BrowserContextOptions,
  BrowserType,
  CDPSession,
  Browser as Chromium,
} from "playwright-core";
import type { Clock, StopTimer } from "../../lib/clock.js";
import { messageOf } from "../../lib/errors.js";
import type { Logger } from "../../lib/logger.js";
import { NoBrowserError } from "../errors.js";
import { ScratchFolder } from "./scratch-folder.js";

export type BrowserOptions = {
  /** The program, or its name on PATH. @default the first of `BROWSER_NAMES` on PATH */
  readonly path?: string;
  /** Chromium's own sandbox. `auto`: unless this process is root, for whom it does not work. @default "auto" */
  readonly sandbox: "auto" | "on" | "off";
  /** Resident memory of one page's process, in bytes; it is ended when it has more. @default 1 GiB */
  readonly maxPageMemoryBytes: number;
  /** Pages after which the browser is replaced by a new one. @default 500 */
  readonly maxPages: number;
};

export const BROWSER_DEFAULTS: BrowserOptions = {
  sandbox: "auto",
  maxPageMemoryBytes: 2 ** 30,
  maxPages: 500,
};

/** What Chromium and its kin are called. */
export const BROWSER_NAMES = [
  "chromium",
  "chromium-browser",
  "google-chrome",
  "google-chrome-stable",
] as const;

export type BrowserDeps = { readonly clock: Clock; readonly logger: Logger };

/**
 * The browser has no network. All that a page asks for goes through request interception, where our own fetcher gets
 * it. What interception does not see (WebSockets, WebRTC, pre-connections, whatever comes with the next version) would
 * have to go through a proxy whose name means nothing: no direct connection, no name is resolved, no UDP is sent.
 */
const NO_NETWORK = [
  "--proxy-server=http://no-network.invalid:1",
  // Without this, loopback would be reached directly.
  "--proxy-bypass-list=<-loopback>",
  "--host-resolver-rules=MAP * ~NOTFOUND",
  "--disable-quic",
  "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
  "--dns-prefetch-disable",
  "--no-pings",
];

const LAUNCH_TIMEOUT_MS = 30_000;
const CLOSE_TIMEOUT_MS = 5_000;
const MEMORY_CHECK_MS = 250;
const MiB = 2 ** 20;

type Running = {
  readonly chromium: Chromium;
  readonly session: CDPSession;
  readonly pid: number;
  /** Contexts made so far, and those that are open. */
  made: number;
  open: number;
  /** No further context is opened in it; it ends with the last one. */
  isRetired: boolean;
};

/** Ends a context, and waits until it is gone. */
export type OpenContext = { readonly context: BrowserContext; close(): Promise<void> };

/**
 * One Chromium process (with its children), started when it is first needed, started anew when it has crashed or served
 * its number of pages.
 *
 * It is spoken to through a pipe, so that it listens on no port, and ends by itself when this process does, however
 * that happens: the pipe breaks.
 */
export class Browser {
  readonly #options: BrowserOptions;
  readonly #deps: BrowserDeps;
  #current: Running | undefined;
  #starting: Promise<Running> | undefined;
  readonly #all = new Set<Running>();
  #path: Promise<string | undefined> | undefined;
  #stopWatching: StopTimer | undefined;
  #isStopped = false;

  constructor(options: Partial<BrowserOptions>, deps: BrowserDeps) {
    this.#options = { ...BROWSER_DEFAULTS, ...options };
    this.#deps = deps;
  }

  /** Where its program is; undefined when there is none. */
  get path(): Promise<string | undefined> {
    this.#path ??= findBrowser(this.#options.path);
    return this.#path;
  }

  get maxPageMemoryBytes(): number {
    return this.#options.maxPageMemoryBytes;
  }

  /** The browser's process ids, while it runs. */
  get pids(): readonly number[] {
    return [...this.#all].map(({ pid }) => pid);
  }

  /**
   * Opens a context: cookies, storage and cache of its own.
   * @throws NoBrowserError when there is no browser, or it does not start
   */
  async open(options: BrowserContextOptions): Promise<OpenContext> {
    const running = await this.#running();
    running.made += 1;
    running.open += 1;
    if (running.made >= this.#options.maxPages) this.#retire(running);
    let context: BrowserContext;
    try {
      context = await running.chromium.newContext(options);
    } catch (error) {
      this.#left(running);
      throw error;
    }
    this.#watch();
    let closing: Promise<void> | undefined;
    const close = async () => {
      const isClosed = await within(CLOSE_TIMEOUT_MS, context.close(), this.#deps.clock);
      // One that cannot be closed would stay for ever, and work on.
      if (!isClosed) this.#kill(running);
      this.#left(running);
    };
    return {
      context,
      close: () => {
        closing ??= close();
        return closing;
      },
    };
  }

  /** Ends the browser with all that is open in it. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#starting?.catch(() => {});
    this.#stopWatching?.();
    await Promise.all([...this.#all].map((running) => this.#end(running)));
  }

  async #running(): Promise<Running> {
    if (this.#isStopped) throw new NoBrowserError("the browser was stopped");
    if (this.#current?.chromium.isConnected() === true) return this.#current;
    this.#starting ??= this.#start().finally(() => {
      this.#starting = undefined;
    });
    return this.#starting;
  }

  async #start(): Promise<Running> {
    const { logger } = this.#deps;
    const executablePath = await this.path;
    if (executablePath === undefined) throw new NoBrowserError(noBrowser(this.#options.path));
    const { chromium } = await import("playwright-core").catch((error: unknown) => {
      throw new NoBrowserError(
        `this node cannot render: the package playwright-core is not installed (npm install playwright-core): ${messageOf(error)}`,
        { cause: error },
      );
    });
    const scratch = await ScratchFolder.make();
    let running: Running;
    try {
      running = await this.#launch(chromium, executablePath, scratch);
    } catch (error) {
      await scratch.remove();
      throw new NoBrowserError(
        `this node cannot render: ${executablePath} (--browser-path) did not start: ${messageOf(error)}`,
        { cause: error },
      );
    }
    this.#all.add(running);
    this.#current = running;
    const { chromium: launched, pid } = running;
    launched.on("disconnected", () => {
      this.#all.delete(running);
      void scratch.remove();
      if (this.#current !== running) return;
      this.#current = undefined;
      if (!this.#isStopped) logger.warn({ pid }, "the browser ended; another is started when it is needed");
    });
    logger.debug({ pid, path: executablePath, version: launched.version() }, "browser started");
    return running;
  }

  async #launch(chromium: BrowserType, executablePath: string, scratch: ScratchFolder): Promise<Running> {
    const launched = await chromium.launch({
      executablePath,
      chromiumSandbox: this.#isSandboxed,
      timeout: LAUNCH_TIMEOUT_MS,
      // Signals are for the program's own orderly stop.
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
      env: { ...environmentFor(process.env), TMPDIR: scratch.path },
      artifactsDir: scratch.path,
      ignoreDefaultArgs: ["--disable-popup-blocking"],
      // A page's heap stays below what its process may have in all.
      args: [...NO_NETWORK, `--js-flags=--max-old-space-size=${heapMiB(this.#options)}`],
    });
    const session = await launched.newBrowserCDPSession();
    const { processInfo } = await session.send("SystemInfo.getProcessInfo");
    const pid = processInfo.find(({ type }) => type === "browser")?.id ?? 0;
    const profile = await profileOf(pid);
    if (profile !== undefined) await scratch.noteProfile(profile);
    return { chromium: launched, session, pid, made: 0, open: 0, isRetired: false };
  }

  get #isSandboxed(): boolean {
    const { sandbox } = this.#options;
    return sandbox === "on" || (sandbox === "auto" && process.getuid?.() !== 0);
  }

  /** Takes no more contexts: the next one gets a new browser. */
  #retire(running: Running): void {
    running.isRetired = true;
    if (this.#current === running) this.#current = undefined;
  }

  #left(running: Running): void {
    running.open -= 1;
    if (running.isRetired && running.open === 0) void this.#end(running);
  }

  async #end(running: Running): Promise<void> {
    const isClosed = await within(CLOSE_TIMEOUT_MS, running.chromium.close(), this.#deps.clock);
    if (!isClosed) this.#kill(running);
  }

  #kill(running: Running): void {
    this.#retire(running);
    if (running.pid > 0) kill(running.pid);
  }

  /** Looks at the memory of its processes again and again, while pages are open. */
  #watch(): void {
    this.#stopWatching ??= this.#deps.clock.after(MEMORY_CHECK_MS, () => {
      void Promise.all([...this.#all].map((running) => this.#checkMemory(running))).then(() => {
        this.#stopWatching = undefined;
        if (!this.#isStopped && [...this.#all].some(({ open }) => open > 0)) this.#watch();
      });
    });
  }

  async #checkMemory(running: Running): Promise<void> {
    const { maxPageMemoryBytes } = this.#options;
    const { logger } = this.#deps;
    try {
      const { processInfo } = await running.session.send("SystemInfo.getProcessInfo");
      for (const { type, id } of processInfo) {
        const bytes = await residentBytes(id);
        if (bytes <= maxPageMemoryBytes) continue;
        if (type === "renderer") {
          logger.info({ pid: id, bytes }, "a page took too much memory: its process is ended");
          kill(id);
        } else if (!running.isRetired) {
          logger.info({ pid: id, bytes, type }, "the browser took much memory: the next page gets a new one");
          this.#retire(running);
        }
      }
    } catch {
      // It is going, or gone.
    }
  }
}

/** The program of that path or name; without one, the first that has a name of Chromium's. */
async function findBrowser(given: string | undefined): Promise<string | undefined> {
  const folders = (process.env.PATH ?? "").split(path.delimiter).filter((folder) => folder !== "");
  const names: readonly string[] = given === undefined ? BROWSER_NAMES : [given];
  for (const name of names) {
    const places = name.includes(path.sep)
      ? [path.resolve(name)]
      : folders.map((folder) => path.join(folder, name));
    for (const place of places) {
      const isProgram = await access(place, constants.X_OK).then(
        () => true,
        () => false,
      );
      if (isProgram) return place;
    }
  }
  return undefined;
}

function noBrowser(given: string | undefined): string {
  const missing =
    given === undefined
      ? `none of ${BROWSER_NAMES.join(", ")} is on PATH`
      : `${given} (--browser-path) is no program`;
  return `this node cannot render: ${missing}; install Chromium (on Debian: apt-get install chromium) or set --browser-path`;
}

/** Pages are strangers: of our environment, with its passwords, the browser sees what it needs. */
function environmentFor(environment: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const passed: Record<string, string> = {};
  for (const name of ["PATH", "HOME", "LANG", "TZ", "XDG_RUNTIME_DIR"]) {
    const value = environment[name];
    if (value !== undefined) passed[name] = value;
  }
  return passed;
}

function heapMiB({ maxPageMemoryBytes }: BrowserOptions): number {
  return Math.max(64, Math.floor((maxPageMemoryBytes * 0.6) / MiB));
}

/** Where a browser keeps its profile, where the system tells of its arguments. */
async function profileOf(pid: number): Promise<string | undefined> {
  const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return /--user-data-dir=([^\0]+)/.exec(commandLine)?.[1];
}

/** Memory of a process, where the system tells; else 0. */
async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1_024;
}

function kill(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // Gone already.
  }
}

/** Whether it settled in time; how, is all the same. */
function within(ms: number, settling: Promise<unknown>, clock: Clock): Promise<boolean> {
  return new Promise((resolve) => {
    const stopTimer = clock.after(ms, () => resolve(false));
    const settled = () => {
      stopTimer();
      resolve(true);
    };
    settling.then(settled, settled);
  });
}
