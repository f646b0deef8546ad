// Bundles web/assets into web/static/dist. File names carry a hash of their content, so that browsers may keep them
// for ever; manifest.json tells the pages which name is current.
import { rmSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const entries = ["css/app.css", "js/app.js", "img/favicon.svg"];
const outdir = join(here, "static", "dist");

rmSync(outdir, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: here,
  entryPoints: entries.map((entry) => join("assets", entry)),
  outdir,
  outbase: "assets",
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  loader: { ".svg": "copy" },
  metafile: true,
  logLevel: "warning",
});

const manifest = {};
for (const [output, { entryPoint }] of Object.entries(metafile.outputs)) {
  if (entryPoint) manifest[basename(entryPoint)] = basename(output);
}
writeFileSync(join(outdir, "manifest.json"), JSON.stringify(manifest, null, 2));
