// Rebuilds lifecycle/static/lifecycle/{vendor,icons.svg} from the exact versions of package-lock.json.
// The result is committed, so running Gravingdock does not need this script.
import { copyFileSync, mkdirSync, readFileSync, writeFileSync, readdirSync } from "node:fs";
import { gzipSync } from "node:zlib";
import postcss from "postcss";
import { PurgeCSS } from "purgecss";

const STATIC = "lifecycle/static/lifecycle";
const VENDOR = `${STATIC}/vendor`;
const BUDGET_CSS = 25 * 1024; // bytes gzipped, Tabler and our own together
const BUDGET_JS = 45 * 1024;

mkdirSync(VENDOR, { recursive: true });

// Only names inside tags count as used: a word in a page's text must not include a component of that name.
function namesIn(content) {
  const names = new Set();
  for (const tag of content.matchAll(/<([a-z][a-z0-9-]*)((?:"[^"]*"|'[^']*'|[^<>"'])*)>/gs)) {
    names.add(tag[1]);
    for (const attribute of tag[2].matchAll(/([a-z-]+)(?:="([^"]*)")?/gs)) {
      names.add(attribute[1]);
      for (const word of (attribute[2] ?? "").replace(/\{[{%].*?[%}]\}/gs, " ").split(/\s+/)) if (word) names.add(word);
    }
  }
  for (const word of content.matchAll(/class(?:es|Name|List)?["']?\s*[:=]\s*["']([^"']+)["']/g))
    for (const name of word[1].split(/\s+/)) names.add(name);
  return [...names];
}

const [purged] = await new PurgeCSS().purge({
  content: ["templates/**/*.html", `${STATIC}/js/*.js`, "accounts/**/*.py", "lifecycle/**/{forms,views}.py", "lifecycle/pages/templatetags/*.py"],
  css: ["node_modules/@tabler/core/dist/css/tabler.css"],
  extractors: [{ extractor: namesIn, extensions: ["html", "js", "py"] }],
  safelist: { standard: ["html", "body", ":root", "a", "code", "kbd", "pre", "dialog", "details", "summary", "is-invalid"] },
  keyframes: true,
  variables: true,
});

// Our tokens define every colour for both themes, so Tabler's dark theme is not needed. Tabler is in its own layer, so
// our rules win regardless of specificity.
const sheet = postcss.parse(purged.css);
sheet.walkRules((rule) => {
  rule.selectors = rule.selectors.filter((selector) => !/data-bs-theme=["']?dark/.test(selector)).concat([]);
  if (rule.selectors.length === 0 || rule.selector === "") rule.remove();
});
sheet.walkAtRules((rule) => {
  if (rule.name === "charset") rule.remove();
  else if (rule.nodes && rule.nodes.length === 0) rule.remove();
});
sheet.walkComments((comment) => comment.remove());
sheet.walkDecls((declaration) => {
  if (declaration.prop.startsWith("-webkit-box-shadow") || /sourceMappingURL/.test(declaration.value)) declaration.remove();
});
const squeezed = sheet
  .toString()
  .replace(/\s*\n\s*/g, "")
  .replace(/\s*([{};,])\s*/g, "$1")
  .replace(/;}/g, "}");
writeFileSync(`${VENDOR}/tabler.css`, `/* Tabler core 1.6.1 (MIT), only what our templates use. See README.md. */\n@layer tabler{${squeezed}}\n`);

copyFileSync("node_modules/htmx.org/dist/htmx.min.js", `${VENDOR}/htmx.min.js`);
copyFileSync("node_modules/htmx.org/LICENSE", `${VENDOR}/htmx.LICENSE`);
// Only the page of trends loads it.
copyFileSync("node_modules/uplot/dist/uPlot.iife.min.js", `${VENDOR}/uplot.min.js`);
copyFileSync("node_modules/uplot/dist/uPlot.min.css", `${VENDOR}/uplot.css`);
copyFileSync("node_modules/uplot/LICENSE", `${VENDOR}/uplot.LICENSE`);
copyFileSync("node_modules/lucide-static/LICENSE", `${VENDOR}/lucide.LICENSE`);

const symbols = [];
for (const name of readFileSync("deploy/assets/icons.txt", "utf-8").split("\n")) {
  if (!name || name.startsWith("#")) continue;
  const svg = readFileSync(`node_modules/lucide-static/icons/${name}.svg`, "utf-8");
  const body = svg.replace(/<!--.*?-->/gs, "").replace(/^.*?<svg[^>]*>/s, "").replace(/<\/svg>\s*$/, "").replace(/\s*\n\s*/g, "");
  symbols.push(
    `<symbol id="${name}" viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round">${body}</symbol>`,
  );
}
for (const file of readdirSync("deploy/assets/shapes").sort()) {
  const svg = readFileSync(`deploy/assets/shapes/${file}`, "utf-8");
  const [, box, body] = svg.match(/viewBox="([^"]+)"[^>]*>(.*)<\/svg>/s);
  symbols.push(`<symbol id="${file.replace(".svg", "")}" viewBox="${box}">${body}</symbol>`);
}
writeFileSync(
  `${STATIC}/icons.svg`,
  `<svg xmlns="http://www.w3.org/2000/svg"><!-- Lucide 1.62.0 (ISC) and our own severity shapes; made by deploy/assets/build.mjs -->\n${symbols.join("\n")}\n</svg>\n`,
);

const zipped = (paths) => paths.reduce((sum, path) => sum + gzipSync(readFileSync(path)).length, 0);
const list = (folder, ending) => readdirSync(folder).filter((f) => f.endsWith(ending)).map((f) => `${folder}/${f}`);
const css = zipped([`${VENDOR}/tabler.css`, ...list(`${STATIC}/css`, ".css")]);
const js = zipped([`${VENDOR}/htmx.min.js`, ...list(`${STATIC}/js`, ".js")]);
console.log(`css ${(css / 1024).toFixed(1)} KB of ${BUDGET_CSS / 1024}, js ${(js / 1024).toFixed(1)} KB of ${BUDGET_JS / 1024} (gzip)`);
if (css > BUDGET_CSS || js > BUDGET_JS) {
  console.error("Over the page budget (ux.md 10.7).");
  process.exit(1);
}
