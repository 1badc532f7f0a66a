"""Starts MySQL, Redis and MongoDB for a person to use, and stops them.

Below the given directory each server has a folder with its data, its log, its port and the identity of its process.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

from fetch import DATABASE, locked

# A server that does not answer by then has hung; most are ready within a second.
READY_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.02
ANSWER_TIMEOUT_SECONDS = 5
# Below the range that the kernel picks the ports of outgoing connections from: a client that tries to reach a server
# that is down can then neither take its port nor reach itself.
PORTS = range(15000, 32000)
PORT_TRIES = 1000
LOG_TAIL_LINES = 30
# The field `ok: 1.0` of an answer, as BSON.
MONGODB_OK = b"\x01ok\x00" + struct.pack("<d", 1.0)


class StartError(Exception):
    """A server did not start or stop; the message says which and why."""


@dataclass(frozen=True)
class Kind:
    """What is particular to one of the servers."""

    name: str
    variable: str
    url: str
    command: Callable[[Path, Path, int], list]
    ready: Callable[[Path], bool]


def start(root, directory):
    """Starts what does not run yet, waits until each answers, and returns the shell lines that export their URLs."""
    directory.mkdir(parents=True, exist_ok=True)
    with locked(directory / ".lock"):
        started = []
        try:
            for kind in KINDS:
                if identity(directory / kind.name) is None:
                    launch(root, kind, directory / kind.name)
                    started.append(kind)
            for kind in KINDS:
                await_ready(kind, directory / kind.name)
        except BaseException:
            for kind in started:
                stop_one(directory / kind.name)
            raise
        return [f"export {kind.variable}='{kind.url.format(port=port_of(directory / kind.name))}'" for kind in KINDS]


def stop(directory):
    """Stops the servers of `directory`, all at once, and waits until they have ended."""
    if not directory.is_dir():
        raise StartError(f"{directory} is not a directory that servers were started in")
    with locked(directory / ".lock"):
        for kind in KINDS:
            send(directory / kind.name, signal.SIGTERM)
        for kind in KINDS:
            stop_one(directory / kind.name)


def launch(root, kind, place):
    """Starts the server of `place` on the port it had before, or on a free one."""
    place.mkdir(exist_ok=True)
    before = port_of(place)
    port = before if before and is_free(before) else free_port()
    (place / "port").write_text(str(port))
    with open(place / "log", "ab") as log:
        child = subprocess.Popen(kind.command(root, place, port), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 cwd=place, start_new_session=True)
    (place / "pid").write_text(f"{child.pid} {birth(child.pid)}")


def await_ready(kind, place):
    """Waits until the server of `place` answers."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if identity(place) is None:
            raise StartError(f"{kind.name} ended at once; the end of {place / 'log'}:\n{log_tail(place)}")
        with contextlib.suppress(OSError):
            if kind.ready(place):
                return
        time.sleep(POLL_SECONDS)
    raise StartError(f"{kind.name} did not answer within {READY_TIMEOUT_SECONDS} s; the end of {place / 'log'}:\n"
                     f"{log_tail(place)}")


