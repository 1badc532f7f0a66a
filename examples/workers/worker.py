"""Serves `text.words` without tidelog's library: replies with the words of a text, one by one. Needs redis-py (`pip install redis`).

usage: worker.py REDIS_URL APP, such as: worker.py redis://127.0.0.1 shop. `docs/messaging.md` says what is on the wire.
"""
import json, sys, uuid
import redis

bus = redis.Redis.from_url(sys.argv[1], protocol=2, decode_responses=True, socket_timeout=60)  # Longer than a read waits.
key, group, me = f"{{{sys.argv[2]}:messages:text.words}}", "words", uuid.uuid4().hex
try: bus.xgroup_create(key, group, "0", mkstream=True)
except redis.ResponseError as error: print(error)  # It is there.
while True:
    taken = bus.xautoclaim(key, group, me, 30_000, count=10)[1]  # What others left behind.
    for _, new in bus.xreadgroup(group, me, {key: ">"}, count=10, block=1 if taken else 5000): taken += new
    for entry, fields in taken:
        message, done = json.loads(fields["message"]), bus.pipeline()
        try:
            replies = [{"data": word} for word in message["data"].split()] or [{}]  # An end mark, where there are none.
        except Exception as error:
            if "replyto" not in message: continue  # Nobody is told: it is left to the group, and taken again.
            replies = [{"type": "tidelog.error", "data": {"code": "failed", "detail": str(error)}}]
        for number, reply in enumerate(replies if "replyto" in message else [], 1):
            head = {"type": "tidelog.reply", "requestid": message["id"], "sequence": number, "last": number == len(replies)}
            done.xadd(message["replyto"], {"message": json.dumps(head | reply)}, nomkstream=True)
        if "replyto" in message: done.xdel(key, entry)
        done.xack(key, group, entry).execute()
