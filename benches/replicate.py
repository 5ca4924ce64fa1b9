"""Measures a copy in Postgres: rows/s of the first scan against a hand-written COPY loader, lag while writes go on,
and the time to compare. Needs psycopg, pgvector and numpy, the program, and a Postgres with pgvector:

    python benches/replicate.py --pannier target/release/pannier --postgres URL --vectors base.f32 --dim 384 --rows 100000

With --waiting 1000000 it measures memory instead, while so many changes wait for a database that cannot be reached.
"""

import argparse
import datetime
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time

import numpy
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

TABLE = """create table {} (id text primary key, content text, metadata jsonb not null default '{{}}',
    embedding vector({}), model text, created_at timestamptz not null, updated_at timestamptz not null, seq bigint not null)"""
COLUMNS = "id, content, metadata, embedding, model, created_at, updated_at, seq"
TYPES = ["text", "text", "jsonb", "vector", "text", "timestamptz", "timestamptz", "int8"]


class Server:
    def __init__(self, pannier, data, url, flags=()):
        environment = dict(os.environ, PANNIER_BENCH_URL=url)
        self.process = subprocess.Popen(
            [pannier, "--data", data, "--json", "serve", "--addr", "127.0.0.1:0", *flags],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
        self.address = json.loads(self.process.stdout.readline())["address"].removeprefix("http://")

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=600)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def call(connection, method, path, body=None):
    return send(connection, path, json.dumps(body) if body is not None else None, method)


def send(connection, path, text, method="POST"):
    if time.monotonic() - getattr(connection, "used", 0) > 5:
        connection.close()  # The server closes what rests; the next request connects again.
    connection.request(method, path, text, {"content-type": "application/json"} if text is not None else {})
    answer = connection.getresponse()
    told = answer.read()
    connection.used = time.monotonic()
    if answer.status >= 300:
        raise RuntimeError(f"{method} {path}: {answer.status} {told[:500]}")
    return json.loads(told)


def document(number, vector):
    return {"id": f"doc-{number}", "text": f"the text of document {number}, as long as a short product name",
            "vector": vector.tolist(), "metadata": {"number": number, "group": number % 10, "name": f"name {number}"}}


def status(connection, name="bench"):
    return call(connection, "GET", f"/admin/replication/{name}")["copies"][0]


def load(connection, vectors):
    call(connection, "PUT", "/v1/collections/bench", {"dim": vectors.shape[1]})
    for first in range(0, len(vectors), 1000):
        documents = [document(first + n, vector) for n, vector in enumerate(vectors[first:first + 1000])]
        call(connection, "POST", "/v1/collections/bench/documents", {"documents": documents})


def scan(connection, url, rows):
    """Rows/s of the first scan into a new table, without the index."""
    if call(connection, "GET", "/admin/replication")["sinks"]:
        call(connection, "DELETE", "/admin/replication/bench")
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("drop schema if exists pannier cascade")
    began = time.monotonic()
    call(connection, "POST", "/admin/replication", {
        "name": "bench", "collection": "bench", "url_variable": "PANNIER_BENCH_URL", "index": "none"})
    while True:
        copies = call(connection, "GET", "/admin/replication/bench")["copies"]
        if copies and copies[0]["phase"] == "streaming":
            return rows / (time.monotonic() - began)
        time.sleep(0.01)


def copy_loader(url, vectors):
    """Rows/s of COPY in binary form, one transaction, rows made from what is in memory."""
    now = datetime.datetime.now(datetime.timezone.utc)
    with psycopg.connect(url) as connection:
        register_vector(connection)
        connection.execute("drop table if exists by_hand")
        connection.execute(TABLE.format("by_hand", vectors.shape[1]))
        connection.commit()
        began = time.monotonic()
        with connection.cursor().copy(f"copy by_hand ({COLUMNS}) from stdin with (format binary)") as copy:
            copy.set_types(TYPES)
            for number, vector in enumerate(vectors):
                copy.write_row((f"doc-{number}", f"the text of document {number}, as long as a short product name",
                                Jsonb({"number": number, "group": number % 10, "name": f"name {number}"}), vector, None,
                                now, now, number))
        connection.commit()
        return len(vectors) / (time.monotonic() - began)


def lag(server, vectors, per_second, seconds, writers=10):
    """Milliseconds from the answer to a write until the copy has it."""
    bodies = [json.dumps({"documents": [document(n, vector)]}) for n, vector in enumerate(vectors[:5_000])]
    acknowledged, lags, lock, done = {}, [], threading.Lock(), threading.Event()

    def write(writer):
        connection = server.connect()
        interval = writers / per_second
        due = time.monotonic() + interval * writer / writers
        end = time.monotonic() + seconds
        number = writer
        while time.monotonic() < end:
            time.sleep(max(0.0, due - time.monotonic()))
            due += interval
            seq = send(connection, "/v1/collections/bench/documents", bodies[number % len(bodies)])["seq"]
            with lock:
                acknowledged[seq] = time.monotonic()
            number += writers

    def watch():
        connection = server.connect()
        while not (done.is_set() and not acknowledged):
            cursor, now = status(connection)["cursor"], time.monotonic()
            with lock:
                for seq in [seq for seq in acknowledged if seq <= cursor]:
                    lags.append((now - acknowledged.pop(seq)) * 1000)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    began = time.monotonic()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    took = time.monotonic() - began
    done.set()
    watcher.join()
    return lags, len(lags) / took


