"""A working copy of git, put by each client and mounted: git, tar, rsync, find, grep and diff see what was put."""

import os
import pathlib
import subprocess

import pytest

from conftest import boto, bucket_name, parameter
from content import digests, source_tree
from mounts import Mounts
from server import ROOT
from test_s3fs import mounted as s3fs_mounted

RCLONE = ROOT / "target/tests-venv/bin/rclone"
FILES = parameter("TREE_FILES", 120)
COMMITS = 5
# Files that stay out of the pack.
LATER = 6
OWNER = 1234


def run(*command, code=0, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def git(folder, *arguments, code=0) -> str:
    """git with the settings of `_settings`."""
    env = os.environ | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_AUTHOR_DATE": "1700000000 +0100",
        "GIT_COMMITTER_DATE": "1700000000 +0100",
    }
    return run("git", "-C", folder, *arguments, code=code, env=env)


@pytest.fixture(scope="module", autouse=True)
def _settings(tmp_path_factory):
    """git as a user has it who looks at what others own."""
    path = tmp_path_factory.mktemp("settings") / "gitconfig"
    settings = "[safe]\ndirectory = *\n[user]\nname = A U Thor\nemail = a@example.org\n[gc]\nauto = 0\n[core]\nquotePath = false\n"
    path.write_text(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(path))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> pathlib.Path:
    """A working copy of real files with some commits, of which part is packed; a script, a link and a tag in it."""
    top = source_tree(tmp_path_factory.mktemp("repository") / "work", FILES)
    (top / "bin").mkdir()
    (top / "bin/run").write_text("#!/bin/sh\necho run\n")
    (top / "bin/run").chmod(0o755)
    (top / "name with spaces, ü and +%&").write_text("odd\n")
    os.symlink("bin/run", top / "link")
    files = sorted(path.relative_to(top) for path in top.rglob("*") if not path.is_dir() or path.is_symlink())
    git(top, "init", "-q", "-b", "main", "--template=")
    packed = COMMITS - 1
    for number in range(packed):
        git(top, "add", "--", *files[: len(files) - LATER][number::packed])
        git(top, "commit", "-q", "-m", f"commit {number}")
    git(top, "tag", "-a", "-m", "most of it", "most")
    git(top, "gc", "-q")
    git(top, "branch", "other")
    git(top, "add", ".")
    git(top, "commit", "-q", "-m", "the rest")
    assert git(top, "status", "--porcelain") == "" and list(top.glob(".git/objects/pack/*.pack"))
    # S3 has none.
    run("find", top, "-type", "d", "-empty", "-delete")
    for path in [top, *top.rglob("*")]:
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
        os.utime(path, (1_650_000_000, 1_650_000_000), follow_symlinks=False)
    return top


def put_by_aws(server, source, bucket, _folder):
    command = ["aws", "s3", "sync", "--quiet", "--no-follow-symlinks", source, f"s3://{bucket}"]
    run(*command, env=server.client_env())


def put_by_rclone(server, source, bucket, _folder):
    env = server.client_env(
        RCLONE_CONFIG="/dev/null", RCLONE_S3_PROVIDER="Other", RCLONE_S3_ENV_AUTH="true",
        RCLONE_S3_ENDPOINT=server.endpoint,
    )
    run(RCLONE, "copy", "--metadata", "--links", "--transfers", "16", source, f":s3:{bucket}", env=env)


def put_by_s3fs(server, source, bucket, folder):
    with s3fs_mounted(server, folder, bucket, "max_stat_cache_size=100000") as at:
        # The top is s3fs's own.
        run("cp", "-a", *source.iterdir(), at)


CLIENTS = {"aws": put_by_aws, "rclone": put_by_rclone, "s3fs": put_by_s3fs}


@pytest.fixture(scope="module", params=list(CLIENTS))
def tree(request, http_server, repository, tmp_path_factory):
    """Who put the tree, and where it is mounted."""
    folder = tmp_path_factory.mktemp(request.param)
    bucket = bucket_name("tree")
    boto(http_server).create_bucket(Bucket=bucket)
    CLIENTS[request.param](http_server, repository, bucket, folder)
    mounts = Mounts(folder, http_server)
    try:
        yield request.param, mounts.mount(bucket)
    finally:
        mounts.end()


