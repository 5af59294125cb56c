import * as zlib from "node:zlib";
import {
  decode,
  FINE,
  type HostileBehaviour,
  HTML,
  head,
  MiB,
  PAGE,
  page,
  pour,
  tooLarge,
} from "./behaviour.js";

const GZIPPED = zlib.gzipSync(PAGE);
const ZEROS = Buffer.alloc(16 * MiB);

/** Each made when it is first asked for, and once. */
function once(make: () => Buffer): () => Buffer {
  let made: Buffer | undefined;
  return () => {
    made ??= make();
    return made;
  };
}

/** 1 GiB of zeros in 1 MiB: members of a gzip file follow one another (RFC 1952, 2.2). */
const gzipBomb = once(() => repeated(zlib.gzipSync(ZEROS), 64));
/** Flushed after each part, bare deflate can be strung together too. */
const deflatePart = once(() => zlib.deflateRawSync(ZEROS, { finishFlush: zlib.constants.Z_FULL_FLUSH }));
const rawDeflateBomb = once(() => repeated(deflatePart(), 64));
const zlibBomb = once(() => Buffer.concat([Buffer.from([0x78, 0x9c]), rawDeflateBomb()]));
const brotliBomb = once(() =>
  zlib.brotliCompressSync(Buffer.alloc(64 * MiB), { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 4 } }),
);
const stackedBomb = once(() => zlib.gzipSync(zlib.gzipSync(gzipBomb())));

/** 1 GiB in 32 KiB: a frame whose blocks are one byte and how often to repeat it (RFC 8878, 3.1.1.2). */
const zstdBomb = once(() => {
  const blockBytes = 131_072;
  const block = Buffer.alloc(4);
  block.writeUIntLE((blockBytes << 3) | (1 << 1), 0, 3);
  return Buffer.concat([Buffer.from("28b52ffd0048", "hex"), repeated(block, 8_192)]);
});

function repeated(part: Buffer, times: number): Buffer {
  return Buffer.concat(Array.from({ length: times }, () => part));
}

function coded(
  name: string,
  coding: string,
  body: Buffer | (() => Buffer),
  ends: HostileBehaviour["ends"],
): HostileBehaviour {
  return { name, answer: page(body, { "content-encoding": coding }), ends };
}

/** A bomb: refused for what it would become, long before it has become that. */
function bomb(name: string, coding: string, body: () => Buffer): HostileBehaviour {
  return { ...coded(name, coding, body, tooLarge(200)), host: "bombs" };
}

const corrupted = Buffer.from(
  zlib.gzipSync(Buffer.from(Array.from({ length: 5_000 }, (_, n) => n.toString(36)).join(" "))),
);
corrupted.fill(0xff, 400, 500);

/** Node decodes zstd from 22.15 on; before that it is not offered, and a server that sends it all the same is not understood. */
const knowsZstd = "createZstdDecompress" in zlib;

/** Content codings that lie, break off, or hide more than they show (RFC 9110, 8.4). */
export const CODINGS: readonly HostileBehaviour[] = [
  coded("gzip", "gzip", GZIPPED, FINE),
  coded("x-gzip in capitals", "X-GZIP", GZIPPED, FINE),
  coded("deflate as zlib", "deflate", zlib.deflateSync(PAGE), FINE),
  coded("deflate without zlib", "deflate", zlib.deflateRawSync(PAGE), FINE),
  coded("brotli", "br", zlib.brotliCompressSync(PAGE), FINE),
  coded("brotli in gzip", "br, gzip", zlib.gzipSync(zlib.brotliCompressSync(PAGE)), FINE),
  coded(
    "gzip in several members",
    "gzip",
    Buffer.concat([zlib.gzipSync(PAGE.slice(0, 20)), zlib.gzipSync(PAGE.slice(20))]),
    FINE,
  ),
  bomb("a gzip bomb", "gzip", gzipBomb),
  bomb("a gzip bomb in gzip in gzip", "gzip, gzip, gzip", stackedBomb),
  bomb("a deflate bomb", "deflate", zlibBomb),
  bomb("a deflate bomb without zlib", "deflate", rawDeflateBomb),
  bomb("a brotli bomb", "br", brotliBomb),
  { ...coded("a zstd bomb", "zstd", zstdBomb, knowsZstd ? tooLarge(200) : decode(/zstd/)), host: "bombs" },
  {
    name: "gzip without end",
    host: "bombs",
    answer: ({ socket }) => {
      socket.write(head(200, { "content-type": HTML, "content-encoding": "gzip" }));
      pour(socket, zlib.gzipSync(Buffer.alloc(65_536)));
    },
    ends: tooLarge(200),
  },
  {
    name: "a gzip bomb for a spider of files",
    host: "bombs",
    spider: "pdf",
    answer: page(gzipBomb, { "content-encoding": "gzip" }),
    ends: tooLarge(200),
  },
  // Browsers show what came (RFC 9110 leaves it open): the length was as promised.
  coded("gzip cut off", "gzip", zlib.gzipSync(`${PAGE}${"<p>more".repeat(5_000)}`).subarray(0, -30), FINE),
  coded("gzip without its checksum", "gzip", GZIPPED.subarray(0, -8), FINE),
  coded("gzip filled up with zeros", "gzip", Buffer.concat([GZIPPED, Buffer.alloc(500)]), FINE),
  coded(
    "gzip with rubbish behind it",
    "gzip",
    Buffer.concat([GZIPPED, Buffer.from("rubbish")]),
    decode(/does not decode/),
  ),
  coded(
    "gzip with a bad checksum",
    "gzip",
    Buffer.concat([GZIPPED.subarray(0, -8), Buffer.alloc(8, 1)]),
    decode(/does not decode/),
  ),
  coded("gzip broken in the middle", "gzip", corrupted, decode(/does not decode/)),
  coded("gzip that is plain HTML", "gzip", Buffer.from(PAGE), decode(/does not decode/)),
  coded("brotli that is plain HTML", "br", Buffer.from(PAGE), decode(/does not decode/)),
  coded("deflate that is noise", "deflate", Buffer.alloc(1_000, 0xa5), decode(/does not decode/)),
  coded("gzip of nothing", "gzip", Buffer.alloc(0), { ...FINE, title: "" }),
  coded("gzip that was not said", "", GZIPPED, { ...FINE, title: "" }),
  // Words that name no coding are passed over, as browsers do: servers put character sets there.
  coded("a coding that is a character set", "utf-8", Buffer.from(PAGE), FINE),
  coded("a coding nobody knows", "banana", Buffer.from(PAGE), FINE),
  coded("identity", "identity", Buffer.from(PAGE), FINE),
  coded("a coding that was not offered", "compress", Buffer.from(PAGE), decode(/compress/)),
  coded("a coding with a dictionary we have not", "dcb", Buffer.from(PAGE), decode(/dcb/)),
  coded("100 codings", Array.from({ length: 100 }, () => "gzip").join(", "), GZIPPED, decode(/codings/)),
];
