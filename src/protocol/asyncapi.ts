import { z } from "zod";
import {
  CALL_ERROR_CODES,
  CANCEL_CALL,
  type CallDefinition,
  type CallTable,
  DEAD_LETTER_REASONS,
  externalTask,
  Names,
} from "../bus/index.js";
import { EVENTS } from "./events.js";
import { foreignTask, MASTER_CALLS } from "./master-calls.js";
import { NODE_CALLS } from "./node-calls.js";

export type AsyncApiOptions = {
  /** Prefix of every name on the broker. */
  readonly namespace: string;
  /** Of Warren. */
  readonly version: string;
};

type Json = Readonly<Record<string, unknown>>;

const BINDING = { bindingVersion: "0.3.0" };
const ANY_TEXT = { type: "string" };

/** Attributes of CloudEvents, as their binding to AMQP names them. */
const EVENT_HEADERS = {
  type: "object",
  properties: {
    "cloudEvents:specversion": { const: "1.0" },
    "cloudEvents:id": ANY_TEXT,
    "cloudEvents:source": ANY_TEXT,
    "cloudEvents:type": ANY_TEXT,
    "cloudEvents:time": { type: "string", format: "date-time" },
    "cloudEvents:sequence": { type: "integer", description: "Counts the messages of a source." },
    "cloudEvents:count": { type: "integer", description: "How many events the message holds, if several." },
  },
};

/**
 * Everything that goes over RabbitMQ as an AsyncAPI document, from the schemas that check it. Operations are
 * Warren's: what it receives, others send.
 * @see https://www.asyncapi.com/docs/reference/specification/v3.0.0
 */
