"""Measures searches of a collection that stands in Postgres beside the same statement sent by psycopg, in turn, on the same
table. Needs psycopg, pgvector and numpy, the program, and a Postgres with pgvector:

    python benches/backend.py --pannier target/release/pannier --postgres URL --vectors base.f32 --queries queries.f32
"""

import argparse
import json
import os
import tempfile
import time

import numpy
import psycopg
from pgvector.psycopg import register_vector
from psycopg.types.json import Jsonb

from replicate import Server, call, send

# As the server sends them; `explain` shows its plan.
SETTINGS = ("set local hnsw.ef_search = 100; set local hnsw.iterative_scan = strict_order; "
            "set local enable_seqscan = off")
STATEMENT = ("select id, content, metadata::text, embedded, (extract(epoch from created_at) * 1000)::bigint, "
             "(extract(epoch from updated_at) * 1000)::bigint, version, null::real[], "
             "(embedding <=> $1::vector({dim}))::float8 from pannier.bench where true "
             "order by embedding <=> $1::vector({dim}) limit 10")


def fill(url, vectors):
    """Rows by COPY and the index made once they are there, as the definition of the table has it."""
    with psycopg.connect(url) as connection:
        register_vector(connection)
        index = connection.execute("select indexdef from pg_indexes where schemaname = 'pannier' "
                                   "and indexname = 'bench_embedding_idx'").fetchone()[0]
        connection.execute("drop index pannier.bench_embedding_idx")
        with connection.cursor().copy("copy pannier.bench (id, content, metadata, embedding) from stdin "
                                      "with (format binary)") as copy:
            copy.set_types(["text", "text", "jsonb", "vector"])
            for number, vector in enumerate(vectors):
                copy.write_row((f"doc-{number}", f"the text of document {number}", Jsonb({"number": number}),
                                vector / numpy.linalg.norm(vector)))
        connection.execute("set local maintenance_work_mem = '1GB'")
        began = time.monotonic()
        connection.execute(index)
        took = time.monotonic() - began
        connection.commit()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum analyze pannier.bench")
    return took


def by_psycopg(connection, cursor, vector):
    text = "[" + ",".join(map(repr, map(float, vector))) + "]"
    began = time.perf_counter()
    connection.execute(f"begin read only; {SETTINGS}")
    rows = cursor.execute(STATEMENT.format(dim=len(vector)), [text]).fetchall()
    connection.execute("commit")
    return (time.perf_counter() - began) * 1000, [row[0] for row in rows]


def by_pannier(connection, body):
    began = time.perf_counter()
    hits = send(connection, "/v1/collections/bench/search", body)["hits"]
    return (time.perf_counter() - began) * 1000, [hit["id"] for hit in hits]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pannier", required=True)
    parser.add_argument("--postgres", required=True)
    parser.add_argument("--vectors", required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--searches", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    read = lambda path, count: numpy.fromfile(path, dtype="<f4").reshape(-1, arguments.dim)[:count]
    vectors, queries = read(arguments.vectors, arguments.rows), read(arguments.queries, arguments.searches)
    with psycopg.connect(arguments.postgres, autocommit=True) as connection:
        connection.execute("create extension if not exists vector")
        connection.execute("drop schema if exists pannier cascade")
    with tempfile.TemporaryDirectory() as data:
        server = Server(arguments.pannier, data, arguments.postgres)
        try:
            http = server.connect()
            call(http, "PUT", "/v1/collections/bench", {
                "dim": arguments.dim, "backend": {"type": "postgres", "url_variable": "PANNIER_BENCH_URL"}})
            figures = {"rows": len(vectors), "index_s": round(fill(arguments.postgres, vectors), 1)}
            bodies = [json.dumps({"vector": query.tolist(), "top_k": 10}) for query in queries]
            plan = call(http, "POST", "/v1/collections/bench/search", json.loads(bodies[0]) | {"explain": True})
            figures["plan"] = [line[:60] for line in plan["explain"]["database"]]
            with psycopg.connect(arguments.postgres, autocommit=True, prepare_threshold=None,
                                 cursor_factory=psycopg.RawCursor) as direct:
                cursor = direct.cursor()
                rounds, equal = [], 0
                for number in range(arguments.rounds + 1):
                    times = {"pannier": [], "psycopg": []}
                    for body, query in zip(bodies, queries):
                        ours, found = by_pannier(http, body)
                        theirs, wanted = by_psycopg(direct, cursor, query / numpy.linalg.norm(query))
                        times["pannier"].append(ours)
                        times["psycopg"].append(theirs)
                        equal += set(found) == set(wanted)
                    if number:  # The first warms up.
                        rounds.append({name: sorted(all_of) for name, all_of in times.items()})
            for name in ("pannier", "psycopg"):
                for share, label in ((0.5, "p50"), (0.99, "p99")):
                    per_round = sorted(one[name][int(len(one[name]) * share)] for one in rounds)
                    figures[f"{name}_{label}_ms"] = round(per_round[len(per_round) // 2], 2)
            figures["same_hits"] = round(equal / len(queries) / (arguments.rounds + 1), 4)
            figures["p50_ratio"] = round(figures["pannier_p50_ms"] / figures["psycopg_p50_ms"], 2)
            print(json.dumps(figures))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
