// Prisma's own schema engine, compiled to WebAssembly, over Prisma's own driver adapter: what the commands of
// `prisma migrate` do once their command line is read. No binary is downloaded.
//
// Usage: node engine.mjs LINE COMMAND MIGRATIONS_FOLDER [NAME]
//   LINE     6 or 7: the lines of Prisma's versions that package.json pins
//   status   what differs between folder and ledger            deploy         applies what is pending
//   dev      whether it would demand a reset, for drift too    diff           the database against the folder
//   applied  `resolve --applied NAME`                          rolled-back    `resolve --rolled-back NAME`
// Connects by libpq's environment variables (PGHOST, PGDATABASE, ...), the schema is `public`. Prints the engine's
// answer as JSON; its refusal goes to standard error as CODE MESSAGE, with status 1.
import { webcrypto } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

import { PrismaPg } from "@prisma/adapter-pg";
import { bindMigrationAwareSqlAdapterFactory } from "@prisma/driver-adapter-utils";

globalThis.crypto ??= webcrypto; // Node 18 hides it from the adapter

const [line, command, given, name] = process.argv.slice(2);
const folder = resolve(given);
const require = createRequire(import.meta.url);

/** The engine's class; Node 20 imports no WebAssembly module by itself, so that the two halves are joined here. */
async function loadEngine() {
  const beside = require.resolve(`schema-engine-${line}/schema_engine_bg`);
  const bindings = await import(beside);
  const code = new WebAssembly.Module(await readFile(beside.replace(/\.js$/, ".wasm")));
  const instance = new WebAssembly.Instance(code, { "./schema_engine_bg.js": bindings });
  bindings.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
  return bindings.SchemaEngine;
}

/** The adapter over one session, as the native engine has it, to hold the lock; a file goes as one simple query, where
 * the adapter by itself cuts it at each semicolon. */
class OneSession extends PrismaPg {
  constructor(database) {
    // What isn't given `pg` reads from libpq's environment variables. The adapter writes times without their zone, so
    // that they are wrong in a session that isn't in UTC; the native engine writes them right in any.
    const options = process.env.PGOPTIONS ?? "-c timezone=UTC";
    const session = { max: 1, idleTimeoutMillis: 0, application_name: `prisma ${line}`, options, database };
    super(session, { schema: "public" });
  }

  async connect() {
    const connection = await super.connect();
    const query = connection.client.query.bind(connection.client);
    connection.client.query = async (asked) => {
      const result = await query(asked);
      // The engine reads columns of type "char" (18) in the catalogue, which the adapter doesn't know: they are text.
      for (const field of result.fields ?? []) if (field.dataTypeID === 18) field.dataTypeID = 25;
      return result;
    };
    connection.executeScript = async (script) => {
      await connection.client.query(script).catch((error) => connection.onError(error));
    };
    return connection;
  }

  /** A database of its own, dropped once nobody is connected to it any more. */
  async connectToShadowDb() {
    const database = `prisma_migrate_shadow_db_${crypto.randomUUID()}`;
    const beside = await this.connect();
    await beside.executeScript(`CREATE DATABASE "${database}"`);
    const shadow = await new OneSession(database).connect();
    shadow.dispose = async () => {
      await shadow.client.end();
      await beside.executeScript(`DROP DATABASE "${database}"`);
      await beside.client.end();
    };
    return shadow;
  }
}

/** A folder of migrations in the shape that the engine takes. */
async function migrationsList() {
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

const filters = { externalTables: [], externalEnums: [] };
const list = await migrationsList();
const SchemaEngine = await loadEngine();
const engine = await SchemaEngine.new(
  { datamodels: undefined },
  () => {},
  bindMigrationAwareSqlAdapterFactory(new OneSession()),
);

// Version 6 wants an address, version 7 wants none; the adapter is what connects.
const source = `datasource db {\n  provider = "postgresql"\n${line === "6" ? '  url = "postgresql://"\n' : ""}}\n`;
const schema = { files: [{ path: "schema.prisma", content: source }] };

const commands = {
  status: () => engine.diagnoseMigrationHistory({ migrationsList: list, optInToShadowDatabase: false, filters }),
  deploy: () => engine.applyMigrations({ migrationsList: list, filters }),
  diff: () =>
    engine.diff({
      from: { tag: "migrations", ...list },
      to: { tag: "schemaDatasource", ...schema, configDir: folder },
      shadowDatabaseUrl: null,
      script: true,
      exitCode: true,
      filters,
    }),
  dev: async () => (await engine.devDiagnostic({ migrationsList: list, filters })).action,
  applied: () => engine.markMigrationApplied({ migrationName: name, migrationsList: list }),
  "rolled-back": () => engine.markMigrationRolledBack({ migrationName: name }),
};
try {
  console.log(JSON.stringify((await commands[command]()) ?? null));
} catch (error) {
  console.error(error.code ?? error.name, error.message);
  process.exit(1);
}
process.exit(0);
