import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

/** A certificate and its key, as files. */
export type CertificateFiles = { readonly certFile: string; readonly keyFile: string };

/** A certificate authority of a test's own, made by the `openssl` program. */
export class TestAuthority {
  readonly folder: string;
  readonly caFile: string;
  readonly #keyFile: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.caFile = path.join(folder, "ca.pem");
    this.#keyFile = path.join(folder, "ca.key");
  }

  static async create(): Promise<TestAuthority> {
    const authority = new TestAuthority(await mkdtemp(path.join(tmpdir(), "warren-ca-")));
    await authority.#openssl("req", "-x509", "-subj", "/CN=Test authority", "-days", "2", ...KEY, {
      "-keyout": authority.#keyFile,
      "-out": authority.caFile,
    });
    return authority;
  }

  /**
   * A certificate for servers and clients alike.
   * @param extensions lines of its extensions, for example `subjectAltName=IP:127.0.0.1`
   * @param days how long it is valid; one below nothing has expired
   */
  async issue(name: string, extensions: readonly string[] = [], days = 2): Promise<CertificateFiles> {
    const at = (ending: string) => path.join(this.folder, `${name}.${ending}`);
    const files = { certFile: at("pem"), keyFile: at("key") };
    await this.#openssl("req", "-new", "-subj", `/CN=${name}`, ...KEY, {
      "-keyout": files.keyFile,
      "-out": at("csr"),
    });
    await writeFile(at("ext"), `${["basicConstraints=CA:FALSE", ...extensions].join("\n")}\n`);
    await this.#openssl("x509", "-req", "-days", String(days), "-CAcreateserial", {
      "-in": at("csr"),
      "-CA": this.caFile,
      "-CAkey": this.#keyFile,
      "-extfile": at("ext"),
      "-out": files.certFile,
    });
    return files;
  }

  /** A copy of a key, encrypted. */
  async encrypted(keyFile: string, passphrase: string): Promise<string> {
    const file = `${keyFile}.encrypted`;
    await this.#openssl("pkcs8", "-topk8", "-v2", "aes256", "-passout", `pass:${passphrase}`, {
      "-in": keyFile,
      "-out": file,
    });
    return file;
  }

  async dispose(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  async #openssl(...parts: readonly (string | Readonly<Record<string, string>>)[]): Promise<void> {
    const args = parts.flatMap((part) => (typeof part === "string" ? [part] : Object.entries(part).flat()));
    await run("openssl", args);
  }
}

/** A new key, not encrypted, of a kind that is quickly made. */
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"] as const;