def test_git(tree, repository):
    client, at = tree
    # aws keeps neither links nor modes.
    changed = {"aws": " D link\n M bin/run\n"}.get(client, "")
    assert sorted(git(at, "status", "--porcelain").splitlines()) == sorted(changed.splitlines())
    log = git(at, "log", "--all", "--stat", "--format=%H %an %ad %s %D")
    assert log == git(repository, "log", "--all", "--stat", "--format=%H %an %ad %s %D")
    assert log.count("A U Thor") == COMMITS
    assert git(at, "fsck", "--full", "--strict", "--no-dangling") == ""
    assert git(at, "grep", "-c", "the", "most") == git(repository, "grep", "-c", "the", "most")
    assert git(at, "diff", "--stat", "most", "main") == git(repository, "diff", "--stat", "most", "main") != ""
    refused = subprocess.run(["git", "-C", at, "commit", "--allow-empty", "-m", "new"], capture_output=True, text=True)
    assert refused.returncode == 128 and "Read-only file system" in refused.stderr


def test_git_clones_it(tree, repository, tmp_path):
    _, at = tree
    git(tmp_path, "clone", "-q", "--no-local", at, tmp_path / "clone")
    assert git(tmp_path / "clone", "rev-parse", "HEAD") == git(repository, "rev-parse", "HEAD")
    assert git(tmp_path / "clone", "status", "--porcelain") == ""


def test_rsync_finds_no_difference(tree, repository):
    client, at = tree
    command = ["rsync", "--dry-run", "--checksum", "--itemize-changes", "--delete"]
    if client == "aws":
        # Bytes and names.
        assert run(*command, "--recursive", "--exclude=/link", f"{repository}/", f"{at}/").splitlines() == []
        return
    # The top has no object of its own.
    found = [line for line in run(*command, "--archive", f"{repository}/", f"{at}/").splitlines() if not line.endswith(" ./")]
    if client == "rclone":
        # It says nothing of directories to S3.
        found = [line for line in found if not line.startswith(".d..t")]
    assert found == []


def test_tar_finds_no_difference(tree, repository, tmp_path):
    client, at = tree
    run("tar", "-C", at, "-cf", tmp_path / "packed.tar", ".")
    compare = ["tar", "-C", repository, "--compare", "-f", tmp_path / "packed.tar"]
    if client == "s3fs":
        assert run(*compare) == ""
        return
    (tmp_path / "unpacked").mkdir()
    run("tar", "-C", tmp_path / "unpacked", "--no-same-owner", "-xf", tmp_path / "packed.tar")
    assert digests(tmp_path / "unpacked") == digests(at)


def test_find_grep_and_diff(tree, repository):
    client, at = tree
    form = {"aws": "%y %P\\n", "rclone": "%y %P %l\\n", "s3fs": "%y %m %U %G %T@ %P %l\\n"}[client]
    kinds = ["-not", "-type", "l"] if client == "aws" else []
    shown = lambda root: sorted(run("find", root, "-mindepth", "1", *kinds, "-printf", form).splitlines())
    assert shown(at) == shown(repository)
    if client == "rclone":
        shown = lambda root: sorted(run("find", root, "-type", "f", "-printf", "%m %U %G %T@ %s %P\\n").splitlines())
        assert shown(at) == shown(repository)
    # Both `grep`s go through the tree in their own order.
    words = lambda root: sorted(run("grep", "-r", "-c", "--binary-files=text", "e", ".", cwd=root, code=0).splitlines())
    assert words(at) == words(repository) and len(words(at)) > FILES
    found = subprocess.run(["diff", "-r", "--no-dereference", repository, at], capture_output=True, text=True)
    assert found.stdout.splitlines() == ([f"Only in {repository}: link"] if client == "aws" else []), found.stderr
    usage = lambda root: run("du", "-s", "--apparent-size", "--block-size=1", "--inodes", root).split()[0]
    if client != "aws":
        assert usage(at) == usage(repository)
