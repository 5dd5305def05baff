"""The AWS command line, version 1, as PyPI has it now."""

import json
import subprocess
import sys
import urllib.request

import pytest

from conftest import bucket_name, parameter
from content import digest, digests, source_tree, write

AWS = [sys.executable, "-m", "awscli"]


def aws(server, *arguments, check=True, timeout=900):
    done = subprocess.run(
        [*AWS, *map(str, arguments)],
        env=server.client_env(),
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    if check:
        assert done.returncode == 0, f"aws {arguments}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done


def make_bucket(server) -> str:
    name = bucket_name("aws")
    aws(server, "s3", "mb", f"s3://{name}")
    return name


@pytest.fixture
def home(server):
    return make_bucket(server)


@pytest.mark.timeout(1800)
def test_source_tree_both_ways(http_server, tmp_path):
    """Tens of thousands of files there and back again, byte for byte; what has not changed is not sent again."""
    name = make_bucket(http_server)
    there, back = tmp_path / "there", tmp_path / "back"
    source_tree(there, parameter("AWS_FILES", 10_000))
    expected = digests(there)
    sync = lambda source, target, *options: aws(http_server, "s3", "sync", source, target, *options).stdout
    sync(there, f"s3://{name}", "--only-show-errors")
    sync(f"s3://{name}", back, "--only-show-errors")
    assert digests(back) == expected
    victim = min(expected)
    (there / victim).write_text("changed, and longer or shorter than before")
    (there / "added").write_text("added")
    assert sync(there, f"s3://{name}", "--no-progress").count("upload: ") == 2
    # Deleting goes one by one: a folder will do.
    aws(http_server, "s3", "rm", "--recursive", f"s3://{name}/usr/include", "--only-show-errors")
    assert aws(http_server, "s3", "ls", f"s3://{name}/usr/include", check=False).stdout == ""
    left = len(aws(http_server, "s3", "ls", "--recursive", f"s3://{name}").stdout.splitlines())
    assert left == 1 + sum(not path.startswith("usr/include/") for path in expected)


def test_cp_ls_mv_rm(server, home, tmp_path):
    source = write(tmp_path / "file", "cp", 3_000_000)
    key = "dir ectory/ü+%&.bin"
    aws(server, "s3", "cp", source, f"s3://{home}/{key}", "--content-type", "text/x", "--metadata", "a=1,b=2")
    listed = aws(server, "s3", "ls", "--recursive", f"s3://{home}").stdout
    assert "3000000" in listed and key in listed
    assert "PRE dir ectory/" in aws(server, "s3", "ls", f"s3://{home}").stdout
    aws(server, "s3", "mv", f"s3://{home}/{key}", f"s3://{home}/moved")
    aws(server, "s3", "cp", f"s3://{home}/moved", tmp_path / "back")
    assert digest(tmp_path / "back") == digest(source)
    head = json.loads(aws(server, "s3api", "head-object", "--bucket", home, "--key", "moved").stdout)
    assert head["Metadata"] == {"a": "1", "b": "2"} and head["ContentType"] == "text/x"
    aws(server, "s3", "rm", f"s3://{home}/moved")
    assert aws(server, "s3", "ls", f"s3://{home}/moved", check=False).returncode == 1
    assert aws(server, "s3", "rb", f"s3://{home}").stdout.startswith("remove_bucket")


def test_streams(http_server, tmp_path):
    """`aws s3 cp -`: a pipe of unknown length, in parts."""
    server, home = http_server, make_bucket(http_server)
    source = write(tmp_path / "file", "pipe", 20_000_000)
    with open(source, "rb") as pipe:
        done = subprocess.run(
            [*AWS, "s3", "cp", "-", f"s3://{home}/piped"],
            stdin=pipe,
            env=server.client_env(),
            capture_output=True,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "back", "wb") as back:
        subprocess.run(
            [*AWS, "s3", "cp", f"s3://{home}/piped", "-"], stdout=back, env=server.client_env(), check=True, timeout=120
        )
    assert digest(tmp_path / "back") == digest(source)


def test_multipart_and_checksums(server, home, tmp_path):
    """`aws s3 cp` cuts into parts of 8 MiB with CRC64NVME; other algorithms by option."""
    source = write(tmp_path / "file", "parts", 20_000_000)
    for algorithm in ("CRC64NVME", "CRC32", "SHA256"):
        aws(server, "s3", "cp", source, f"s3://{home}/{algorithm}", "--checksum-algorithm", algorithm)
        aws(server, "s3", "cp", f"s3://{home}/{algorithm}", tmp_path / algorithm, "--checksum-mode", "ENABLED")
        assert digest(tmp_path / algorithm) == digest(source)


def test_presign(http_server, tmp_path):
    name = make_bucket(http_server)
    source = write(tmp_path / "file", "presign", 1000)
    aws(http_server, "s3", "cp", source, f"s3://{name}/a b")
    url = aws(http_server, "s3", "presign", f"s3://{name}/a b", "--expires-in", "60").stdout.strip()
    done = subprocess.run(
        ["curl", "--fail", "--silent", "--noproxy", "*", url], capture_output=True, check=True, timeout=30
    )
    assert done.stdout == source.read_bytes()
    assert urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url).read() == source.read_bytes()


