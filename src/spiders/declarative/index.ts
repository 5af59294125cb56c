export { type DeclarativeSpider, declarationSchema, declarativeSpider } from "./declaration.js";
export { checkedDeclaration, parseDeclaration } from "./declaration-reader.js";
export { type CompileOptions, compileSpider } from "./declarative-spider.js";
export { SpiderDeclarationError } from "./errors.js";
