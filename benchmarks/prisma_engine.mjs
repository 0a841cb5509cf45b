// Prisma's own schema engine, compiled to WebAssembly, over Prisma's own driver adapter: what `prisma migrate deploy`
// does once its command line is read. No binary is downloaded.
//
// Usage: node prisma_engine.mjs MIGRATIONS_FOLDER
// Connects by libpq's environment variables (PGHOST, PGDATABASE, ...); prints the names that it applied as JSON.
import { readFile, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";

import { PrismaPg } from "@prisma/adapter-pg";
import { bindMigrationAwareSqlAdapterFactory } from "@prisma/driver-adapter-utils";
import * as bindings from "@prisma/schema-engine-wasm/schema_engine_bg";

const require = createRequire(import.meta.url);

/** The engine's class; Node 20 imports no WebAssembly module by itself, so that the two halves are joined here. */
async function loadEngine() {
  const beside = require.resolve("@prisma/schema-engine-wasm/schema_engine_bg");
  const code = new WebAssembly.Module(await readFile(beside.replace(/\.js$/, ".wasm")));
  const instance = new WebAssembly.Instance(code, { "./schema_engine_bg.js": bindings });
  bindings.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
  return bindings.SchemaEngine;
}

/** A folder of migrations in the shape that the engine takes. */
async function migrationsList(folder) {
  const directories = (await readdir(folder, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const names = directories.map((entry) => entry.name).sort();
  const lock = await readFile(join(folder, "migration_lock.toml"), "utf-8").catch(() => null);
  return {
    baseDir: folder,
    lockfile: { path: "migration_lock.toml", content: lock },
    shadowDbInitScript: "",
    migrationDirectories: await Promise.all(
      names.map(async (name) => ({
        path: name,
        migrationFile: {
          path: "migration.sql",
          content: { tag: "ok", value: await readFile(join(folder, name, "migration.sql"), "utf-8") },
        },
      })),
    ),
  };
}

const folder = process.argv[2];
// An empty configuration: `pg` reads libpq's environment variables.
const adapter = bindMigrationAwareSqlAdapterFactory(new PrismaPg({}, { schema: "public" }));
const SchemaEngine = await loadEngine();
const engine = await SchemaEngine.new({ datamodels: undefined }, () => {}, adapter);
try {
  const output = await engine.applyMigrations({
    migrationsList: await migrationsList(folder),
    filters: { externalTables: [], externalEnums: [] },
  });
  console.log(JSON.stringify(output.appliedMigrationNames));
} catch (error) {
  console.error(error.code ?? error.name, error.message);
  process.exit(1);
}
process.exit(0);
