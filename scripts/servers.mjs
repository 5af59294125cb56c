import { rmSync } from "node:fs";
import path from "node:path";
import { hasDockerEngine, startMongoContainer, startRabbitContainer } from "./docker.mjs";
import { checkMongodbUri, PrivateMongo } from "./mongodb.mjs";
import { checkAmqpUrl, PrivateRabbit } from "./rabbitmq.mjs";
import { step } from "./report.mjs";
import { claimRunFolder } from "./run-folder.mjs";
import { SetupError } from "./setup-error.mjs";

export { PrivateMongo, startMongo } from "./mongodb.mjs";
export { freePort } from "./ports.mjs";
export { PrivateRabbit, startRabbit } from "./rabbitmq.mjs";
export { SetupError } from "./setup-error.mjs";

const STATE = path.resolve(import.meta.dirname, "..", ".warren");

/** @typedef {import("./report.mjs").Report} Report */
/** @typedef {"given" | "container" | "private"} Kind where a server comes from */

/**
 * @typedef {object} Servers
 * @property {string} amqpUrl empty when none was wanted
 * @property {string} mongodbUri empty when none was wanted
 * @property {string} [managementUrl] RabbitMQ's management page
 * @property {{ rabbitmq?: Kind, mongodb?: Kind }} kind
 * @property {string} folder where data and logs are
 * @property {() => Promise<void>} stop ends what was started here, and nothing else
 */

/**
 * A RabbitMQ and a MongoDB. For each, the first that works: the one that AMQP_URL or MONGODB_URI names; one in
 * a container, if a Docker engine answers; one found on this machine, or installed, started as a private
 * process on a free loopback port with its data under `.warren/`.
 * @param {object} options
 * @param {"start" | "test" | "bench"} options.purpose private servers keep their data from one run to the next for
 *   `start`; the others begin with none
 * @param {Report} [options.report]
 * @param {NodeJS.ProcessEnv} [options.env]
 * @param {string} [options.dataDir] instead of `.warren/`
 * @param {boolean} [options.amqp] whether RabbitMQ is wanted
 * @param {import("./rabbitmq.mjs").Installation} [options.rabbitmq] a RabbitMQ to start, whatever AMQP_URL says
 * @param {boolean} [options.mongodb] whether MongoDB is wanted
 * @returns {Promise<Servers>}
 * @throws SetupError
 */
export async function startServers(options) {
  const { purpose, report = () => {}, env = process.env, dataDir = STATE } = options;
  const { amqp = true, mongodb = true, rabbitmq } = options;
  const givenUrl = rabbitmq === undefined ? env.AMQP_URL : undefined;
  const { folder, release } = await claimRunFolder({ parent: dataDir, name: purpose, report });
  const places = { rabbitmq: path.join(folder, "rabbitmq"), mongodb: path.join(folder, "mongodb") };
  const remove = (...names) => {
    for (const place of Object.values(places)) {
      for (const name of names) rmSync(path.join(place, name), { recursive: true, force: true });
    }
  };
  const isLasting = purpose === "start";
  if (!isLasting) remove("");
  const stops = [];
  const stop = async () => {
    await Promise.all(stops.splice(0).map((stopOne) => stopOne()));
    // The logs stay.
    if (!isLasting) remove("data", "schema", "home");
    release();
  };
  try {
    // First, before anything is started in vain.
    await allOf([
      amqp && givenUrl ? checkAmqpUrl(givenUrl) : undefined,
      mongodb && env.MONGODB_URI ? checkMongodbUri(env.MONGODB_URI) : undefined,
    ]);
    const isGiven = (!amqp || givenUrl) && (!mongodb || env.MONGODB_URI);
    const hasDocker = isGiven ? false : await hasDockerEngine(env);
    // Both, also when one fails, so that nothing starts behind the back of the one who stops.
    const [rabbit, mongo] = await allOf([
      amqp
        ? rabbitFor({
            given: givenUrl,
            hasDocker: hasDocker && rabbitmq === undefined,
            installation: rabbitmq,
            folder: places.rabbitmq,
            runFolder: folder,
            report,
            stops,
          })
        : {},
      mongodb
        ? mongoFor({
            given: env.MONGODB_URI,
            hasDocker,
            folder: places.mongodb,
            runFolder: folder,
            report,
            stops,
          })
        : {},
    ]);
    return {
      amqpUrl: rabbit.url ?? "",
      ...(rabbit.managementUrl !== undefined && { managementUrl: rabbit.managementUrl }),
      mongodbUri: mongo.uri ?? "",
      kind: { rabbitmq: rabbit.kind, mongodb: mongo.kind },
      ...{ folder, stop },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function rabbitFor({ given, hasDocker, installation, folder, runFolder, report, stops }) {
  if (given) {
    report(`RabbitMQ: using ${hidden(given)} (AMQP_URL)`);
    return { kind: "given", url: given };
  }
  const container = hasDocker ? await inContainer("RabbitMQ", startRabbitContainer, report) : undefined;
  if (container !== undefined) {
    stops.push(container.stop);
    return { kind: "container", ...container };
  }
  const rabbit = new PrivateRabbit({ folder, runFolder, report, installation });
  stops.push(() => rabbit.stop());
  await rabbit.start();
  return { kind: "private", url: rabbit.url, managementUrl: rabbit.managementUrl };
}

async function mongoFor({ given, hasDocker, folder, runFolder, report, stops }) {
  if (given) {
    report(`MongoDB: using ${hidden(given)} (MONGODB_URI)`);
    return { kind: "given", uri: given };
  }
  const container = hasDocker ? await inContainer("MongoDB", startMongoContainer, report) : undefined;
  if (container !== undefined) {
    stops.push(container.stop);
    return { kind: "container", ...container };
  }
  const mongo = new PrivateMongo({ folder, runFolder, report });
  stops.push(() => mongo.stop());
  await mongo.start();
  return { kind: "private", uri: mongo.uri };
}

/** A server in a container; undefined when that does not work, as when an image cannot be had. */
async function inContainer(name, start, report) {
  try {
    return await step(report, `${name}: starting a container`, start);
  } catch (error) {
    report(`${name}: no container (${error.message}); looking on this machine instead`);
    return undefined;
  }
}

async function allOf(promises) {
  const results = await Promise.allSettled(promises);
  const failures = results.filter(({ status }) => status === "rejected").map(({ reason }) => reason);
  if (failures.length === 0) return results.map(({ value }) => value);
  // What each of them says is for the user to see to.
  if (failures.length > 1 && failures.every((failure) => failure instanceof SetupError)) {
    throw new SetupError(failures.map(({ message }) => message).join("\n"), {
      exitCode: Math.max(...failures.map(({ exitCode }) => exitCode)),
    });
  }
  throw failures[0];
}

/** A URL without its password. */
function hidden(url) {
  return url.replace(/(\/\/[^:/?#@]*):[^@/?#]*@/g, "$1:***@");
}
