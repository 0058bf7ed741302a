// Uses the stock npm client and prints what it saw, one JSON object per line.
//
//   node client.mjs all HOST PORT
//   node client.mjs connect OPTIONS...    each a JSON object of the client's own options
import { createFlightSqlClient } from '@lakehouse-rs/flight-sql-client';
import { tableFromIPC } from 'apache-arrow';

const number = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : String(value));

const show = (step, value) =>
  console.log(
    JSON.stringify({ step, value }, (_key, item) =>
      typeof item === 'bigint' ? number(item) : item,
    ),
  );

// A decimal comes as four words of 32 bits, the lowest first, and without its scale.
const unscaled = (words) =>
  BigInt.asIntN(
    128,
    words.reduceRight((sum, word) => (sum << 32n) | BigInt(word), 0n),
  );

// Arrow's own JavaScript values in words that JSON has.
const plain = (value) => {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (value instanceof Uint32Array) return String(unscaled(value));
  if (value instanceof Date) return value.toISOString();
  if (typeof value === 'object' && typeof value.toJSON === 'function') {
    const json = value.toJSON();
    if (Array.isArray(json)) return json.map(plain);
    return Object.fromEntries(Object.entries(json).map(([key, item]) => [key, plain(item)]));
  }
  return value;
};

const rows = (buffer) => {
  const table = tableFromIPC(buffer);
  const names = table.schema.fields.map((field) => field.name);
  return Array.from({ length: table.numRows }, (_, index) =>
    Object.fromEntries(names.map((name) => [name, plain(table.getChild(name).get(index))])),
  );
};

const attempt = async (step, work) => {
  try {
    show(step, rows(await work()));
  } catch (error) {
    show(step, { error: String(error.message ?? error) });
  }
};

const everything = async (host, port) => {
  const client = await createFlightSqlClient({ headers: [], tls: false, host, port });
  const query = (step, sql) => attempt(step, () => client.query(sql));
  await query('query', 'select * from demo.numbers order by n');
  await query('empty', 'select * from demo.numbers where n > 9');
  await query(
    'types',
    'select id, yes, small, big, real, double, text, bytes, four from demo.types order by id',
  );
  await query('struct', 'select "struct" from demo.types order by id');
  for (const column of ['price', 'wide', 'day', 'clock', 'at', 'at_utc', 'list', 'map']) {
    await query(column, `select ${column} from demo.types order by id`);
  }
  await query('nothing', 'select * from demo.nothing');
  await query('syntax', 'selec 1');
  await attempt('catalogs', () => client.getCatalogs());
  await attempt('schemas', () => client.getDbSchemas({ dbSchemaFilterPattern: 'de%' }));
  await attempt('tables', () => client.getTables({ dbSchemaFilterPattern: 'demo' }));
  await attempt('columns', () =>
    client.getTables({ tableNameFilterPattern: 'numbers', includeSchema: true }),
  );
};

const [mode, ...rest] = process.argv.slice(2);
if (mode === 'all') {
  await everything(rest[0], Number(rest[1]));
} else {
  for (const options of rest) {
    await attempt('connect', async () => {
      const client = await createFlightSqlClient(JSON.parse(options));
      return client.query('select 40 + 2 as answer');
    });
  }
}
