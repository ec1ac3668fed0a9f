// Trades at a sandbox with Zerodha's and a Binance client for JavaScript, and prints what they saw as one line of JSON.
// usage: node trade.mjs '<the line that the sandbox printed>'
import { createRequire } from 'node:module';
const require = createRequire(process.cwd() + '/');
const { KiteConnect, KiteTicker } = require('kiteconnect');
const { default: Binance } = require('binance-api-node');

const where = JSON.parse(process.argv[2]);
const share = process.argv[3];
const seen = { kite: {}, binance: {} };

async function atZerodha() {
  const kite = new KiteConnect({ api_key: where.kite.api_key, root: where.kite.root });
  const session = await kite.generateSession(where.kite.request_token, where.kite.api_secret);
  kite.setAccessToken(session.access_token);
  const instruments = await kite.getInstruments('NSE');
  const token = Number(instruments.find((each) => each.tradingsymbol === share).instrument_token);
  const ticker = new KiteTicker({ api_key: where.kite.api_key, access_token: session.access_token, root: where.kite.ws + '/' });
  const updates = [];
  const ticked = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error('no tick within 30 s')), 30000).unref();
    ticker.on('ticks', (ticks) => ticks[0].mode === 'full' && resolve(ticks[0]));
    ticker.on('order_update', (order) => updates.push(order.status));
    ticker.on('connect', () => { ticker.subscribe([token]); ticker.setMode(ticker.modeFull, [token]); });
  });
  ticker.connect();
  const tick = await ticked;
  seen.kite.tick = { mode: tick.mode, token: tick.instrument_token === token, price: tick.last_price, depth: tick.depth.buy.length };
  const order = { exchange: 'NSE', tradingsymbol: share, transaction_type: 'BUY', quantity: 2, product: 'CNC' };
  const bought = await kite.placeOrder('regular', { ...order, order_type: 'MARKET', market_protection: -1, tag: 'JS1' });
  const resting = await kite.placeOrder('regular', { ...order, order_type: 'LIMIT', price: tick.lower_circuit_limit ?? Math.round(tick.last_price * 0.95), tag: 'JS2' });
  await kite.cancelOrder('regular', resting.order_id);
  const rows = await kite.getOrders();
  seen.kite.orders = Object.fromEntries(rows.filter((row) => row.tag || (row.tags || []).length).map((row) => [row.tag ?? row.tags[0], row.status]));
  seen.kite.filled = (await kite.getOrderTrades(bought.order_id)).reduce((sum, trade) => sum + trade.quantity, 0);
  seen.kite.position = (await kite.getPositions()).net.find((row) => row.tradingsymbol === share).quantity;
  seen.kite.refused = await kite.placeOrder('regular', { ...order, order_type: 'MARKET' }).then(() => 'accepted', (error) => error.error_type);
  seen.kite.updates = updates;
}

async function atBinance() {
  const client = Binance({ apiKey: where.binance.api_key, apiSecret: where.binance.api_secret, httpBase: where.binance.rest, wsBase: where.binance.ws + '/ws' });
  const pair = 'BTCUSDT';
  const info = await client.exchangeInfo();
  seen.binance.listed = info.symbols.some((each) => each.symbol === pair);
  const order = await client.order({ symbol: pair, side: 'BUY', type: 'MARKET', quantity: '0.01' });
  seen.binance.status = order.status;
  const resting = await client.order({ symbol: pair, side: 'BUY', type: 'LIMIT', quantity: '0.01', price: '30000', newClientOrderId: 'js_rests' });
  seen.binance.open = (await client.openOrders({ symbol: pair })).map((each) => each.clientOrderId);
  seen.binance.cancelled = (await client.cancelOrder({ symbol: pair, orderId: resting.orderId })).status;
  seen.binance.bought = (await client.myTrades({ symbol: pair })).reduce((sum, trade) => sum + Number(trade.qty), 0);
  seen.binance.refused = await client.order({ symbol: pair, side: 'BUY', type: 'MARKET', quantity: '0.0000001' }).then(() => 'accepted', (error) => error.code);
}

await atZerodha();
await atBinance();
console.log(JSON.stringify(seen));
process.exit(0);
