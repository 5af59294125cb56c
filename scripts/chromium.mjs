import path from "node:path";
import { spawnGuarded, tailOf } from "./processes.mjs";
import { findProgram } from "./programs.mjs";
import { step } from "./report.mjs";
import { SetupError } from "./setup-error.mjs";

const ROOT = path.resolve(import.meta.dirname, "..");
/** A package manager that is cut short leaves a mess. */
const INSTALL_GRACE_MS = 120_000;
const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const HOW_TO = "install Chromium (Debian: apt-get install chromium) or set WARREN_BROWSER_PATH";
const INSTALL = `
apt-get update || { sleep 5; apt-get update; } || echo "going on with the package lists as they are"
install() { apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends chromium; }
install || { dpkg --configure -a && install; }
`;

/**
 * Chromium, which is installed where that can be done.
 * @param {import("./report.mjs").Report} report
 * @returns {Promise<string>} the program's path
 * @throws SetupError with exit code 2
 */
export async function findOrInstallChromium(report) {
  const found = findChromium();
  if (found !== undefined) return found;
  if (process.getuid?.() !== 0 || findProgram("apt-get") === undefined) {
    throw new SetupError(
      `Chromium is not on this machine, and only root on Debian can install it here: ${HOW_TO}`,
    );
  }
  const logFile = path.join(ROOT, ".warren", "logs", "install-chromium.log");
  report(`Chromium is not on this machine; the installation's log is ${path.relative(ROOT, logFile)}`);
  await step(report, "Chromium: installing it (apt-get install chromium)", async () => {
    const installing = await spawnGuarded("/bin/sh", ["-c", INSTALL], {
      ...{ env: { DEBIAN_FRONTEND: "noninteractive" }, logFile, graceMs: INSTALL_GRACE_MS },
    });
    const { code } = await installing.exited;
    if (code !== 0) throw new SetupError(`Chromium could not be installed; ${HOW_TO}\n${tailOf(logFile)}`);
  });
  const installed = findChromium();
  if (installed === undefined) throw new SetupError(`Chromium was installed but cannot be found; ${HOW_TO}`);
  return installed;
}

function findChromium() {
  const given = process.env.WARREN_BROWSER_PATH;
  if (given !== undefined && given !== "") return path.isAbsolute(given) ? given : findProgram(given);
  return NAMES.map((name) => findProgram(name)).find((program) => program !== undefined);
}
