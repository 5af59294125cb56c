import { describe, expect, it } from "vitest";
import { HelpRequested, readConfig } from "../../src/lib/config.js";
import { ConfigError } from "../../src/lib/errors.js";

const SETTINGS = [
  "amqpUrl",
  "mongodbUri",
  "nodeId",
  "concurrency",
  "apiTokens",
  "userAgent",
  "standalone",
  "seed",
] as const;
const PROGRAM = { usage: "program", about: "A program.", settings: SETTINGS };

const read = (args: readonly string[], environment: Record<string, string> = {}) =>
  readConfig(PROGRAM, args, environment);

describe("readConfig", () => {
  it("takes flags before variables before defaults", () => {
    expect(read([]).concurrency).toBe(32);
    expect(read([], { WARREN_CONCURRENCY: "7" }).concurrency).toBe(7);
    expect(read(["--concurrency", "3"], { WARREN_CONCURRENCY: "7" }).concurrency).toBe(3);
    expect(read(["--concurrency=4"]).concurrency).toBe(4);
  });

  it("takes a variable that is empty for one that is not set", () => {
    expect(read([], { WARREN_CONCURRENCY: "", WARREN_NODE_ID: "" })).toMatchObject({ concurrency: 32 });
  });

  it("takes several brokers, switches, and flags that are given several times", () => {
    expect(read(["--amqp-url", "amqp://a,amqps://b"]).amqpUrl).toEqual(["amqp://a", "amqps://b"]);
    expect(read(["--standalone"]).standalone).toBe(true);
    expect(read(["--seed", "http://a/", "http://b/", "--seed", "http://c/"]).seed).toEqual([
      "http://a/",
      "http://b/",
      "http://c/",
    ]);
  });

  it.each([
    [["--concurency", "3"], {}, /unknown flag --concurency, did you mean --concurrency\?/],
    [["--bogus"], {}, /unknown flag --bogus/],
    [["stray"], {}, /unexpected argument "stray"/],
    [["--node-id"], {}, /--node-id needs a value/],
    [[], { WARREN_CONCURENCY: "3" }, /WARREN_CONCURENCY, did you mean WARREN_CONCURRENCY\?/],
    [[], { WARREN_CONCURRENCY: "many" }, /^WARREN_CONCURRENCY must be a whole number, 1 to 1000, not "many"/],
    [["--concurrency", "0"], {}, /^--concurrency must be/],
    [["--node-id", "a b"], {}, /^--node-id must be/],
    [[], { AMQP_URL: "http://rabbit" }, /^AMQP_URL must look like amqp:/],
    [[], { MONGODB_URI: "mongo" }, /^MONGODB_URI must look like mongodb:/],
    [[], { WARREN_API_TOKENS: "root:abc" }, /^WARREN_API_TOKENS must be role:token pairs/],
    [[], { WARREN_USER_AGENT: "" }, undefined],
    [["--user-agent", "1bot"], {}, /^--user-agent must begin with a name/],
  ])("reads %j with %j as it should", (args, environment, message) => {
    const reading = () => read(args as string[], environment as Record<string, string>);
    if (message === undefined) expect(reading).not.toThrow();
    else
      expect(reading).toThrow(
        expect.objectContaining({ name: "ConfigError", message: expect.stringMatching(message) }),
      );
  });

  it("never repeats a secret", () => {
    const wrong = [
      { AMQP_URL: "amq://user:secret@rabbit" },
      { MONGODB_URI: "mongo://user:secret@host" },
      { WARREN_API_TOKENS: "root:secret" },
    ];
    for (const environment of wrong) {
      let message = "";
      try {
        read([], environment as Record<string, string>);
      } catch (error) {
        expect(error).toBeInstanceOf(ConfigError);
        message = (error as Error).message;
      }
      expect(message).not.toBe("");
      expect(message).not.toContain("secret");
    }
  });

  it("lists every setting and its variable in the help", () => {
    let help = "";
    try {
      read(["--help"]);
    } catch (error) {
      expect(error).toBeInstanceOf(HelpRequested);
      help = (error as Error).message;
    }
    for (const name of ["--amqp-url", "AMQP_URL", "--concurrency N", "WARREN_CONCURRENCY", "--standalone"]) {
      expect(help).toContain(name);
    }
  });
});
