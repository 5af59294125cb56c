import { existsSync } from "node:fs";
import { request } from "node:http";
import { homedir } from "node:os";
import path from "node:path";
import { eventually } from "./own-server.mjs";

const PING_MS = 2_000;
const PRIMARY_MS = 60_000;
const IMAGES = { rabbitmq: "rabbitmq:4-management", mongodb: "mongo:8" };

/**
 * Whether a Docker engine answers: the one that DOCKER_HOST names, or one at the usual sockets. The `docker` program
 * says nothing about that, it may be there without an engine.
 */
export async function hasDockerEngine(env = process.env) {
  const sockets = [
    "/var/run/docker.sock",
    ...(env.XDG_RUNTIME_DIR ? [path.join(env.XDG_RUNTIME_DIR, "docker.sock")] : []),
    path.join(homedir(), ".docker/run/docker.sock"),
    path.join(homedir(), ".docker/desktop/docker.sock"),
  ];
  const candidates = env.DOCKER_HOST
    ? [addressOf(env.DOCKER_HOST)]
    : sockets.filter((socketPath) => existsSync(socketPath)).map((socketPath) => ({ socketPath }));
  const answers = await Promise.all(
    candidates.map((address) => address !== undefined && answersPing(address)),
  );
  return answers.includes(true);
}

/** RabbitMQ in a container; the container's end is in good hands with testcontainers, however we end. */
export async function startRabbitContainer() {
  const { GenericContainer, Wait } = await import("testcontainers");
  const container = await new GenericContainer(IMAGES.rabbitmq)
    .withExposedPorts(5672, 15672)
    .withWaitStrategy(Wait.forLogMessage(/Server startup complete/))
    .start();
  const host = container.getHost();
  return {
    url: `amqp://guest:guest@${host}:${container.getMappedPort(5672)}`,
    managementUrl: `http://${host}:${container.getMappedPort(15672)}`,
    stop: async () => void (await container.stop()),
  };
}

/** MongoDB in a container, as a replica set of one. */
export async function startMongoContainer() {
  const { GenericContainer, Wait } = await import("testcontainers");
  const container = await new GenericContainer(IMAGES.mongodb)
    .withCommand(["--replSet", "warren", "--bind_ip_all"])
    .withExposedPorts(27017)
    .withWaitStrategy(Wait.forLogMessage(/Waiting for connections/))
    .start();
  // The member's own name holds inside the container only, hence the direct connection.
  const uri = `mongodb://${container.getHost()}:${container.getMappedPort(27017)}/?directConnection=true`;
  const { MongoClient } = await import("mongodb");
  const client = new MongoClient(uri);
  try {
    const admin = client.db("admin");
    const members = [{ _id: 0, host: "127.0.0.1:27017" }];
    await admin.command({ replSetInitiate: { _id: "warren", members } });
    await eventually(PRIMARY_MS, async () => {
      if (!(await admin.command({ hello: 1 })).isWritablePrimary) throw new Error("it is not primary yet");
    });
  } catch (error) {
    await container.stop();
    throw error;
  } finally {
    await client.close();
  }
  return { uri, stop: async () => void (await container.stop()) };
}

function addressOf(dockerHost) {
  if (dockerHost.startsWith("unix://")) return { socketPath: dockerHost.slice("unix://".length) };
  if (!URL.canParse(dockerHost)) return undefined;
  const { hostname, port } = new URL(dockerHost.replace(/^tcp:/, "http:"));
  return { host: hostname, port: Number(port || 2375) };
}

function answersPing(address) {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(PING_MS);
    const asking = request({ ...address, path: "/_ping", signal }, (response) => {
      response.resume();
      // An engine that wants TLS says 400 here, and is one all the same.
      resolve(response.headers.server?.startsWith("Docker") === true || response.statusCode === 200);
    });
    asking.once("error", () => resolve(false));
    asking.end();
  });
}
