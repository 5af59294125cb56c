export type { ModuleDescription, ModuleHook } from "./messages.js";
export { ModuleHost, type ModuleToLoad } from "./module-host.js";
export { DEFAULT_MODULE_SETTINGS, type ModuleSettings, moduleSettingsOf } from "./module-settings.js";
export type { ModuleSpider } from "./module-spider.js";
