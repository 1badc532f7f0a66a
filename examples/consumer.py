"""Follows the events of an app: over Redis while it brings them, from the command service's feed where it does not.

usage: consumer.py REDIS_URL COMMAND_URL, such as: consumer.py redis://127.0.0.1 http://127.0.0.1:3000

Needs redis-py (`pip install redis`). `docs/wire-format.md` says what is on the bus.
"""

import json, sys
from urllib.request import urlopen
import redis

bus = redis.Redis.from_url(sys.argv[1], protocol=2, socket_timeout=60)  # Longer than a read waits.
feed = f"{sys.argv[2]}/events"
log = json.load(urlopen(f"{feed}/heads"))["data"]
stream, last, after = f"{{{log['app']}:events}}:{log['history']}", [0] * len(log["heads"]), [""] * len(log["heads"])

def handle(event):
    partition, position, event_id = event["partition"], int(event["position"]), event["id"]
    print(partition, position, event_id, event["type"], event["subject"], flush=True)
    last[partition], after[partition] = position, f"&after=1.{log['history']}.{partition}-{position}-{event_id.replace('-', '')}"

def read_feed(partition):
    while events := json.load(urlopen(f"{feed}?partition={partition}{after[partition]}"))["data"]:
        for event in events: handle(event)

while True:
    found = bus.xread({f"{stream}:{partition}": f"{position}-0" for partition, position in enumerate(last)}, block=5000)
    for event in (json.loads(fields[b"event"]) for _, entries in found for _, fields in entries):
        if int(event["position"]) > last[event["partition"]] + 1:
            read_feed(event["partition"])  # The bus has lost what is between.
        elif int(event["position"]) > last[event["partition"]]:
            handle(event)
    for partition in () if found else range(len(last)):
        read_feed(partition)  # The bus may have lost the end.
