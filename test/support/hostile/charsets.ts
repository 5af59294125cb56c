import { DONE, type HostileBehaviour, page } from "./behaviour.js";

/** A word in each of the encodings that a browser knows (WHATWG Encoding, 4.2), and its bytes there. */
const WORDS: readonly (readonly [charset: string, word: string, hex: string])[] = [
  ["utf-8", "Grüße", "4772c3bcc39f65"],
  ["ibm866", "Привет", "8fe0a8a2a5e2"],
  ["iso-8859-2", "Dzień łąka", "447a6965f120b3b16b61"],
  ["iso-8859-3", "Ħaġar", "a161f56172"],
  ["iso-8859-4", "Šķūnis", "a9f3fe6e6973"],
  ["iso-8859-5", "Привет", "bfe0d8d2d5e2"],
  ["iso-8859-6", "مرحبا", "e5d1cdc8c7"],
  ["iso-8859-7", "Γειά σου", "c3e5e9dc20f3eff5"],
  ["iso-8859-8", "שלום", "f9ece5ed"],
  ["iso-8859-8-i", "שלום", "f9ece5ed"],
  ["iso-8859-10", "Ðŋ Þór", "d0bf20def372"],
  ["iso-8859-13", "Ačiū", "41e869fb"],
  ["iso-8859-14", "Tŷ ẃ", "54fe20ba"],
  ["iso-8859-15", "5 € œuf", "3520a420bd7566"],
  ["iso-8859-16", "Țară și", "de6172e320ba69"],
  ["koi8-r", "Привет", "f0d2c9d7c5d4"],
  ["koi8-u", "Їжак Ґ", "b7d6c1cb20bd"],
  ["macintosh", "Café Ω", "4361668e20bd"],
  ["windows-874", "สวัสดี", "cac7d1cab4d5"],
  ["windows-1250", "Příliš", "50f8ed6c699a"],
  ["windows-1251", "Привет", "cff0e8e2e5f2"],
  ["windows-1252", "€5 – café", "8035209620636166e9"],
  ["windows-1253", "Γειά σου", "c3e5e9dc20f3eff5"],
  ["windows-1254", "Günaydın", "47fc6e617964fd6e"],
  ["windows-1255", "שלום", "f9ece5ed"],
  ["windows-1256", "مرحبا", "e3d1cdc8c7"],
  ["windows-1257", "Ačiū", "41e869fb"],
  ["windows-1258", "Đông Nghê", "d0f46e67204e6768ea"],
  ["x-mac-cyrillic", "Привет", "8ff0e8e2e5f2"],
  ["gbk", "你好", "c4e3bac3"],
  ["gb2312", "你好", "c4e3bac3"],
  ["gb18030", "你好 😀", "c4e3bac3209439fc36"],
  ["big5", "你好", "a741a66e"],
  ["euc-jp", "こんにちは", "a4b3a4f3a4cba4c1a4cf"],
  ["iso-2022-jp", "こんにちは", "1b244224332473244b2441244f1b2842"],
  ["shift_jis", "こんにちは", "82b182f182c982bf82cd"],
  ["euc-kr", "안녕", "bec8b3e7"],
];

function titled(word: Buffer, start = "<!doctype html>"): Buffer {
  return Buffer.concat([Buffer.from(`${start}<title>`), word, Buffer.from("</title><p>")]);
}

function bytesOf(charset: string): Buffer {
  const found = WORDS.find(([name]) => name === charset);
  if (found === undefined) throw new Error(`no word in ${charset}`);
  return Buffer.from(found[2], "hex");
}

function charset(name: string, contentType: string, body: Buffer, title: string): HostileBehaviour {
  return {
    name,
    host: "charsets",
    answer: page(body, { "content-type": contentType }),
    ends: { ...DONE, title },
  };
}

function utf16(text: string, order: "le" | "be", marked: boolean): Buffer {
  const bytes = Buffer.from(`${marked ? "\ufeff" : ""}${text}`, "utf16le");
  return order === "le" ? bytes : bytes.swap16();
}

const WIDE = "<!doctype html><title>Grüße 你好</title><p>x";
const CAFE = Buffer.from("caf\u00e9", "latin1");