def stop_one(place):
    """Ends the server of `place`, by force if it does not end by itself."""
    send(place, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while identity(place) is not None:
        if time.monotonic() > deadline:
            print(f"{place.name} did not stop within {STOP_TIMEOUT_SECONDS} s and is killed", file=sys.stderr)
            send(place, signal.SIGKILL)
            deadline += STOP_TIMEOUT_SECONDS
        time.sleep(POLL_SECONDS)
    (place / "pid").unlink(missing_ok=True)


def send(place, number):
    with contextlib.suppress(ProcessLookupError):
        process = identity(place)
        if process is not None:
            os.kill(process, number)


def identity(place):
    """The process id of the server of `place`, if that very process still runs."""
    try:
        process, born = (place / "pid").read_text().split(" ", 1)
    except (OSError, ValueError):
        return None
    return int(process) if birth(int(process)) == born else None


def birth(process):
    """What no later process of the same id has: when it began, in which boot; nothing for one that has ended."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2].split()
        return None if state in "ZX" else f"{fields[18]} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    except OSError:
        return None


def port_of(place):
    with contextlib.suppress(OSError, ValueError):
        return int((place / "port").read_text())
    return None


def free_port():
    for _ in range(PORT_TRIES):
        port = random.choice(PORTS)
        if is_free(port):
            return port
    raise StartError(f"no free port in {PORTS.start}–{PORTS.stop}")


def is_free(port):
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def log_tail(place):
    return "\n".join((place / "log").read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


def mysql_command(root, place, port):
    """MySQL with its default durability, named so that nobody need look the defaults up."""
    stand_in = not (root / "bin/mysqld").exists()
    server = "mariadb" if stand_in else "mysql"
    if stand_in:
        print("WARNING: MySQL could not be fetched, MariaDB stands in for it", file=sys.stderr)
    if not (place / "data").exists():
        shutil.rmtree(place / "new", ignore_errors=True)
        shutil.copytree(root / "template" / server / "data", place / "new")
        (place / "new").rename(place / "data")
    for stale in ("mysql.sock", "mysql.sock.lock"):
        (place / "data" / stale).unlink(missing_ok=True)
    own = [] if stand_in else ["--mysqlx=OFF"]
    return [root / "bin" / ("mariadbd" if stand_in else "mysqld"), f"--datadir={place / 'data'}", f"--port={port}",
            "--bind-address=127.0.0.1", "--socket=mysql.sock", f"--pid-file={place / 'data' / 'pid'}", "--server-id=1",
            "--log-bin=binlog", "--sync-binlog=1", "--innodb-flush-log-at-trx-commit=1",
            "--innodb-buffer-pool-size=256M", "--performance-schema=OFF", *own]


def redis_command(root, place, port):
    (place / "data").mkdir(exist_ok=True)
    return [root / "bin/redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", place / "data",
            "--appendonly", "yes", "--save", ""]


def mongodb_command(root, place, port):
    (place / "data").mkdir(exist_ok=True)
    return [root / "bin/mongod", "--dbpath", place / "data", "--bind_ip", "127.0.0.1", "--port", str(port),
            "--replSet", "rs0", "--oplogSize", "256", "--wiredTigerCacheSizeGB", "0.25", "--nounixsocket", "--quiet",
            "--setParameter", "diagnosticDataCollectionEnabled=false",
            "--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100"]


def mysql_ready(place):
    """Whether MySQL greets a client: it does so when it has recovered its data."""
    with connection(port_of(place)) as client:
        return client.recv(5)[4:5] == b"\x0a"


def redis_ready(place):
    with connection(port_of(place)) as client:
        client.sendall(b"PING\r\n")
        return client.recv(16).startswith(b"+PONG")


def mongodb_ready(place):
    """Whether this one-member replica set has its primary; tells it its port where that is new to it."""
    port, configured = port_of(place), place / "configured-port"
    configuration = {"_id": "rs0", "version": 1, "members": [{"_id": 0, "host": f"127.0.0.1:{port}"}]}
    if not configured.exists():
        answer = mongodb_request(port, {"replSetInitiate": configuration, "$db": "admin"})
    elif configured.read_text() != str(port):
        answer = mongodb_request(port, {"replSetReconfig": configuration, "force": True, "$db": "admin"})
    else:
        return b"\x08isWritablePrimary\x00\x01" in mongodb_request(port, {"hello": 1, "$db": "admin"})
    if MONGODB_OK in answer or b"AlreadyInitialized" in answer:
        configured.write_text(str(port))
    return False


def mongodb_request(port, command):
    """Sends one command in MongoDB's wire protocol (OP_MSG) and returns the answer's bytes."""
    body = struct.pack("<IB", 0, 0) + bson(command)
    with connection(port) as client:
        client.sendall(struct.pack("<iiii", 16 + len(body), 1, 0, 2013) + body)
        answer = b""
        while len(answer) < 4 or len(answer) < struct.unpack("<i", answer[:4])[0]:
            more = client.recv(65536)
            if not more:
                raise ConnectionError("mongod closed the connection")
            answer += more
    return answer


def bson(document):
    """The few types of BSON that the commands above are made of."""
    fields = b""
    for name, value in document.items():
        key = name.encode() + b"\x00"
        if isinstance(value, bool):
            fields += b"\x08" + key + bytes([value])
        elif isinstance(value, int):
            fields += b"\x10" + key + struct.pack("<i", value)
        elif isinstance(value, str):
            fields += b"\x02" + key + struct.pack("<i", len(value.encode()) + 1) + value.encode() + b"\x00"
        elif isinstance(value, list):
            fields += b"\x04" + key + bson({str(index): item for index, item in enumerate(value)})
        else:
            fields += b"\x03" + key + bson(value)
    return struct.pack("<i", len(fields) + 5) + fields + b"\x00"


def connection(port):
    return socket.create_connection(("127.0.0.1", port), timeout=ANSWER_TIMEOUT_SECONDS)


KINDS = [
    Kind("mysql", "DATABASE_URL", "mysql://root@127.0.0.1:{port}/" + DATABASE, mysql_command, mysql_ready),
    Kind("redis", "REDIS_URL", "redis://127.0.0.1:{port}", redis_command, redis_ready),
    Kind("mongodb", "MONGODB_URL", "mongodb://127.0.0.1:{port}/" + DATABASE + "?directConnection=true",
         mongodb_command, mongodb_ready),
]
