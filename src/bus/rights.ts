import type { Names } from "./topology.js";

/** Who uses the broker, each with a user of its own. */
export const BUS_ROLES = ["master", "worker", "publisher", "observer"] as const;
export type BusRole = (typeof BUS_ROLES)[number];

/** A user's permissions in a virtual host: names must match these regular expressions. */
export type Rights = {
  /** What may be declared and deleted. */
  readonly configure: string;
  /** Exchanges that may be published to, and queues that may be bound. */
  readonly write: string;
  /** Queues that may be consumed from, and exchanges that may be bound to. */
  readonly read: string;
};

/**
 * Queues named by the broker. Those of Warren are exclusive, so that their names open them to nobody else: the broker
 * keeps other connections out (405), whatever their rights.
 */
const GENERATED = "amq\\.gen-.*";

/** The exchange without a name, as permissions call it: leads to any queue whose name one knows. */
const DEFAULT_EXCHANGE = "amq\\.default";

/**
 * What a role needs, and no more.
 *
 * - A **master** declares everything but the nodes' exchanges, commands nodes, takes calls and what the broker gave up.
 * - A **worker** takes tasks and commands, tells events, and declares its own exchange and queue only.
 * - A **publisher** hands in tasks, calls masters, and gets the answers.
 * - An **observer** listens to events and items.
 *
 * @param node what a worker's rights are narrowed to: the one node that it may be
 */
export function rightsOf(role: BusRole, names: Names, node?: string): Rights {
  const at = (...parts: readonly string[]) => parts.map(literally);
  const nodes =
    node === undefined ? `${literally(names.node(""))}[A-Za-z0-9._-]+` : literally(names.node(node));
  switch (role) {
    case "master": {
      const declared = [
        ...at(names.events(), names.broadcast(), names.cancels(), names.rejected(), names.dead()),
        ...at(names.items(), names.master(), names.tasks()),
        `${literally(names.tasksOf(""))}.+`,
        `${literally(names.placed(""))}.+`,
        GENERATED,
      ];
      return {
        configure: anyOf(declared),
        write: anyOf([...declared, nodes, DEFAULT_EXCHANGE]),
        read: anyOf(declared),
      };
    }
    case "worker":
      return {
        configure: anyOf([nodes, GENERATED]),
        write: anyOf([...at(names.events(), names.dead(), names.cancels()), GENERATED, DEFAULT_EXCHANGE]),
        read: anyOf([
          ...at(names.tasks(), names.broadcast()),
          `${literally(names.placed(""))}.+`,
          nodes,
          GENERATED,
        ]),
      };
    case "publisher":
      return {
        configure: anyOf([GENERATED]),
        write: anyOf([...at(names.cancels()), DEFAULT_EXCHANGE]),
        read: anyOf([GENERATED]),
      };
    case "observer":
      return {
        configure: anyOf([GENERATED]),
        write: anyOf([GENERATED]),
        read: anyOf([...at(names.events(), names.items()), GENERATED]),
      };
    default:
      return role satisfies never;
  }
}

/** The broker looks for a match anywhere in a name. */
function anyOf(patterns: readonly string[]): string {
  return `^(${patterns.join("|")})$`;
}

function literally(name: string): string {
  return name.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
}
