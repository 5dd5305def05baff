"""rclone as PyPI has it now, provider Other: list v1, un-encoded keys, path style."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from conftest import bucket_name, parameter
from content import digest, digests, source_tree, write

RCLONE = f"{sys.prefix}/bin/rclone"


def environment(server, tmp_path) -> dict[str, str]:
    (tmp_path / "rclone.conf").touch()
    env = server.client_env(
        RCLONE_CONFIG=str(tmp_path / "rclone.conf"),
        RCLONE_CONFIG_E_TYPE="s3",
        RCLONE_CONFIG_E_PROVIDER="Other",
        RCLONE_CONFIG_E_ENV_AUTH="true",
        RCLONE_CONFIG_E_ENDPOINT=server.endpoint,
        RCLONE_RETRIES="1",
        RCLONE_LOW_LEVEL_RETRIES="1",
        RCLONE_TRANSFERS="16",
        RCLONE_CHECKERS="16",
    )
    if server.tls:
        env["RCLONE_CA_CERT"] = str(server.certificate)
    return env


def rclone(server, tmp_path, *arguments, check=True, stdin=subprocess.DEVNULL):
    done = subprocess.run(
        [RCLONE, *map(str, arguments)],
        env=environment(server, tmp_path),
        capture_output=True,
        text=True,
        timeout=280,
        stdin=stdin,
    )
    if check:
        assert done.returncode == 0, (
            f"rclone {arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    return done


@pytest.fixture
def remote(server, tmp_path):
    name = bucket_name("rclone")
    rclone(server, tmp_path, "mkdir", f"e:{name}")
    return f"e:{name}"


def test_source_tree_both_ways(http_server, tmp_path):
    remote = f"e:{bucket_name('rclone-tree')}"
    there, back = tmp_path / "there", tmp_path / "back"
    source_tree(there, parameter("RCLONE_FILES", 20_000))
    rclone(http_server, tmp_path, "sync", there, remote)
    rclone(http_server, tmp_path, "sync", remote, back)
    assert digests(back) == digests(there)
    # Nothing has changed, so nothing is sent; what has, is, and what is gone goes.
    again = rclone(http_server, tmp_path, "sync", there, remote, "--stats-log-level", "NOTICE", "--stats", "1s").stderr
    assert "Transferred:   \t          0 B / 0 B" in again, again[-500:]
    shutil.rmtree(sorted(there.iterdir())[0])
    (there / "added").write_text("added")
    rclone(http_server, tmp_path, "sync", there, remote)
    rclone(http_server, tmp_path, "check", there, remote)
    count = json.loads(rclone(http_server, tmp_path, "size", "--json", remote).stdout)["count"]
    assert count == len(digests(there))
    rclone(http_server, tmp_path, "purge", remote)


def test_check_by_download(server, tmp_path, remote):
    """`check --download` reads every byte of both sides."""
    tree = tmp_path / "tree"
    for name, size in (
        ("empty", 0),
        ("small", 10),
        ("sub/dir/a b+c%d&e", 70_000),
        ("sub/ü😀", 300_000),
        ("large", 12_000_000),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        write(tree / name, name, size)
    rclone(server, tmp_path, "copy", tree, remote, "--s3-upload-cutoff", "5M", "--s3-chunk-size", "5M")
    rclone(server, tmp_path, "check", "--download", tree, remote)
    (tree / "small").write_text("9876543210")
    assert rclone(server, tmp_path, "check", "--download", tree, remote, check=False).returncode == 1


def test_directory_markers(server, tmp_path, remote):
    """An empty folder is an object with a slash at its end."""
    (tmp_path / "tree/empty/deep").mkdir(parents=True)
    (tmp_path / "tree/file").write_text("x")
    rclone(server, tmp_path, "sync", tmp_path / "tree", remote, "--s3-directory-markers", "--create-empty-src-dirs")
    folders = rclone(server, tmp_path, "lsf", "-R", "--dirs-only", remote, "--s3-directory-markers").stdout.split()
    assert sorted(folders) == ["empty/", "empty/deep/"]
    rclone(server, tmp_path, "sync", remote, tmp_path / "back", "--s3-directory-markers", "--create-empty-src-dirs")
    assert (tmp_path / "back/empty/deep").is_dir() and (tmp_path / "back/file").read_text() == "x"
    rclone(server, tmp_path, "rmdirs", "--leave-root", remote, "--s3-directory-markers")
    assert "empty" not in rclone(server, tmp_path, "lsf", "-R", remote, "--s3-directory-markers").stdout


def test_copies_on_the_server(server, tmp_path, remote):
    """Copy and move without the bytes leaving, whole and in parts."""
    source = write(tmp_path / "file", "copies", 12_000_000)
    rclone(server, tmp_path, "copyto", source, f"{remote}/a/file")
    rclone(server, tmp_path, "copyto", f"{remote}/a/file", f"{remote}/b/whole")
    rclone(
        server,
        tmp_path,
        "copyto",
        f"{remote}/a/file",
        f"{remote}/b/parts",
        "--s3-copy-cutoff",
        "5M",
        "--s3-upload-cutoff",
        "5M",
    )
    rclone(server, tmp_path, "moveto", f"{remote}/a/file", f"{remote}/c/moved")
    for name in ("b/whole", "b/parts", "c/moved"):
        rclone(server, tmp_path, "copyto", f"{remote}/{name}", tmp_path / "back", "--ignore-times")
        assert digest(tmp_path / "back") == digest(source), name
    assert "a/" not in rclone(server, tmp_path, "lsf", remote).stdout


def test_times_and_metadata(server, tmp_path, remote):
    source = write(tmp_path / "file", "times", 100)
    os.utime(source, (1_600_000_000, 1_600_000_000))
    rclone(server, tmp_path, "copy", source, remote, "--metadata")
    rclone(server, tmp_path, "copy", f"{remote}/file", tmp_path / "back", "--metadata")
    assert (tmp_path / "back/file").stat().st_mtime == 1_600_000_000
    # Setting a time is a copy onto itself.
    rclone(server, tmp_path, "touch", "--timestamp", "2001-02-03T04:05:06", f"{remote}/file", "--no-create")
    assert "2001-02-03 " in rclone(server, tmp_path, "lsl", f"{remote}/file").stdout


def test_versions_and_the_past(server, tmp_path, remote):
    rclone(server, tmp_path, "backend", "versioning", remote, "Enabled")
    for text in ("one", "two"):
        (tmp_path / "file").write_text(text)
        rclone(server, tmp_path, "copy", tmp_path / "file", remote, "--ignore-times")
    assert len(rclone(server, tmp_path, "lsf", "--s3-versions", remote).stdout.splitlines()) == 2
    rclone(server, tmp_path, "delete", remote)
    assert rclone(server, tmp_path, "lsf", remote).stdout == ""
    listed = json.loads(rclone(server, tmp_path, "lsjson", "--s3-versions", remote).stdout)
    assert len(listed) == 2


def test_stream_of_unknown_length(server, tmp_path, remote):
    source = write(tmp_path / "file", "rcat", 8_000_000)
    with open(source, "rb") as pipe:
        rclone(server, tmp_path, "rcat", f"{remote}/piped", stdin=pipe)
    rclone(server, tmp_path, "copyto", f"{remote}/piped", tmp_path / "back")
    assert digest(tmp_path / "back") == digest(source)
