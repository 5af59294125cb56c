// npm run rabbitmq:users: makes or updates the users that masters, workers and others need on a broker, each with the
// rights of its role and no more (docs/reference/rights.md).
import "./node-version.mjs";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { prepare } from "./prepare.mjs";
import { reportTo } from "./report.mjs";
import { SetupError } from "./setup-error.mjs";

const DIST = path.resolve(import.meta.dirname, "..", "dist");
const TIMEOUT_MS = 10_000;
const HELP = `Usage: npm run rabbitmq:users -- [--management-url URL] [--role ROLE…] …

Makes RabbitMQ users with the rights that their roles need, or updates the rights of those that are there. A new user's
password is shown once, here; one that is there keeps its own.

  --management-url URL  the management API, with an administrator's name and password
                        [http://guest:guest@127.0.0.1:15672] (RABBITMQ_MANAGEMENT_URL)
  --role ROLE           master, worker, publisher or observer; may be given several times [all four]
  --node ID             a worker's rights for the node of this id only; with --role worker
  --user NAME           the user's name, for one role [<namespace>-<role>, <namespace>-worker-<node>]
  --namespace NAME      prefix of every AMQP name [warren] (WARREN_NAMESPACE)
  --vhost NAME          the virtual host [/]
  --no-password         new users have none and log in by a certificate
  --new-password        users that are there get a new password as well
  --dry-run             asks and changes nothing: shows the rabbitmqctl commands that do the same
  --help                this text
`;

try {
  await main(process.argv.slice(2), process.env);
} catch (error) {
  process.stderr.write(`${error instanceof SetupError ? error.message : error.stack}\n`);
  process.exitCode = error instanceof SetupError ? error.exitCode : 1;
}

async function main(args, env) {
  const options = optionsOf(args, env);
  if (options === undefined) {
    process.stdout.write(HELP);
    return;
  }
  const users = await usersFor(options);
  if (options.isDryRun) {
    for (const user of users) process.stdout.write(`${commandsFor(user, options).join("\n")}\n`);
    return;
  }
  const management = managementAt(options.url);
  for (const user of users) process.stdout.write(`${await ensureUser(management, user, options)}\n`);
}

/** @returns undefined when help was asked for */
function optionsOf(args, env) {
  const text = { type: "string" };
  const onOff = { type: "boolean", default: false };
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        ...{ "management-url": text, node: text, user: text, namespace: text, vhost: text },
        ...{ "no-password": onOff, "new-password": onOff, "dry-run": onOff, help: onOff },
        role: { type: "string", multiple: true },
      },
    }));
  } catch (error) {
    throw new SetupError(`${error.message}; see --help`);
  }
  if (values.help) return undefined;
  const { node, user, role: roles } = values;
  if (node !== undefined && roles?.join() !== "worker")
    throw new SetupError("--node is for --role worker alone");
  if (node !== undefined && !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(node)) {
    throw new SetupError(`--node: "${node}" is no node's id`);
  }
  if (user !== undefined && roles?.length !== 1)
    throw new SetupError("--user needs --role, and one role only");
  if (values["no-password"] && values["new-password"]) {
    throw new SetupError("--no-password and --new-password exclude each other");
  }
  const url =
    values["management-url"] ?? (env.RABBITMQ_MANAGEMENT_URL || "http://guest:guest@127.0.0.1:15672");
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
    throw new SetupError(
      "--management-url must look like http://user:password@host:15672, and this does not",
    );
  }
  return {
    ...{ url: new URL(url), roles, node, user, vhost: values.vhost ?? "/" },
    namespace: values.namespace ?? (env.WARREN_NAMESPACE || "warren"),
    hasPassword: !values["no-password"],
    isRenewing: values["new-password"],
    isDryRun: values["dry-run"],
  };
}

/** Names and rights of the users that are wanted. */
async function usersFor({ roles, node, user, namespace }) {
  if (!existsSync(path.join(DIST, "bus", "rights.js"))) await prepare({ report: reportTo(process.stderr) });
  const { BUS_ROLES, rightsOf } = await import("../dist/bus/rights.js");
  const { Names } = await import("../dist/bus/topology.js");
  const names = new Names(namespace);
  return (roles ?? BUS_ROLES).map((role) => {
    if (!BUS_ROLES.includes(role)) {
      throw new SetupError(`--role: there is no "${role}"; there are ${BUS_ROLES.join(", ")}`);
    }
    const name = user ?? [namespace, role, ...(node === undefined ? [] : [node])].join("-");
    return { name, rights: rightsOf(role, names, node) };
  });
}

/** Makes a user, or updates it. @returns what was done */
async function ensureUser(management, { name, rights }, { vhost, hasPassword, isRenewing }) {
  const at = `users/${encodeURIComponent(name)}`;
  const known = await management("GET", at);
  const isNew = known === undefined;
  const password = hasPassword && (isNew || isRenewing) ? randomBytes(24).toString("base64url") : undefined;
  if (isNew || password !== undefined) {
    const tags = [known?.tags ?? ""].flat().join(",");
    // With an empty hash no password lets it in.
    await management("PUT", at, { tags, ...(password === undefined ? { password_hash: "" } : { password }) });
  }
  await management("PUT", `permissions/${encodeURIComponent(vhost)}/${encodeURIComponent(name)}`, rights);
  return `${name}: ${isNew ? "made" : "updated"}${password === undefined ? "" : `, password ${password}`}`;
}

/** @returns calls of the API; what is not there to be got is undefined */
function managementAt(url) {
  const { origin, pathname, host } = url;
  const [user, password] =
    url.username === "" ? ["guest", "guest"] : [url.username, url.password].map(decodeURIComponent);
  const authorization = `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
  return async (method, resource, body) => {
    let response;
    try {
      response = await fetch(`${origin}${pathname.replace(/\/$/, "")}/api/${resource}`, {
        ...{ method, signal: AbortSignal.timeout(TIMEOUT_MS) },
        headers: { authorization, "content-type": "application/json" },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      });
    } catch (error) {
      const reason = error.cause?.message || error.cause?.code || error.message;
      throw new SetupError(`no answer from RabbitMQ's management API at ${host}: ${reason}`, { exitCode: 1 });
    }
    const text = await response.text();
    if (method === "GET" && response.status === 404) return undefined;
    if (response.status === 401) {
      throw new SetupError(`${host} does not let "${user}" in, or not to administer users: --management-url`);
    }
    if (!response.ok) {
      throw new SetupError(`${host} refused ${method} ${resource}: ${response.status} ${text}`, {
        exitCode: 1,
      });
    }
    return text === "" ? {} : JSON.parse(text);
  };
}

/** The same by hand; passwords are asked for. */
function commandsFor({ name, rights: { configure, write, read } }, { vhost, hasPassword }) {
  const user = quoted(name);
  const add = hasPassword
    ? [`rabbitmqctl add_user ${user}`]
    : [`rabbitmqctl add_user ${user} "$(openssl rand -hex 24)"`, `rabbitmqctl clear_password ${user}`];
  const permissions = [configure, write, read].map(quoted).join(" ");
  return [...add, `rabbitmqctl set_permissions -p ${quoted(vhost)} ${user} ${permissions}`];
}

/** For a shell, as one word. */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