export function asyncApiDocument({ namespace, version }: AsyncApiOptions): Json {
  const names = new Names(namespace);
  const node = callsOf("node", NODE_CALLS);
  const master = callsOf("master", MASTER_CALLS);
  const events = eventsOf();
  return {
    asyncapi: "3.0.0",
    info: {
      title: "Warren",
      version,
      description:
        "A distributed web crawler. Any AMQP 0-9-1 client may hand in URLs, call masters and nodes, and follow events.",
      license: { name: "Apache-2.0", url: "https://www.apache.org/licenses/LICENSE-2.0" },
    },
    defaultContentType: "application/json",
    servers: {
      broker: {
        host: "localhost:5672",
        protocol: "amqp",
        protocolVersion: "0-9-1",
        description: "RabbitMQ 3.10 or later, or 4.x. Address and credentials are those of `AMQP_URL`.",
      },
    },
    channels: {
      tasks: {
        address: names.tasks(),
        title: "Tasks",
        description: "URLs to fetch. Sent through the default exchange; never declared by other programs.",
        messages: { url: messageRef("taskUrl"), task: messageRef("task") },
        bindings: { amqp: queueBinding(names.tasks()) },
      },
      spiderTasks: {
        address: names.tasksOf("{spider}"),
        title: "Tasks of an external spider",
        description:
          "Pages to fetch, for workers in other languages. A worker consumes, calls `submit-result`, and acknowledges when that is answered.",
        parameters: { spider: { description: "The name of a spider that is declared external." } },
        messages: { task: messageRef("spiderTask") },
        bindings: { amqp: queueBinding(names.tasksOf("{spider}")) },
      },
      taskReplies: {
        address: null,
        title: "Answers to tasks",
        description: "The queue that the sender of a task names in `reply_to`.",
        messages: { reply: messageRef("taskReply") },
      },
      nodeCommands: {
        address: names.node("{node}"),
        title: "Commands and calls to one node",
        parameters: { node: { description: "The node's id." } },
        messages: { ...messageRefs(node.requests), cancelCall: messageRef("cancelCall") },
        bindings: { amqp: exchangeBinding(names.node("{node}"), "direct") },
      },
      broadcast: {
        address: names.broadcast(),
        title: "Commands and calls to every node",
        messages: { ...messageRefs(node.requests), cancelCall: messageRef("cancelCall") },
        bindings: { amqp: exchangeBinding(names.broadcast(), "fanout") },
      },
      masterCalls: {
        address: names.master(),
        title: "Calls that any master answers",
        description: "Sent through the default exchange.",
        messages: messageRefs(master.requests),
        bindings: { amqp: queueBinding(names.master()) },
      },
      cancels: {
        address: names.cancels(),
        title: "That the caller of a master has given up",
        messages: { cancelCall: messageRef("cancelCall") },
        bindings: { amqp: exchangeBinding(names.cancels(), "fanout") },
      },
      replies: {
        address: null,
        title: "Answers to calls",
        description:
          "The queue that the caller names in `reply_to`. Answers have the call's `correlation_id`.",
        messages: {
          ...messageRefs(node.results),
          ...messageRefs(master.results),
          failure: messageRef("failure"),
        },
      },
      events: {
        address: names.events(),
        title: "Events",
        description: "Bind a queue of your own; routing keys are the types of events.",
        messages: messageRefs(events),
        bindings: { amqp: exchangeBinding(names.events(), "topic") },
      },
      items: {
        address: names.items(),
        title: "Items",
        description:
          "Of crawls that publish them. Bind a queue of your own; routing keys are `<crawl>.<spider>`. At least once.",
        messages: { item: messageRef("item") },
        bindings: { amqp: exchangeBinding(names.items(), "topic") },
      },
      deadLetters: {
        address: names.dead(),
        title: "Dead letters",
        description: "Messages that were given up, as they came, with the reason in headers.",
        messages: { deadLetter: messageRef("deadLetter") },
        bindings: { amqp: exchangeBinding(names.dead(), "fanout") },
      },
    },
    operations: {
      receiveTask: {
        action: "receive",
        channel: { $ref: "#/channels/tasks" },
        summary: "Fetches a URL that someone handed in.",
        messages: [inChannel("tasks", "url"), inChannel("tasks", "task")],
        reply: {
          address: { location: "$message.header#/reply_to", description: "Only if it was set." },
          channel: { $ref: "#/channels/taskReplies" },
          messages: [inChannel("taskReplies", "reply")],
        },
        bindings: { amqp: { ...BINDING, ack: true } },
      },
      sendSpiderTask: {
        action: "send",
        channel: { $ref: "#/channels/spiderTasks" },
        summary: "Gives a page to a worker in another language.",
        messages: [inChannel("spiderTasks", "task")],
      },
      ...operationsOf("node", "nodeCommands", NODE_CALLS),
      ...operationsOf("every", "broadcast", NODE_CALLS),
      ...operationsOf("master", "masterCalls", MASTER_CALLS),
      ...Object.fromEntries(
        ["nodeCommands", "broadcast", "cancels"].map((channel) => [
          `cancelCall.${channel}`,
          {
            action: "receive",
            channel: { $ref: `#/channels/${channel}` },
            summary: "Stops a call that its caller has given up.",
            messages: [inChannel(channel, "cancelCall")],
          },
        ]),
      ),
      sendEvents: {
        action: "send",
        channel: { $ref: "#/channels/events" },
        summary: "Tells what has happened; nothing depends on whether anyone listens.",
        messages: Object.keys(events).map((key) => inChannel("events", key)),
      },
      sendItems: {
        action: "send",
        channel: { $ref: "#/channels/items" },
        summary: "Publishes what spiders extracted, until the broker has taken it.",
        messages: [inChannel("items", "item")],
      },
      sendDeadLetters: {
        action: "send",
        channel: { $ref: "#/channels/deadLetters" },
        summary: "Passes on what could not be processed.",
        messages: [inChannel("deadLetters", "deadLetter")],
      },
    },
    components: {
      messages: {
        taskUrl: {
          name: "url",
          title: "One URL",
          contentType: "text/plain",
          payload: { ...ANY_TEXT, description: "One absolute http or https URL." },
        },
        task: {
          name: "task",
          title: "A URL and what to do about it",
          payload: schemaOf(externalTask, "input"),
        },
        spiderTask: {
          name: "spiderTask",
          title: "A page to fetch",
          payload: schemaOf(foreignTask, "output"),
        },
        cancelCall: {
          name: CANCEL_CALL,
          title: "That a call is given up",
          payload: {
            type: "object",
            required: ["type", "args"],
            properties: {
              type: { const: CANCEL_CALL },
              args: {
                type: "object",
                required: ["call", "replyTo"],
                properties: {
                  call: { ...ANY_TEXT, description: "The `correlation_id` of the call." },
                  replyTo: { ...ANY_TEXT, description: "The `reply_to` of the call." },
                },
              },
            },
          },
        },
        taskReply: {
          name: "taskReply",
          title: "How a URL ended",
          payload: {
            type: "object",
            required: ["url", "state", "items", "files"],
            properties: {
              url: ANY_TEXT,
              state: { enum: ["done", "failed", "skipped"] },
              statusCode: { type: "integer" },
              reason: { enum: DEAD_LETTER_REASONS },
              items: { type: "integer" },
              files: { type: "integer" },
              error: ANY_TEXT,
            },
          },
        },
        ...node.requests,
        ...node.results,
        ...master.requests,
        ...master.results,
        failure: {
          name: "failure",
          title: "A call that failed",
          payload: {
            type: "object",
            required: ["ok", "error"],
            properties: {
              ok: { const: false },
              error: {
                type: "object",
                required: ["code", "message"],
                properties: { code: { enum: CALL_ERROR_CODES }, message: ANY_TEXT },
              },
            },
          },
        },
        ...events,
        item: {
          name: "item",
          title: "What a spider extracted",
          summary:
            "`messageId` is its id, with `.<revision>` behind it if it has one; `type` is `item.added` or `item.changed`.",
          payload: {
            type: "object",
            required: ["id", "crawl", "url", "at", "spider", "version", "node", "data"],
            properties: {
              id: ANY_TEXT,
              crawl: ANY_TEXT,
              url: ANY_TEXT,
              at: { type: "string", format: "date-time" },
              spider: ANY_TEXT,
              version: ANY_TEXT,
              node: { ...ANY_TEXT, description: "The node that extracted it." },
              data: { type: "object", description: "Empty when `isWithoutData` is true." },
              revision: { type: "integer", minimum: 1, description: "Of one with a key." },
              isWithoutData: { const: true, description: "It is too large for a message." },
            },
          },
        },
        deadLetter: {
          name: "deadLetter",
          title: "A message that was given up",
          headers: {
            type: "object",
            required: ["x-reason", "x-error", "x-first-queue"],
            properties: {
              "x-reason": { enum: DEAD_LETTER_REASONS },
              "x-error": { ...ANY_TEXT, description: "What was wrong; it names the member." },
              "x-first-queue": { ...ANY_TEXT, description: "The queue in which it was." },
            },
          },
          payload: {},
        },
      },
    },
  };
}

