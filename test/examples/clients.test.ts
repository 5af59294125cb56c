import { type Channel, type ChannelModel, connect } from "amqplib";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { api, Cluster, type Master, until } from "../support/cluster.js";
import { LANGUAGES, outcomeOf, type ProgramName, prepared } from "../support/example-programs.js";
import { GraphSite } from "../support/graph-site.js";

const PREPARE_MS = 600_000;
const PAGES = 6;
const mustAll = process.env.WARREN_TEST_ALL_EXAMPLES === "1";
// Masters and workers, which inherit the environment, refuse variables of this kind that they do not know.
delete process.env.WARREN_TEST_ALL_EXAMPLES;

describe("example clients", () => {
  const cluster = new Cluster();
  /** A namespace in which everything is there, and nobody answers. */
  const silent = `${cluster.namespace}.silent`;
  /** A namespace whose task queue takes one message. */
  const full = `${cluster.namespace}.full`;
  let master: Master;
  let site: GraphSite;
  let connection: ChannelModel;
  let channel: Channel;

  beforeAll(async () => {
    site = await GraphSite.start({ pages: PAGES, hosts: 1, links: 2 });
    master = await cluster.master();
    await cluster.worker("w1");
    const left = await cluster.worker("w2");
    await left.end();
    connection = await connect(cluster.amqpUrl);
    channel = await connection.createChannel();
    // All of it goes with this connection: the queues are its own, and the exchanges go with their last queue.
    const { queue } = await channel.assertQueue("", { exclusive: true });
    for (const name of [`${silent}.events`, `${silent}.node.mute`]) {
      await channel.assertExchange(name, "topic", { durable: false, autoDelete: true });
      await channel.bindQueue(queue, name, "command");
    }
    for (const name of [`${silent}.tasks`, `${silent}.master`]) {
      await channel.assertQueue(name, { exclusive: true });
    }
  });

  afterAll(async () => {
    await connection?.close();
    await cluster.stop();
    await site?.stop();
  });

  describe.each(LANGUAGES.map((language) => [language.name, language] as const))("in %s", (_, language) => {
    let missing: string | undefined;

    beforeAll(async () => {
      missing = await prepared(language);
      if (missing === undefined) return;
      if (mustAll) throw new Error(missing);
      console.warn(`the examples in ${language.name} are not tested; ${missing}`);
    }, PREPARE_MS);

    beforeEach((context) => {
      if (missing !== undefined) context.skip(missing);
    });

    const run = (program: ProgramName, args: readonly string[], environment: Record<string, string> = {}) =>
      outcomeOf(language, program, args, {
        AMQP_URL: cluster.amqpUrl,
        WARREN_NAMESPACE: cluster.namespace,
        ...environment,
      });
    const unheard = { WARREN_NAMESPACE: silent, TIMEOUT_S: "1" };

    it("publish hands in URLs that are then fetched", async () => {
      const before = [1, 2].map((number) => site.requests.get(number) ?? 0);
      const urls = [site.urlOf(1), site.urlOf(2)];
      const { code, lines, stderr } = await run("publish", urls);
      expect({ code, lines, stderr }).toEqual({
        code: 0,
        lines: urls.map((url) => `taken ${url}`),
        stderr: "",
      });
      await until("both were fetched", async () =>
        [1, 2].every((number, index) => (site.requests.get(number) ?? 0) > (before[index] ?? 0)),
      );
    });

    it("publish says which URL nobody has taken", async () => {
      const nowhere = await run("publish", [site.seed], { WARREN_NAMESPACE: `${cluster.namespace}.nowhere` });
      expect(nowhere).toMatchObject({ code: 1, lines: [] });
      expect(nowhere.stderr).toContain(`${site.seed}: the`);
      expect(nowhere.stderr).toContain(`queue ${cluster.namespace}.nowhere.tasks`);

      const queue = await channel.assertQueue(`${full}.tasks`, {
        exclusive: true,
        maxLength: 1,
        arguments: { "x-overflow": "reject-publish" },
      });
      await channel.purgeQueue(queue.queue);
      const refused = await run("publish", [site.urlOf(1), site.urlOf(2)], { WARREN_NAMESPACE: full });
      expect(refused).toMatchObject({ code: 1, lines: [`taken ${site.urlOf(1)}`] });
      expect(refused.stderr).toContain(`${site.urlOf(2)}: the queue ${full}.tasks`);
      expect(refused.stderr).toContain("did not take it");
    });

    it("ask prints the answer for each URL, also for one that is refused", async () => {
      const { code, lines, stderr } = await run("ask", [site.seed, "not-a-url", site.urlOf(99)]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const answers = new Map(
        lines.map((line) => JSON.parse(line) as { url: string }).map((answer) => [answer.url, answer]),
      );
      expect(answers.size).toBe(3);
      expect(answers.get(site.seed)).toMatchObject({ state: "done", statusCode: 200, files: 0 });
      expect(answers.get("not-a-url")).toMatchObject({ state: "failed", reason: "invalid-message" });
      expect(answers.get(site.urlOf(99))).toMatchObject({ state: "failed", statusCode: 404, items: 0 });
    });

    it("ask gives up when nothing answers, and when nothing takes its URLs", async () => {
      const quiet = await run("ask", [site.seed], unheard);
      expect(quiet).toMatchObject({ code: 1, lines: [] });
      expect(quiet.stderr).toMatch(/^no answer within 1 ?s for/);
      expect(quiet.stderr).toContain(site.seed);
      const nowhere = await run("ask", [site.seed], { WARREN_NAMESPACE: `${cluster.namespace}.nowhere` });
      expect(nowhere).toMatchObject({ code: 1, lines: [] });
      expect(nowhere.stderr).toContain(`queue ${cluster.namespace}.nowhere.tasks`);
    });

    it("crawl makes a crawl and shows its events until it is finished", async () => {
      const { code, lines, stderr } = await run("crawl", ["links", site.seed]);
      expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
      const [id = ""] = lines.slice(0, 1).map((line) => line.replace(/^crawl /, ""));
      const events = lines.slice(1).map((line) => {
        const [, type, data = ""] = /^(\S+) (.*)$/.exec(line) ?? [];
        return { type, data: JSON.parse(data) as Record<string, unknown> };
      });
      const crawl = await api(master).crawl(id);
      expect(crawl).toMatchObject({ status: "finished", counts: { done: PAGES, items: PAGES } });
      expect(events[0]).toMatchObject({ type: "crawl.created", data: { spider: "links" } });
      expect(events.at(-1)).toMatchObject({ type: "crawl.finished", data: { counts: crawl.counts } });
      if (!language.showsTasks) return;
      const fetched = events.filter(({ type }) => type === "task.completed").map(({ data }) => data.url);
      expect(fetched.sort()).toEqual(Array.from({ length: PAGES }, (_, number) => site.urlOf(number)));
    });

    it("crawl says why there will be no crawl", async () => {
      const refused = await run("crawl", ["nope", site.seed]);
      expect(refused).toMatchObject({ code: 1, lines: [] });
      expect(refused.stderr).toMatch(/^invalid: spider: there is no spider "nope"/);
      const quiet = await run("crawl", ["links", site.seed], unheard);
      expect(quiet).toMatchObject({ code: 1, lines: [] });
      expect(quiet.stderr).toMatch(/^no master answered within 1 ?s/);
      const nowhere = await run("crawl", ["links", site.seed], {
        WARREN_NAMESPACE: `${cluster.namespace}.nowhere`,
      });
      expect(nowhere).toMatchObject({ code: 1, lines: [] });
      expect(nowhere.stderr).toContain(`no exchange`);
      expect(nowhere.stderr).toContain(`${cluster.namespace}.nowhere.events`);
    });

    it("node calls a node, with arguments and without", async () => {
      const ping = await run("node", ["w1", "ping"]);
      expect(ping).toMatchObject({ code: 0, stderr: "" });
      expect(JSON.parse(ping.lines[0] ?? "")).toMatchObject({ node: "w1" });
      const set = await run("node", ["w1", "set-config", '{"concurrency": 7}']);
      expect(set).toMatchObject({ code: 0, stderr: "" });
      const info = await run("node", ["w1", "get-config"]);
      expect(JSON.parse(info.lines[0] ?? "")).toMatchObject({ concurrency: 7 });
      await run("node", ["w1", "set-config", '{"concurrency": 32}']);
    });

    it("node tells apart a refusal, silence, and a node that is not there", async () => {
      const refused = await run("node", ["w1", "nope"]);
      expect(refused).toMatchObject({ code: 1, lines: [] });
      expect(refused.stderr).toMatch(/^invalid: type: there is no "nope"/);
      const quiet = await run("node", ["mute", "ping"], unheard);
      expect(quiet).toMatchObject({ code: 1, lines: [] });
      expect(quiet.stderr).toMatch(/^node mute did not answer within 1 ?s/);
      const left = await run("node", ["w2", "ping"]);
      expect(left).toMatchObject({ code: 1, lines: [] });
      expect(left.stderr).toMatch(/^node w2 is not there/);
      const never = await run("node", ["w9", "ping"]);
      expect(never).toMatchObject({ code: 1, lines: [] });
      expect(never.stderr).toMatch(/^there has never been a node w9|node w9 is not there/m);
    });

    it("each says how it is used", async () => {
      for (const program of ["publish", "ask", "crawl", "node"] as const) {
        const { code, stderr } = await run(program, []);
        expect({ program, code }).toEqual({ program, code: 2 });
        expect(stderr).toMatch(/usage: /);
      }
    });
  });
});
