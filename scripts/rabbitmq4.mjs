import path from "node:path";
import { DebianRoot } from "./debian-root.mjs";
import { SetupError } from "./setup-error.mjs";

const FOLDER = path.resolve(import.meta.dirname, "..", ".warren", "rabbitmq4");
const HOW_TO =
  "Start a RabbitMQ 4 yourself and run AMQP_URL=… npx vitest run --project integration --project e2e, " +
  "or start Docker, where `npm test` uses RabbitMQ 4";

/**
 * RabbitMQ 4, wherever the machine's own packages have an older one: that of Debian 13.
 * @param {import("./report.mjs").Report} report
 * @returns {Promise<import("./rabbitmq.mjs").Installation>}
 * @throws SetupError
 */
export async function findOrMakeRabbit4(report) {
  const debian = new DebianRoot({ folder: FOLDER, release: "trixie", packages: ["rabbitmq-server"] });
  try {
    await debian.make(report);
  } catch (error) {
    if (!(error instanceof SetupError)) throw error;
    throw new SetupError(`no RabbitMQ 4 here: ${error.message}\n${HOW_TO}`, { cause: error });
  }
  return {
    rabbitmq: async (folder) => debian.command(folder, "/usr/lib/rabbitmq/bin/rabbitmq-server"),
    epmd: (folder) => debian.command(folder, "/usr/bin/epmd"),
  };
}
