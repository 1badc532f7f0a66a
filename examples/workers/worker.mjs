// Serves `text.words` without tidelog's library: replies with the words of a text, one by one. Needs node-redis (`npm install redis`).
//
// usage: node worker.mjs REDIS_URL APP, such as: node worker.mjs redis://127.0.0.1 shop. `docs/messaging.md` says what is on the wire.
import { randomUUID } from 'node:crypto';
import { createClient } from 'redis';

const [url, app] = process.argv.slice(2);
const bus = await createClient({ url }).connect();
const [key, group, me] = [`{${app}:messages:text.words}`, 'words', randomUUID()];
await bus.xGroupCreate(key, group, '0', { MKSTREAM: true }).catch(({ message }) => console.log(message)); // It is there.
for (;;) {
  const { messages: taken } = await bus.xAutoClaim(key, group, me, 30_000, '0', { COUNT: 10 }); // What others left behind.
  const read = await bus.xReadGroup(group, me, { key, id: '>' }, { COUNT: 10, BLOCK: taken.length ? 1 : 5000 });
  for (const { id, message: fields } of [...taken, ...(read?.[0].messages ?? [])]) {
    const [message, done] = [JSON.parse(fields.message), bus.multi()];
    let replies;
    try {
      replies = message.data.split(/\s+/).filter(Boolean).map((data) => ({ data }));
      if (!replies.length) replies = [{}]; // An end mark.
    } catch (error) {
      if (!message.replyto) continue; // Nobody is told: it is left to the group, and taken again.
      replies = [{ type: 'tidelog.error', data: { code: 'failed', detail: error.message } }];
    }
    for (const [index, reply] of (message.replyto ? replies : []).entries()) {
      const head = { type: 'tidelog.reply', requestid: message.id, sequence: index + 1, last: index + 1 === replies.length };
      done.xAdd(message.replyto, '*', { message: JSON.stringify({ ...head, ...reply }) }, { NOMKSTREAM: true });
    }
    await (message.replyto ? done.xDel(key, id) : done).xAck(key, group, id).exec();
  }
}