/** Character sets, told truly and falsely, in every place where a browser looks. */
export const CHARSETS: readonly HostileBehaviour[] = [
  ...WORDS.map(([name, word, hex]) =>
    charset(`${name} in the header`, `text/html; charset=${name}`, titled(Buffer.from(hex, "hex")), word),
  ),
  ...WORDS.map(([name, word, hex]) =>
    charset(
      `${name} in a meta element`,
      "text/html",
      titled(Buffer.from(hex, "hex"), `<!doctype html><meta charset="${name}">`),
      word,
    ),
  ),
  charset(
    "utf-8 with its mark",
    "text/html",
    Buffer.concat([Buffer.from("efbbbf", "hex"), titled(bytesOf("utf-8"))]),
    "Grüße",
  ),
  charset("utf-16le with its mark", "text/html", utf16(WIDE, "le", true), "Grüße 你好"),
  charset("utf-16be with its mark", "text/html", utf16(WIDE, "be", true), "Grüße 你好"),
  charset("utf-16le in the header", "text/html; charset=utf-16le", utf16(WIDE, "le", false), "Grüße 你好"),
  charset("utf-16be in the header", "text/html; charset=utf-16be", utf16(WIDE, "be", false), "Grüße 你好"),
  charset(
    "utf-16 of half a character",
    "text/html; charset=utf-16le",
    utf16(WIDE, "le", false).subarray(0, -1),
    "Grüße 你好",
  ),
  charset(
    "a mark that contradicts the header",
    "text/html; charset=shift_jis",
    Buffer.concat([Buffer.from("efbbbf", "hex"), titled(bytesOf("utf-8"))]),
    "Grüße",
  ),
  charset(
    "a header that contradicts the meta element",
    "text/html; charset=koi8-r",
    titled(bytesOf("koi8-r"), '<meta charset="utf-8">'),
    "Привет",
  ),
  charset(
    "utf-16 in a meta element of 8 bits",
    "text/html",
    titled(bytesOf("utf-8"), '<meta charset="utf-16">'),
    "Grüße",
  ),
  charset("latin-1 called utf-8", "text/html; charset=utf-8", titled(CAFE), "caf\ufffd"),
  charset("utf-8 called latin-1", "text/html; charset=iso-8859-1", titled(bytesOf("utf-8")), "GrÃ¼ÃŸe"),
  // UTF-7 is no encoding of the web, since it hides markup: it must be read as what it looks like.
  charset(
    "utf-7 in the header",
    "text/html; charset=utf-7",
    titled(Buffer.from("+ADw-script+AD4-")),
    "+ADw-script+AD4-",
  ),
  charset(
    "utf-7 in a meta element",
    "text/html",
    titled(Buffer.from("+ADw-b+AD4-"), '<meta charset="utf-7">'),
    "+ADw-b+AD4-",
  ),
  charset("a charset nobody knows", "text/html; charset=klingon", titled(bytesOf("utf-8")), "Grüße"),
  charset("a charset nobody knows and latin-1", "text/html; charset=klingon", titled(CAFE), "café"),
  charset(
    "a charset of 10,000 letters",
    `text/html; charset=${"x".repeat(10_000)}`,
    titled(bytesOf("utf-8")),
    "Grüße",
  ),
  charset(
    "a charset in quotes",
    'text/html; charset="windows-1251"',
    titled(bytesOf("windows-1251")),
    "Привет",
  ),
  charset("no charset and utf-8", "text/html", titled(bytesOf("utf-8")), "Grüße"),
  charset("no charset and latin-1", "text/html", titled(CAFE), "café"),
  charset(
    "iso-8859-1 that is windows-1252",
    "text/html; charset=iso-8859-1",
    titled(bytesOf("windows-1252")),
    "€5 – café",
  ),
  charset(
    "utf-8 cut in a character",
    "text/html; charset=utf-8",
    Buffer.from("<title>Gr\u00fc</title>\u00fc").subarray(0, -1),
    "Grü",
  ),
  charset(
    "utf-8 longer than it need be",
    "text/html; charset=utf-8",
    titled(Buffer.from([0xc0, 0xbc, 0x62])),
    "\ufffd\ufffdb",
  ),
];
