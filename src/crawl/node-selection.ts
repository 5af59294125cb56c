import { createHash } from "node:crypto";
import { z } from "zod";

export const NODE_MODES = ["any", "selected", "all"] as const;

/**
 * Which nodes take part in a crawl. Pages go to whichever of them has room, so that for them `all` is `any`; what a
 * spider runs as a whole runs once (`any`), or on each of them. A node is selected by its id, or by having all of `labels`.
 */
export type NodeSelection = {
  readonly mode: (typeof NODE_MODES)[number];
  /** With `selected`. */
  readonly ids: readonly string[];
  /** With `selected`. */
  readonly labels?: Readonly<Record<string, string>>;
};

/** Any node. */
export const ANY_NODE: NodeSelection = { mode: "any", ids: [] };

const MAX_IDS = 1_000;

/** The labels of a node: 50 at most. */
export const nodeLabels = z
  .record(
    z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$/, "must be letters, digits, '_' and '-'"),
    z.string().max(200, "must have at most 200 characters"),
  )
  .refine((all) => Object.keys(all).length <= 50, "must be at most 50 labels");

export const nodeSelection = z
  .strictObject({
    mode: z.enum(NODE_MODES, { error: `must be one of ${NODE_MODES.join(", ")}` }),
    ids: z.array(z.string().min(1).max(100)).max(MAX_IDS, `must be at most ${MAX_IDS} ids`).default([]),
    labels: nodeLabels.exactOptional(),
  })
  .refine(
    ({ mode, ids, labels }) => mode !== "selected" || ids.length > 0 || Object.keys(labels ?? {}).length > 0,
    { path: ["ids"], message: 'must name a node, or "labels" a label, when "mode" is "selected"' },
  );

/** What of a node a selection goes by. */
export type SelectableNode = { readonly id: string; readonly labels: Readonly<Record<string, string>> };

/** Whether a node takes part. */
export function takesPart(selection: NodeSelection, { id, labels }: SelectableNode): boolean {
  if (selection.mode !== "selected") return true;
  if (selection.ids.includes(id)) return true;
  const wanted = Object.entries(selection.labels ?? {});
  return wanted.length > 0 && wanted.every(([name, value]) => labels[name] === value);
}

/**
 * A short name for the nodes that are selected, the same for the same selection; undefined for any node. The tasks of
 * all crawls with this selection go over one queue.
 */
export function placeOf(selection: NodeSelection | undefined): string | undefined {
  if (selection?.mode !== "selected") return undefined;
  const ids = [...new Set(selection.ids)].sort();
  const labels = Object.entries(selection.labels ?? {}).sort(([one], [other]) => (one < other ? -1 : 1));
  return createHash("sha256")
    .update(JSON.stringify([ids, labels]))
    .digest("hex")
    .slice(0, 16);
}
