import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { spawnGuarded, tailOf } from "./processes.mjs";
import { findProgram } from "./programs.mjs";
import { step } from "./report.mjs";
import { oneAtATime } from "./run-folder.mjs";
import { SetupError } from "./setup-error.mjs";

/** A package manager that is cut short leaves a mess. */
const INSTALL_GRACE_MS = 120_000;
/** Mounts of its own, which are gone with it, however it ends, and which nobody else sees. */
const APART = ["--mount", "--propagation", "private"];

/**
 * Runs a command in the folder `$1` as if that were the whole machine; `$2` is there too, under its own path. It
 * runs among processes of its own, and all of them end with the first.
 */
const ENTER = `
set -e
root=$1
shared=$2
shift 2
mkdir -p "$root$shared"
mount --bind "$shared" "$root$shared"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
`;

/**
 * A small Debian of another release than this machine's, in a folder, with some packages: how to run programs that
 * this machine's own release has in another version. It is made from the package sources of this machine, and kept.
 */
export class DebianRoot {
  #folder;
  #release;
  #packages;

  /** @param {{ folder: string, release: string, packages: readonly string[] }} options `release`: its code name */
  constructor({ folder, release, packages }) {
    this.#folder = folder;
    this.#release = release;
    this.#packages = packages;
  }

  /**
   * Makes it, unless that was done before.
   * @param {import("./report.mjs").Report} report
   * @throws SetupError when it cannot be made on this machine, with exit code 2
   */
  async make(report) {
    const what = `a Debian "${this.#release}" with ${this.#packages.join(", ")}`;
    await oneAtATime({ folder: this.#folder, report, what: "another run that makes the same" }, async () => {
      if (this.#isMade()) return;
      if (process.getuid?.() !== 0 || findProgram("apt-get") === undefined) {
        throw new SetupError(`only root on Debian can make ${what} in ${this.#folder}`);
      }
      const logFile = path.join(this.#folder, "make.log");
      report(`${what} is not there yet; the log of its making is ${logFile}`);
      await step(report, `${what}: making it`, () => this.#make(what, logFile));
    });
  }

  /**
   * The command line that runs a program in it.
   * @param {string} shared a folder that the program finds under the same path
   * @param {string} program
   * @returns {readonly string[]} to which the program's arguments can be added
   */
  command(shared, program) {
    const alone = [...APART, "--pid", "--fork", "--kill-child=SIGKILL"];
    return ["unshare", ...alone, "/bin/sh", "-c", ENTER, "sh", this.#root, shared, program];
  }

  get #root() {
    return path.join(this.#folder, "root");
  }

  /** What it is made of, so that another list of packages makes it anew. */
  get #recipe() {
    return `${this.#release} ${this.#packages.join(" ")}\n`;
  }

  #isMade() {
    const recipe = path.join(this.#root, "recipe");
    return existsSync(recipe) && readFileSync(recipe, "utf8") === this.#recipe;
  }

  async #make(what, logFile) {
    if (findProgram("mmdebstrap") === undefined) {
      const install = "apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends mmdebstrap";
      await run("/bin/sh", ["-c", `apt-get update; ${install}`], { what: "mmdebstrap", logFile });
    }
    const mirror = debianMirror() ?? (await this.#mirrorAfterUpdate(logFile));
    if (mirror === undefined) {
      throw new SetupError(
        `${what} cannot be made: apt's sources on this machine (/etc/apt/sources.list*) name no Debian to get it from`,
      );
    }
    // Under another name until it is whole.
    const unfinished = `${this.#root}.unfinished`;
    rmSync(unfinished, { recursive: true, force: true });
    rmSync(this.#root, { recursive: true, force: true });
    // The signatures are checked with the keys that this machine has.
    const include = `--include=${this.#packages.join(",")}`;
    const args = ["mmdebstrap", "--variant=minbase", include, this.#release, unfinished, mirror];
    await run("unshare", [...APART, ...args], { what, logFile });
    writeFileSync(path.join(unfinished, "etc", "hosts"), "127.0.0.1 localhost\n");
    writeFileSync(path.join(unfinished, "recipe"), this.#recipe);
    renameSync(unfinished, this.#root);
  }

  /** A machine that is fresh from an image may not know yet what its sources are. */
  async #mirrorAfterUpdate(logFile) {
    await run("apt-get", ["update"], { what: "the list of packages", logFile });
    return debianMirror();
  }
}

/** Where this machine gets Debian's packages from; undefined when it does not. */
function debianMirror() {
  const format = "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)";
  const args = ["indextargets", "--format", format, "Created-By: Packages"];
  const sources = execFileSync("apt-get", args, { encoding: "utf8" }).split("\n");
  return sources.find((line) => line.startsWith("Debian|Debian|main|"))?.split("|")[3];
}

async function run(command, args, { what, logFile }) {
  mkdirSync(path.dirname(logFile), { recursive: true });
  const env = { DEBIAN_FRONTEND: "noninteractive" };
  const running = await spawnGuarded(command, args, { env, logFile, graceMs: INSTALL_GRACE_MS });
  const { code, signal } = await running.exited;
  if (code === 0) return;
  throw new SetupError(
    `${what} could not be had (${command} ended with ${signal ?? `exit code ${code}`}):\n${tailOf(logFile)}`,
  );
}
