// Trades by symbol in Node.js: npm install @lakehouse-rs/flight-sql-client apache-arrow@14
import { createFlightSqlClient } from '@lakehouse-rs/flight-sql-client';
import { tableFromIPC } from 'apache-arrow';

const { hostname: host, port } = new URL(process.env.URI ?? 'grpc://127.0.0.1:32010');
const client = await createFlightSqlClient({ headers: [], tls: false, host, port: Number(port) });
const buffer = await client.query(
  'select symbol, count(*) as trades from market_data.trades group by symbol order by symbol',
);
for (const row of tableFromIPC(buffer)) console.log(row.symbol, Number(row.trades));