/** Messages of every call of a table, by their names in the document. */
function callsOf(side: string, table: CallTable): { readonly requests: Json; readonly results: Json } {
  const calls = Object.entries(table);
  return {
    requests: Object.fromEntries(calls.map(([type, call]) => [`${side}.${type}`, requestOf(type, call)])),
    results: Object.fromEntries(
      calls.map(([type, call]) => [`${side}.${type}.result`, resultOf(type, call)]),
    ),
  };
}

function requestOf(type: string, { summary, args }: CallDefinition): Json {
  return {
    name: type,
    title: type,
    summary,
    payload: {
      type: "object",
      required: ["type"],
      properties: { type: { const: type }, args: schemaOf(args, "input") },
    },
  };
}

function resultOf(type: string, { result, inParts }: CallDefinition): Json {
  const parts = {
    type: "object",
    properties: {
      "x-part": { type: "integer", minimum: 0, description: "The number of the part." },
      "x-last": { const: true, description: "On the last part only." },
    },
  };
  return {
    name: `${type}.result`,
    title: `What ${type} brings`,
    ...(inParts === true && { headers: parts, summary: "One of the parts of the answer." }),
    payload: {
      type: "object",
      required: ["ok", "result"],
      properties: { ok: { const: true }, result: schemaOf(result, "output") },
    },
  };
}

function operationsOf(side: "node" | "every" | "master", channel: string, table: CallTable): Json {
  const owner = side === "every" ? "node" : side;
  return Object.fromEntries(
    Object.entries(table).map(([type, { summary }]) => [
      `${side}.${type}`,
      {
        action: "receive",
        channel: { $ref: `#/channels/${channel}` },
        summary,
        messages: [inChannel(channel, `${owner}.${type}`)],
        reply: {
          address: { location: "$message.header#/reply_to", description: "Only if it was set." },
          channel: { $ref: "#/channels/replies" },
          messages: [inChannel("replies", `${owner}.${type}.result`), inChannel("replies", "failure")],
        },
      },
    ]),
  );
}

function eventsOf(): Json {
  return Object.fromEntries(
    Object.entries(EVENTS).map(([key, { summary, data }]) => {
      const event = {
        type: "object",
        required: ["type", "at", "data"],
        properties: {
          type: { const: key },
          at: { type: "string", format: "date-time" },
          crawl: ANY_TEXT,
          node: ANY_TEXT,
          traceparent: ANY_TEXT,
          tracestate: ANY_TEXT,
          data: schemaOf(data, "output"),
        },
      };
      const payload = { oneOf: [event, { type: "array", items: event, minItems: 1 }] };
      return [key, { name: key, title: key, summary, headers: EVENT_HEADERS, payload }];
    }),
  );
}

function messageRef(name: string): Json {
  return { $ref: `#/components/messages/${name}` };
}

function messageRefs(messages: Json): Json {
  return Object.fromEntries(Object.keys(messages).map((name) => [name, messageRef(name)]));
}

function inChannel(channel: string, message: string): Json {
  return { $ref: `#/channels/${channel}/messages/${message}` };
}

function queueBinding(name: string): Json {
  return { is: "queue", queue: { name, durable: true, exclusive: false, autoDelete: false }, ...BINDING };
}

function exchangeBinding(name: string, type: string): Json {
  return { is: "routingKey", exchange: { name, type, durable: true, autoDelete: false }, ...BINDING };
}

/** As JSON Schema, of the draft that AsyncAPI's own schemas build on. */
function schemaOf(schema: z.ZodType, io: "input" | "output"): Json {
  const { $schema: _draft, ...json } = z.toJSONSchema(schema, {
    target: "draft-7",
    io,
    unrepresentable: "any",
  });
  return json;
}
