import { z } from "zod";
import { ConfigError } from "../lib/errors.js";
import { type Command, table } from "./command.js";

const row = z.looseObject({
  name: z.string(),
  kind: z.string(),
  version: z.string(),
  description: z.string().optional(),
});
const rows = z.object({ items: z.array(row) });
const spider = row.extend({ seeds: z.array(z.string()), versions: z.number().optional() });
const put = z.looseObject({ name: z.string(), version: z.string(), sha256: z.string() });
const versions = z.object({
  items: z.array(
    z.looseObject({
      version: z.string(),
      kind: z.string(),
      sha256: z.string(),
      files: z.number(),
      bytes: z.number(),
      createdAt: z.string(),
      isCurrent: z.boolean(),
    }),
  ),
  next: z.string().nullable(),
});
const change = z.looseObject({ path: z.string(), diff: z.string().optional() });
const diff = z.looseObject({
  from: z.string(),
  to: z.string(),
  added: z.array(change),
  removed: z.array(change),
  changed: z.array(change),
});

const SPIDER_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/;

/** What can be done with spiders. */
export const SPIDER_COMMANDS: readonly Command[] = [
  {
    name: "spiders list",
    usage: "",
    about: "Lists the spiders that a crawl may name.",
    args: [0, 0],
    async run({ api, show }) {
      const { items } = rows.parse(await api.get("/spiders"));
      show(items, () =>
        table(
          ["NAME", "KIND", "VERSION", "ABOUT"],
          items.map(({ name, kind, version, description }) => [name, kind, version, description]),
        ),
      );
    },
  },
  {
    name: "spiders show",
    usage: "NAME",
    about: "Tells of one: its kind, version and seeds.",
    args: [1, 1],
    async run({ api, args, show }) {
      const found = spider.parse(await api.get(`/spiders/${nameOf(args[0])}`));
      const { name, kind, version, versions: count, seeds, description } = found;
      show(found, () =>
        [
          `${name} (${kind}), version ${version}${count === undefined ? "" : ` of ${count} kept`}`,
          ...(description === undefined ? [] : [description]),
          ...seeds.map((seed) => `  ${seed}`),
        ].join("\n"),
      );
    },
  },
  {
    name: "spiders push",
    usage: "FOLDER|FILE [--name NAME]",
    about: "Packs a spider and uploads it as the next version, which new crawls get.",
    args: [1, 1],
    flags: { name: { type: "string" } },
    async run({ api, args, flags, show, note }) {
      // It takes what reads archives and declarations, which no other command needs.
      const { packSpider } = await import("./packed-spider.js");
      const packed = await packSpider(args[0] ?? "");
      for (const text of packed.notes) note(text);
      const name = nameOf(flags.name ?? packed.name);
      const { type, bytes } = packed;
      const answer = put.parse(await api.call("PUT", `/spiders/${name}`, { type, bytes }));
      show(answer, () => `${answer.name} version ${answer.version} (${answer.sha256.slice(0, 12)})`);
    },
  },
  {
    name: "spiders versions",
    usage: "NAME",
    about: "Lists its versions, the newest first.",
    args: [1, 1],
    async run({ api, args, show }) {
      const found = await allVersions((query) => api.get(`/spiders/${nameOf(args[0])}/versions${query}`));
      show(found, () =>
        table(
          ["VERSION", "", "FILES", "BYTES", "SHA256", "UPLOADED"],
          found.map(({ version, isCurrent, files, bytes, sha256, createdAt }) => [
            ...[version, isCurrent ? "current" : "", files, bytes],
            ...[sha256.slice(0, 12), createdAt],
          ]),
        ),
      );
    },
  },
  {
    name: "spiders diff",
    usage: "NAME [--from VERSION] [--to VERSION]",
    about: "Shows what changed between two versions; by default the current one and the one before.",
    args: [1, 1],
    flags: { from: { type: "string" }, to: { type: "string" } },
    async run({ api, args, flags, show }) {
      const query = new URLSearchParams();
      for (const end of ["from", "to"]) if (typeof flags[end] === "string") query.set(end, flags[end]);
      const found = diff.parse(await api.get(`/spiders/${nameOf(args[0])}/diff?${query}`));
      show(found, () =>
        [
          `version ${found.from} to ${found.to}`,
          ...found.added.map(({ path }) => `A ${path}`),
          ...found.removed.map(({ path }) => `D ${path}`),
          ...found.changed.map(({ path, diff: text }) =>
            text === undefined ? `M ${path}` : `M ${path}\n${text}`,
          ),
        ].join("\n"),
      );
    },
  },
  {
    name: "spiders rollback",
    usage: "NAME VERSION",
    about: "Makes an earlier version the one that new crawls get.",
    args: [2, 2],
    async run({ api, args, show }) {
      const json = { version: args[1] };
      const found = row.parse(await api.call("POST", `/spiders/${nameOf(args[0])}/rollback`, { json }));
      show(found, () => `${found.name} is version ${found.version} now`);
    },
  },
  {
    name: "spiders remove",
    usage: "NAME [VERSION]",
    about: "Removes a spider with all its versions, or one version that is not the current one.",
    args: [1, 2],
    async run({ api, args, show }) {
      const [name, version] = [nameOf(args[0]), args[1]];
      const what = version === undefined ? "" : `/versions/${encodeURIComponent(version)}`;
      await api.call("DELETE", `/spiders/${name}${what}`);
      show({ removed: { name, ...(version !== undefined && { version }) } }, () => `${name} was removed`);
    },
  },
];

async function allVersions(get: (query: string) => Promise<unknown>) {
  const all: z.infer<typeof versions>["items"] = [];
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const { items, next } = versions.parse(await get(cursor === undefined ? "" : `?cursor=${cursor}`));
    all.push(...items);
    cursor = next;
  }
  return all;
}

function nameOf(given: unknown): string {
  if (typeof given === "string" && SPIDER_NAME.test(given)) return given;
  throw new ConfigError(
    `"${given}" is no spider's name: letters, digits, ".", "_" and "-"; give one by --name`,
  );
}