def test_s3api(http_server, tmp_path):
    """One of each kind of call that people script."""
    server, home = http_server, make_bucket(http_server)
    api = lambda *arguments: json.loads(aws(server, "s3api", *arguments, "--bucket", home).stdout or "{}")
    data = tmp_path / "data"
    data.write_bytes(b"one")
    api("put-bucket-versioning", "--versioning-configuration", "Status=Enabled")
    first = api("put-object", "--key", "k", "--body", str(data))
    data.write_bytes(b"two")
    second = api("put-object", "--key", "k", "--body", str(data), "--if-match", first["ETag"])
    assert first["VersionId"] != second["VersionId"]
    api("get-object", "--key", "k", "--version-id", first["VersionId"], str(tmp_path / "old"))
    assert (tmp_path / "old").read_bytes() == b"one"
    marker = api("delete-object", "--key", "k")
    assert marker["DeleteMarker"] is True
    versions = api("list-object-versions")
    assert len(versions["Versions"]) == 2 and len(versions["DeleteMarkers"]) == 1
    api("delete-object", "--key", "k", "--version-id", marker["VersionId"])
    api("put-object-tagging", "--key", "k", "--tagging", "TagSet=[{Key=a,Value=1}]")
    assert api("get-object-tagging", "--key", "k")["TagSet"] == [{"Key": "a", "Value": "1"}]
    assert api("get-object-attributes", "--key", "k", "--object-attributes", "ObjectSize", "ETag")["ObjectSize"] == 3
    assert aws(server, "s3api", "get-bucket-location", "--bucket", home).stdout.strip().startswith("{")
    failed = aws(server, "s3api", "put-object", "--bucket", home, "--key", "k", "--if-none-match", "*", check=False)
    assert failed.returncode != 0 and "PreconditionFailed" in failed.stderr
    refused = aws(server, "s3api", "put-bucket-acl", "--bucket", home, "--acl", "public-read", check=False)
    assert refused.returncode != 0 and "NotImplemented" in refused.stderr


def test_state_of_a_while_ago(http_server, tmp_path):
    """The past as a bucket: `aws s3 sync` from it restores a folder."""
    server, home = http_server, make_bucket(http_server)
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    for number in range(20):
        (tree / "sub" / f"{number}.txt").write_text(f"before {number}")
    aws(server, "s3", "sync", tree, f"s3://{home}/site", "--only-show-errors")
    head = aws(server, "s3api", "head-object", "--bucket", home, "--key", "site/sub/19.txt", "--debug").stderr
    number = max(
        int(line.split("x-elton-version")[1].split("'")[2]) for line in head.splitlines() if "x-elton-version" in line
    )
    # What that number showed: everything that was sent up to it.
    aws(server, "s3", "rm", "--recursive", f"s3://{home}/site", "--only-show-errors")
    aws(server, "s3", "sync", f"s3://{home}--at-{number}/site/sub", tmp_path / "back", "--only-show-errors")
    found = digests(tmp_path / "back")
    assert found["19.txt"] == digest(tree / "sub" / "19.txt") and all(
        digest(tree / "sub" / name) == found[name] for name in found
    )
    listed = aws(server, "s3", "ls", "--recursive", f"s3://{home}--at-{number}").stdout
    assert "site/sub/19.txt" in listed
    denied = aws(server, "s3", "cp", tree / "sub" / "1.txt", f"s3://{home}--at-{number}/x", check=False)
    assert denied.returncode != 0 and "AccessDenied" in denied.stderr
