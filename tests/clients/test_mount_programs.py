"""Databases and mappings in mounts, and readers that go on while a server is killed or a line is cut."""

import concurrent.futures
import contextlib
import mmap
import sqlite3
import subprocess
import sys
import threading
import time

import duckdb
import pytest

from clusters import shared_bucket, started
from conftest import boto, bucket_name
from content import body
from mounts import Mounts

KIB, MIB = 1 << 10, 1 << 20
ROWS = 100_000
READERS = 8
PAUSE = 0.002


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Databases of some MiB, as their programs write them."""
    folder = tmp_path_factory.mktemp("databases")
    with contextlib.closing(sqlite3.connect(folder / "data.sqlite")) as base:
        base.execute("create table t (k integer primary key, v text, n integer)")
        base.executemany("insert into t (v, n) values (?, ?)", ((f"value {n * 7919 % ROWS}", n % 100) for n in range(ROWS)))
        base.execute("create index by_v on t (v)")
        base.commit()
    # As a program leaves it that is killed: what was written last is in the log beside it.
    writer = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('pragma journal_mode = wal'); "
    writer += "c.execute('create table w (v)'); c.execute('insert into w values (42)'); c.commit(); os._exit(0)"
    subprocess.run([sys.executable, "-c", writer, folder / "logged.sqlite"], check=True)
    assert (folder / "logged.sqlite-wal").stat().st_size > 0
    with duckdb.connect(folder / "data.duckdb") as base:
        base.execute(f"create table t as select i as k, i % 100 as n, md5(i::varchar) as v from range({ROWS}) r(i)")
        base.execute(f"copy t to '{folder}/data.parquet' (format parquet, row_group_size 10000)")
    return folder


@pytest.fixture(scope="module")
def databases(http_server, source, tmp_path_factory):
    """Their mount."""
    s3, bucket = boto(http_server), bucket_name("programs")
    s3.create_bucket(Bucket=bucket)
    for path in source.iterdir():
        s3.upload_file(str(path), bucket, path.name)
    mounts = Mounts(tmp_path_factory.mktemp("programs"), http_server)
    try:
        yield mounts, mounts.mount(bucket)
    finally:
        mounts.end()


@pytest.mark.parametrize("how", ["mode=ro", "mode=ro&immutable=1"])
def test_sqlite(databases, source, how):
    _, at = databases
    question = "select count(*), sum(n), min(v), max(v) from t where v > 'value 5'"
    with contextlib.closing(sqlite3.connect(source / "data.sqlite")) as base:
        expected = base.execute(question).fetchone()
    with contextlib.closing(sqlite3.connect(f"file:{at}/data.sqlite?{how}", uri=True)) as base:
        base.execute("pragma mmap_size = 1073741824")
        assert base.execute(question).fetchone() == expected
        assert base.execute("select k from t where v = 'value 7919'").fetchone() == (2,)
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            base.execute("insert into t (v) values ('new')")


def test_sqlite_without_asking_to_read_only(databases):
    """A program that opens a database to write reads it all the same, and hears why it cannot write."""
    _, at = databases
    with contextlib.closing(sqlite3.connect(at / "data.sqlite")) as base:
        assert base.execute("select count(*) from t").fetchone() == (ROWS,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            base.execute("delete from t")


def test_sqlite_with_a_log_beside_it(databases):
    """What is only in the log is read from there, though nothing can be made beside it; `immutable` leaves it out."""
    _, at = databases
    with contextlib.closing(sqlite3.connect(f"file:{at}/logged.sqlite?mode=ro", uri=True)) as base:
        assert base.execute("select v from w").fetchall() == [(42,)]
    with contextlib.closing(sqlite3.connect(f"file:{at}/logged.sqlite?mode=ro&immutable=1", uri=True)) as base:
        assert base.execute("select count(*) from sqlite_schema").fetchone() == (0,)


def test_duckdb(databases, source):
    _, at = databases
    question = "select count(*), sum(n), min(v), max(v) from {} where k % 7 = 3"
    with duckdb.connect() as base:
        expected = base.execute(question.format(f"'{source}/data.parquet'")).fetchone()
        assert base.execute(question.format(f"'{at}/data.parquet'")).fetchone() == expected
        base.execute(f"attach '{at}/data.duckdb' as attached (read_only)")
        assert base.execute(question.format("attached.t")).fetchone() == expected
    with duckdb.connect(at / "data.duckdb", read_only=True) as base:
        assert base.execute("select v from t where k = 99999").fetchone() == ("d3eb9a9233e52948740d7eb8c3062d14",)
    with pytest.raises(duckdb.Error, match="Read-only file system"):
        duckdb.connect(at / "data.duckdb")


def test_a_question_fetches_what_it_needs(databases, source, tmp_path):
    """Of a database, what a look-up in its index reads; of a parquet file, the columns that are asked for."""
    mounts, at = databases
    other = mounts.mount(f"{mounts.record['bucket']}@{mounts.record['number']}", "--copy-bodies", cache=tmp_path / "cold")
    with contextlib.closing(sqlite3.connect(f"file:{other}/data.sqlite?mode=ro&immutable=1", uri=True)) as base:
        assert base.execute("select n from t where v = 'value 7919'").fetchone() == (1,)
    fetched, size = mounts.counters(other)["body_bytes"], (source / "data.sqlite").stat().st_size
    print(f"\none row of {size} bytes: {fetched} fetched")
    assert fetched < size / 2


def test_mappings(databases, source):
    """Readers that share a mapping, jump in it and keep it when the file was closed."""
    _, at = databases
    twin = (source / "data.sqlite").read_bytes()

    def read(reader):
        with open(at / "data.sqlite", "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        with mapped:
            mapped.madvise([mmap.MADV_RANDOM, mmap.MADV_SEQUENTIAL, mmap.MADV_WILLNEED][reader % 3])
            places = [(reader * 7919 + step * 104_729) % (len(twin) - 5000) for step in range(200)]
            return all(mapped[place : place + 5000] == twin[place : place + 5000] for place in places)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert all(pool.map(read, range(16)))


# Trouble while reading.


def reading_through(at, content, disturb):
    """Readers of one cold file, each from another place, while something is disturbed; nobody may notice."""
    done = threading.Event()

    def read(reader):
        with open(at, "rb", buffering=0) as file:
            begin = reader * len(content) // READERS
            for start, end in ((begin, len(content)), (0, begin)):
                file.seek(start)
                while start < end:
                    # Slow enough for something to happen meanwhile.
                    time.sleep(PAUSE)
                    piece = file.read(min(256 * KIB, end - start))
                    assert piece and piece == content[start : start + len(piece)], (reader, start)
                    start += len(piece)
        return True

    with concurrent.futures.ThreadPoolExecutor(READERS + 1) as pool:
        disturbing = pool.submit(disturb, done)
        try:
            reads = [pool.submit(read, reader) for reader in range(READERS)]
            assert all(read.result() for read in reads)
        finally:
            done.set()
        disturbing.result()


def test_readers_outlive_kills_of_the_server(own_server, tmp_path):
    own_server.start()
    mounts, content, kills = Mounts(tmp_path, own_server), body("killed", 160 * MIB), []
    try:
        boto(own_server).create_bucket(Bucket="killed")
        boto(own_server).put_object(Bucket="killed", Key="f", Body=content)
        at = mounts.mount("killed", "--copy-bodies", "--deadline", "60s")

        def disturb(done):
            while not done.is_set() and len(kills) < 6:
                fetched = mounts.counters(at)["body_bytes"]
                if fetched > (kills[-1] if kills else 0):
                    own_server.kill()
                    kills.append(fetched)
                    done.wait(0.1)
                    own_server.start()

        reading_through(at / "f", content, disturb)
        print(f"\n{len(kills)} kills, with {kills} bytes fetched before each")
        assert sum(0 < fetched < len(content) for fetched in kills) > 1
        assert mounts.counters(at)["damaged"] == 0
        # What was fetched twice is what was under way.
        assert mounts.counters(at)["body_bytes"] < 2 * len(content)
    finally:
        mounts.end()


def test_readers_outlive_cuts_between_clusters(tmp_path):
    content = body("cut", 48 * MIB)
    with started(tmp_path, "home", "member") as clusters:
        home, member = clusters.all["home"], clusters.all["member"]
        bucket, line = shared_bucket(home, member), clusters.line(home, member)
        with home.raw() as raw:
            assert raw.put(bucket, "f", content).status == 200
        mounts, cuts = Mounts(tmp_path, member), []
        try:
            at = mounts.mount(bucket, "--deadline", "60s")
            line.rate = 16 * MIB

            def disturb(done):
                while not done.is_set() and len(cuts) < 8:
                    with line.away():
                        cuts.append(mounts.counters(at)["body_bytes"])
                        done.wait(0.2)
                    done.wait(0.4)

            with member.counting() as crossed:
                reading_through(at / "f", content, disturb)
            print(f"\n{len(cuts)} cuts, with {cuts} bytes fetched before each; {crossed()}")
            assert sum(0 < fetched < len(content) for fetched in cuts) > 1 and mounts.counters(at)["damaged"] == 0
            assert crossed().payload_received < 1.5 * len(content), "what had arrived does not come again"
        finally:
            mounts.end()
