import { processManifest } from "../crawl/process-manifest.js";
import { systemClock } from "../lib/clock.js";
import { fieldErrorsOf } from "../lib/field-errors.js";
import type { Logger } from "../lib/logger.js";
import { ChildProcesses, ProcessSpiders } from "./processes/index.js";
import type { SpiderMaker } from "./spider-catalog.js";

export type StandaloneProcesses = {
  readonly make: SpiderMaker<"process">;
  /** In the order in which they are to be started. */
  readonly services: readonly [ChildProcesses, ProcessSpiders];
};

/** Process spiders that lie in a user's own folder, for a standalone crawl. What one has to `install` is run each time. */
export function standaloneProcesses(logger: Logger): StandaloneProcesses {
  const clock = systemClock;
  const children = new ChildProcesses({ clock, logger });
  const spiders = new ProcessSpiders({ children, clock, node: "standalone" });
  return {
    services: [children, spiders],
    async make({ folder, manifest: given }) {
      const parsed = processManifest.safeParse(given);
      if (!parsed.success) {
        const [fault] = fieldErrorsOf(parsed.error);
        throw new Error(fault === undefined ? "is none" : `${fault.field}: ${fault.message}`);
      }
      const manifest = parsed.data;
      for (const command of manifest.install ?? []) {
        const { reason, code, message, stderrTail } = await children.run({
          command,
          cwd: folder,
          ...(manifest.env !== undefined && { env: manifest.env }),
          onLine: (stream, { text }) => logger.debug({ command, stream }, text),
        }).ended;
        if (reason === "exited" && code === 0) continue;
        throw new Error([`install: ${command.join(" ")} ${message}`, ...stderrTail].join("\n"));
      }
      const source = { folder, manifest, version: "1" };
      return manifest.mode === "run" ? spiders.loadRun(source) : await spiders.load(source);
    },
  };
}