def waiting(arguments, vectors, with_sink):
    """MiB of anonymous memory while changes wait that no database takes, and while it takes them at last. The documents
    of `vectors` are written over and over, so that what grows is what waits."""
    figures = {}
    with tempfile.TemporaryDirectory() as data:
        flags = ["--copies-log-mib", str(arguments.copies_log_mib)]
        server = Server(arguments.pannier, data, arguments.postgres, flags)
        url_file = os.path.join(data, "url")
        try:
            connection = server.connect()
            load(connection, vectors)
            if with_sink:
                with open(url_file, "w") as file:
                    file.write(arguments.postgres)
                call(connection, "POST", "/admin/replication", {
                    "name": "bench", "collection": "bench", "url_file": url_file, "index": "none"})
                wait_for(connection, lambda copy: copy["phase"] == "streaming")
                with open(url_file, "w") as file:
                    file.write("postgres://postgres@127.0.0.1:1/postgres?sslmode=disable")
                with psycopg.connect(arguments.postgres, autocommit=True) as database:
                    database.execute("select pg_terminate_backend(pid) from pg_stat_activity "
                                     "where application_name = 'pannier'")
                # A sink that rests learns of it at the next change.
                call(connection, "POST", "/v1/collections/bench/documents", {"documents": [document(0, vectors[0])]})
                wait_for(connection, lambda copy: copy["phase"] == "waiting")
            step = 100
            bodies = [json.dumps({"documents": [document(first + n, vector)
                                                for n, vector in enumerate(vectors[first:first + step])]})
                      for first in range(0, len(vectors), step)]
            began = time.monotonic()
            for number in range(0, arguments.waiting + 1, step):
                if number % (arguments.waiting // 4) == 0:
                    figures[str(number)] = memory(server.process)
                if number < arguments.waiting:
                    send(connection, "/v1/collections/bench/documents", bodies[number // step % len(bodies)])
            figures["changes_per_second"] = round(arguments.waiting / (time.monotonic() - began))
            if with_sink:
                figures["lag_seqs"], figures["lag_seconds"] = (status(connection)[name] for name in
                                                               ("lag_seqs", "lag_seconds"))
                with open(url_file, "w") as file:
                    file.write(arguments.postgres)
                call(connection, "POST", "/admin/replication/bench/resume")
                began, peak = time.monotonic(), [0]
                wait_for(connection, lambda copy: peak.append(memory(server.process))
                         or copy["phase"] == "streaming" and copy["lag_seqs"] == 0)
                figures["while_catching_up"], figures["caught_up_in_s"] = max(peak), round(time.monotonic() - began, 1)
                figures["scans"] = status(connection)["scans"]
                figures["equal"] = call(connection, "POST", "/admin/replication/bench/verify")["equal"]
        finally:
            server.stop()
    return figures


def wait_for(connection, wanted):
    while True:
        copies = call(connection, "GET", "/admin/replication/bench")["copies"]
        if copies and wanted(copies[0]):
            return
        time.sleep(0.05)


def memory(process):
    with open(f"/proc/{process.pid}/status") as lines:
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pannier", required=True)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--writes-per-second", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--waiting", type=int, default=0)
    parser.add_argument("--copies-log-mib", type=int, default=1_024)
    arguments = parser.parse_args()
    vectors = numpy.fromfile(arguments.vectors, dtype="<f4").reshape(-1, arguments.dim)[:arguments.rows]
    with psycopg.connect(arguments.postgres, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute("drop schema if exists pannier cascade")
    if arguments.waiting:
        figures = {"rows": len(vectors), "without_sink_mib": waiting(arguments, vectors, False),
                   "with_sink_mib": waiting(arguments, vectors, True)}
    else:
        figures = measure(arguments, vectors)
    print(json.dumps(figures))


def measure(arguments, vectors):
    """Scans and loads in turn, then a comparison, then writes."""
    with tempfile.TemporaryDirectory() as data:
        server = Server(arguments.pannier, data, arguments.postgres)
        try:
            connection = server.connect()
            load(connection, vectors)
            figures, by_hand, scans = {"rows": len(vectors)}, [], []
            for _ in range(arguments.rounds):
                by_hand.append(copy_loader(arguments.postgres, vectors))
                scans.append(scan(connection, arguments.postgres, len(vectors)))
            figures["scan_rows_per_second"] = [round(rate) for rate in scans]
            figures["copy_loader_rows_per_second"] = [round(rate) for rate in by_hand]
            figures["scan_over_copy_loader"] = round(statistics.median(scans) / statistics.median(by_hand), 2)
            compared = [call(connection, "POST", "/admin/replication/bench/verify") for _ in range(arguments.rounds)]
            figures["verify_ms"] = [one["copies"][0]["took_ms"] for one in compared]
            figures["equal"] = all(one["equal"] for one in compared)
            lags, rate = lag(server, vectors, arguments.writes_per_second, arguments.seconds)
            lags.sort()
            figures["writes_per_second"] = round(rate)
            figures["lag_ms"] = {name: round(lags[int(len(lags) * part)]) for name, part in
                                 [("p50", 0.5), ("p99", 0.99)]} | {"max": round(lags[-1])}
            compared = call(connection, "POST", "/admin/replication/bench/verify")
            figures["equal_after_writes"] = compared["equal"]
            figures["anonymous_mib"] = memory(server.process)
            return figures
        finally:
            server.stop()


if __name__ == "__main__":
    main()
