"""Follows the events of an app: over Redis while it brings them, from the command service's feed where it does not.

usage: consumer.py APP REDIS_URL COMMAND_URL PARTITIONS, such as: consumer.py tidelog redis://127.0.0.1 http://127.0.0.1:3000 16

Needs redis-py (`pip install redis`). `docs/wire-format.md` says what is on the bus.
"""

import json
import sys
from urllib.request import urlopen

import redis

app, redis_url, command_url, partitions = sys.argv[1:]
position = dict.fromkeys(range(int(partitions)), 0)  # Of the last event that was handled, by partition.
cursor = {}  # The feed's cursor after it.


def handle(event):
    print(event["partition"], event["position"], event["id"], event["type"], event["subject"], flush=True)
    position[event["partition"]] = int(event["position"])


def read_feed(partition):
    page = {"data": "unknown"}
    while page["data"]:
        after = f"&after={cursor[partition]}" if partition in cursor else ""
        page = json.load(urlopen(f"{command_url}/events?partition={partition}{after}"))
        for event in page["data"]:
            handle(event)
        cursor[partition] = page["next"]


for partition in position:
    read_feed(partition)
history = cursor[0].split(".")[1]
bus = redis.Redis.from_url(redis_url, protocol=2)
while True:
    streams = {f"{{{app}:events}}:{history}:{partition}": f"{last}-0" for partition, last in position.items()}
    found = bus.xread(streams, count=100, block=5000)
    for event in (json.loads(fields[b"event"]) for _, entries in found for _, fields in entries):
        partition, this, last = event["partition"], int(event["position"]), position[event["partition"]]
        if this == last + 1:
            handle(event)
            cursor[partition] = f"1.{history}.{partition}-{this}-{event['id'].replace('-', '')}"
        elif this > last:
            read_feed(partition)  # The bus has lost what is between.
    for partition in () if found else position:
        read_feed(partition)  # It may have lost the end.
