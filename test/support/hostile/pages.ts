import { DONE, FINE, type HostileBehaviour, MiB, PAGE, page, skipped, tooLarge } from "./behaviour.js";

function large(name: string, make: () => string, ends: HostileBehaviour["ends"]): HostileBehaviour {
  return { name, host: "large", answer: page(make), ends: ends };
}

/** The text, over and over, to so many bytes. */
function upTo(bytes: number, text: string): string {
  return text.repeat(Math.floor(bytes / text.length));
}

const OUT = skipped("scope");

/** HTML that is too big, too deep, never closed, or leads astray. */
export const PAGES: readonly HostileBehaviour[] = [
  large("10 MB of HTML", () => `${PAGE}${upTo(10 * MiB, "<p>text and <b>more</b> text</p>\n")}`, FINE),
  large("100,000 elements deep", () => `${PAGE}${"<div>".repeat(100_000)}`, FINE),
  large(
    "100,000 elements deep and closed",
    () => `${PAGE}${"<b>".repeat(100_000)}${"</b>".repeat(100_000)}`,
    FINE,
  ),
  large(
    "a million links",
    () =>
      `${PAGE}<base href=/denied/>${Array.from({ length: 1_000_000 }, (_, n) => `<a href=${n.toString(36)}>`).join("")}`,
    FINE,
  ),
  {
    ...large(
      "a million links for a spider of files",
      () =>
        `${PAGE}<base href=/denied/>${Array.from({ length: 1_000_000 }, (_, n) => `<a href=${n.toString(36)}>`).join("")}`,
      FINE,
    ),
    spider: "pdf",
  },
  large("the same link a million times", () => `${PAGE}${'<a href="/again">'.repeat(900_000)}`, FINE),
  large(
    "a million attributes",
    () =>
      `${PAGE}<a ${Array.from({ length: 1_000_000 }, (_, n) => `a${n.toString(36)}=1 `).join("")} href=/denied/late>x</a>`,
    FINE,
  ),
  large("one attribute of 10 MB", () => `${PAGE}<a href="${"x".repeat(10 * MiB)}">x</a>`, FINE),
  large("a tag that never ends", () => `${PAGE}<a href="/never${"y".repeat(10 * MiB)}`, FINE),
  large("a tag name that never ends", () => `${PAGE}<${"y".repeat(10 * MiB)}`, FINE),
  large("a comment that never ends", () => `${PAGE}<!-- ${'<a href="/hidden">'.repeat(500_000)}`, FINE),
  large(
    "a million comments never begun",
    () => `${PAGE}${"-->".repeat(1_000_000)}${"<!".repeat(1_000_000)}`,
    FINE,
  ),
  large("CDATA that never ends", () => `${PAGE}<![CDATA[ ${"]]".repeat(1_000_000)}`, FINE),
  large("a title of 50 MB", () => `<title>${"x".repeat(50 * MiB)}`, tooLarge(200)),
  large("a title of 10 MB", () => `<title>${"x".repeat(10 * MiB)}`, { ...DONE, title: "x".repeat(10_000) }),
  large("a million titles", () => `${"<title>Fine</title>".repeat(800_000)}`, FINE),
  large(
    "a million character references",
    () => `${PAGE}${"&amp;&#x41;&nosuch;&CounterClockwiseContourIntegral;".repeat(200_000)}`,
    FINE,
  ),
  large(
    "links of character references",
    () => `${PAGE}${`<a href="/denied/?${"&amp;a=1".repeat(1_000)}">`.repeat(1_000)}`,
    FINE,
  ),
  large(
    "unclosed everything",
    () => `${PAGE}${"<table><tr><td><ul><li><p><b><i><a><select><option>".repeat(100_000)}`,
    FINE,
  ),
  large(
    "quotes that never close",
    () => `${PAGE}${`<a href='/denied/"><a href="/denied/'>`.repeat(100_000)}`,
    FINE,
  ),
  large("10 MB of white space", () => `${" \n\t".repeat(3 * MiB)}${PAGE}`, FINE),
  large("10 MB of less-than signs", () => `${PAGE}${"<".repeat(10 * MiB)}`, FINE),
  large(
    "10 MB of script",
    () => `${PAGE}<script>${"if (a < b && c > d) '</a>';\n".repeat(350_000)}</script>`,
    FINE,
  ),
  {
    name: "links that are none",
    path: "/traps",
    answer: page(`${PAGE}
      <script>document.write('<a href="/from-script">x</a>')</script><style>a{content:'<a href="/from-style">'}</style>
      <textarea><a href="/from-textarea">x</a></textarea><!-- <a href="/from-comment">x</a> -->
      <a href="javascript:alert(1)">a</a><a href="data:text/html,x">b</a><a href="mailto:x@example.org">c</a>
      <a href="file:///etc/passwd">d</a><a href="ftp://192.0.2.1/">e</a><a href="tel:1">f</a><a href="http://">g</a>
      <a href="http://user:password@192.0.2.1/">h</a><a href="/real">the only one</a>`),
    ends: FINE,
    leadsTo: { "/real": FINE },
  },
  {
    name: "links inside",
    path: "/inside",
    answer: page(
      `${PAGE}<a href="http://169.254.169.254/linked">a</a><a href="http://[::1]/linked">b</a><a href="//2130706433/linked">c</a>`,
    ),
    ends: FINE,
    leadsTo: {
      "http://169.254.169.254/linked": skipped("address"),
      "http://[::1]/linked": skipped("address"),
      "http://127.0.0.1/linked": skipped("address"),
    },
  },
  {
    name: "a base of a megabyte",
    path: "/base/huge",
    answer: page(`<base href="/${"x".repeat(MiB)}/">${PAGE}<a href="/real">absolute</a>`),
    ends: FINE,
    leadsTo: { "/real": FINE },
  },
  {
    name: "a base that points away",
    path: "/base/away",
    answer: page(`<base href="http://10.0.0.1/">${PAGE}<a href="based">x</a>`),
    ends: FINE,
    leadsTo: { "http://10.0.0.1/based": skipped("address") },
  },
  {
    name: "a base that is no web page",
    path: "/base/data",
    answer: page(`<base href="data:text/html,x">${PAGE}<a href="/real">x</a>`),
    ends: FINE,
    leadsTo: { "/real": FINE },
  },
  {
    name: "links out of scope",
    path: "/leads-out",
    answer: page(`${PAGE}<a href="/denied/one">x</a><a href="/%64enied/two">x</a>`),
    ends: FINE,
    leadsTo: { "/denied/one": OUT },
  },
  {
    name: "the same page in many spellings",
    path: "/spellings",
    answer: page(
      `${PAGE}<a href="/same">1</a><a href="/%73ame#a">2</a><a href="/x/../same">3</a><a href="/./same">4</a><a href="/same?">5</a><a href="\t/sa\nme ">6</a>`,
    ),
    ends: FINE,
    leadsTo: { "/same": FINE },
  },
];
