// What @streamerson/core does on the Redis at 127.0.0.1:PORT, for `messaging.rs` beside it.
//
// usage: MODULES=DIR node peer.mjs PORT worker              echoes requests
//        MODULES=DIR node peer.mjs PORT send AT_ONCE SECONDS
//        MODULES=DIR node peer.mjs PORT emit COUNT
//
// Prints `ready`, or `measured COUNT SECONDS P50_MS P99_MS`.

import { createRequire } from 'node:module';

const { StreamingDataSource, Topic, streamAwaiter } = createRequire(`${process.env.MODULES}/`)('@streamerson/core');
const [port, role, ...numbers] = process.argv.slice(2);
const silent = () => {};
const logger = { info: silent, warn: silent, debug: silent, error: console.error };
const topic = new Topic('bench');
const payload = JSON.stringify({ title: 'A title', content: 'x'.repeat(100) });
const WARM_UP = 1_000;

async function connected() {
  const source = new StreamingDataSource({ host: '127.0.0.1', port: Number(port), controllable: true, logger });
  await source.connect();
  return source;
}

function measured(begun, count, latencies = []) {
  const seconds = (performance.now() - begun) / 1e3;
  const sorted = Float64Array.from(latencies).sort();
  const at = (share) => sorted[Math.floor((sorted.length - 1) * share)] ?? 0;
  console.log('measured', count, seconds, at(0.5), at(0.99));
  process.exit(0);
}

async function worker() {
  const [reads, writes] = [await connected(), await connected()];
  const requests = reads.getReadStream({ stream: topic.consumerKey() });
  setTimeout(() => console.log('ready'), 500); // It says nothing by itself when it reads.
  for await (const request of requests) {
    writes.writeToStream(request.messageDestination, undefined, 'resp', request.messageId, JSON.stringify(request.payload), 'worker');
  }
}

async function send(atOnce, seconds) {
  const [readChannel, writeChannel] = [await connected(), await connected()];
  const streams = { incomingStream: topic.producerKey(), outgoingStream: topic.consumerKey() };
  const requester = streamAwaiter({ logger, readChannel, writeChannel, timeout: 60_000, ...streams });
  requester.readResponseStream();
  await new Promise((resolve) => setTimeout(resolve, 500));
  const run = async (goesOn) => {
    const latencies = [];
    const sending = async () => {
      while (goesOn(latencies.length)) {
        const begun = performance.now();
        await requester.dispatch(payload, 'bench', 'requester');
        latencies.push(performance.now() - begun);
      }
    };
    await Promise.all(Array.from({ length: atOnce }, sending));
    return latencies;
  };
  await run((count) => count < WARM_UP);
  const begun = performance.now();
  const latencies = await run(() => performance.now() - begun < seconds * 1e3);
  measured(begun, latencies.length, latencies);
}

async function emit(count) {
  const writes = await connected();
  const emitAll = (messages) =>
    Promise.all(Array.from({ length: messages }, (_, n) => writes.writeToStream('emitted', undefined, 'bench', String(n), payload, 'emitter')));
  await emitAll(WARM_UP);
  const begun = performance.now();
  await emitAll(count);
  measured(begun, count);
}

await { worker, send, emit }[role](...numbers.map(Number));
