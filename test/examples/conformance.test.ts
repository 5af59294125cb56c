import { execFile } from "node:child_process";
import path from "node:path";
import { connect } from "amqplib";
import { describe, expect, it } from "vitest";
import { type ForeignProgram, goWorker, hasGo, pythonWorker } from "../support/foreign-worker.js";

const ROOT = path.resolve(import.meta.dirname, "../..");
const KIT = path.join(ROOT, "scripts/conformance.mjs");

type Verdict = { readonly exitCode: number | string; readonly output: string; readonly namespace: string };

let runs = 0;

function conformance(args: readonly string[], program?: ForeignProgram): Promise<Verdict> {
  runs += 1;
  const namespace = `conformance-${process.pid}-${runs}`;
  const command = program === undefined ? [] : ["--", ...program.command, "titles"];
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [KIT, "--spider", "titles", "--namespace", namespace, ...args, ...command],
      { env: { ...process.env, ...program?.environment } },
      (error, stdout, stderr) =>
        resolve({ exitCode: error?.code ?? 0, output: `${stdout}${stderr}`, namespace }),
    );
  });
}

async function expectNothingLeft(namespace: string): Promise<void> {
  const connection = await connect(process.env.AMQP_URL ?? "");
  connection.on("error", () => {});
  for (const queue of [`${namespace}.tasks.titles`, `${namespace}.master`]) {
    const channel = await connection.createChannel();
    channel.on("error", () => {});
    await expect(channel.checkQueue(queue)).rejects.toThrow(/NOT_FOUND/);
  }
  await connection.close();
}

describe("the conformance kit", () => {
  it.each([
    ["Python", true, pythonWorker],
    ["Go", hasGo(), goWorker],
  ])(
    "finds nothing wrong with the worker in %s",
    async (language, isHere, program) => {
      if (!isHere) {
        console.warn(`${language} is not here: its worker is not tried`);
        return;
      }
      const { exitCode, output, namespace } = await conformance([], await program());

      expect(output).not.toContain("WRONG");
      expect(output).toMatch(/all \d\d right/);
      expect(exitCode).toBe(0);
      await expectNothingLeft(namespace);
    },
    300_000,
  );

  it("names each thing that a worker gets wrong", async () => {
    const program = {
      command: [process.execPath, path.join(ROOT, "test/support/wrong-worker.mjs")] as const,
      environment: {},
    };
    const { exitCode, output, namespace } = await conformance(["--patience", "10"], program);

    expect(exitCode).toBe(1);
    for (const line of [
      /WRONG {2}takes tasks .*: its prefetch is unlimited/,
      /WRONG {2}finds the links of a page.*: links are missing: \/dir\/sibling, \/rooted\?x=1&y=2, \/up/,
      /WRONG {2}reports the status .*: statusCode is undefined; the page answers 404/,
      /WRONG {2}hands a redirect over.*: neither statusCode 302 with redirect/,
      /WRONG {2}gives up a page that never comes.*: the error is "TimeoutError/,
      /WRONG {2}takes an empty page: it settled the task \(ack\) before its call was answered/,
      /WRONG {2}reports a host that is down.*: the error is "TypeError/,
      /WRONG {2}does not fetch what waited too long.*: the error is undefined/,
      /WRONG {2}sends the method.*: the body was ""/,
      /\d+ of \d+ wrong/,
    ]) {
      expect(output).toMatch(line);
    }
    await expectNothingLeft(namespace);
  }, 300_000);

  it("says so when no worker comes", async () => {
    const { exitCode, output } = await conformance(["--patience", "1"]);

    expect(exitCode).toBe(1);
    expect(output).toMatch(/Start the worker of spider titles with AMQP_URL=amqp:\S+ WARREN_NAMESPACE=\S+/);
    expect(output).toMatch(/WRONG {2}takes tasks .*: no worker consumed from it within 1 s/);
  });

  it.each([
    [["--patience", "soon"], "--patience"],
    [["--spider", ""], "--spider"],
    [["--nonsense"], "--nonsense"],
  ])("refuses wrong usage, naming the flag: %j", async (args, flag) => {
    const { exitCode, output } = await conformance(args);

    expect(exitCode).toBe(2);
    expect(output).toContain(flag);
  });
});
