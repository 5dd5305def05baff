"""The root of a Debian system in a bucket of another cluster: programs run from it, and what they need crosses."""

import os
import pathlib
import stat
import subprocess
import time

import pytest

import debian
from clusters import shared_bucket, started
from content import digests
from mounts import Mounts
from server import ROOT
from test_s3fs import mounted as s3fs_mounted

KIB, MIB = 1 << 10, 1 << 20
RCLONE = ROOT / "target/tests-venv/bin/rclone"
# A line between two offices: 100 Mbit/s and 20 ms there and back.
RATE, DELAY = 12_500_000, 0.01

# What is run in the root: packages' own programs in three languages, and what lies in it.
WORK = """
dpkg -l | grep -c '^ii'
perl -MList::Util=sum -MPOSIX=floor -e 'print floor(sum(1 .. 1000) / 7), "\\n"'
sha256sum /usr/bin/perl /bin/bash /etc/passwd
awk -F: '{ n += $3 } END { print n }' /etc/passwd
find /usr/lib -name '*.so*' | sort | tail -n 3
id -un && ls -l /etc/shadow && readlink /bin
"""


def run(*command, **options) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=280, **options)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def chroot(root, script) -> str:
    """What a script says that runs in a root, with devices and a place for files that are in its way."""
    inside = 'mount --rbind /dev "$1/dev" && mount -t tmpfs none "$1/tmp" && exec chroot "$1" /bin/sh -ec "$2"'
    env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    return run("unshare", "--mount", "--propagation", "private", "sh", "-c", inside, "sh", root, script, env=env)


def rclone(cluster, *arguments):
    env = cluster.client_env(
        RCLONE_CONFIG="/dev/null", RCLONE_S3_PROVIDER="Other", RCLONE_S3_ENV_AUTH="true",
        RCLONE_S3_ENDPOINT=cluster.endpoint,
    )
    run(RCLONE, "copy", "--metadata", "--links", "--transfers", "32", "--checkers", "32", *arguments, env=env)


def put(cluster, root, bucket, folder):
    """Directories by s3fs, as rclone has nowhere to say what they are like; files and links by rclone, which is quick."""
    began = time.monotonic()
    with s3fs_mounted(cluster, folder, bucket, "max_stat_cache_size=100000") as at:
        # The top is s3fs's own.
        run("rsync", "-a", "--filter=+ */", "--filter=- *", *root.iterdir(), f"{at}/")
    directories = time.monotonic() - began
    rclone(cluster, root, f":s3:{bucket}")
    print(f"\ndirectories put in {directories:.1f} s, the rest in {time.monotonic() - began - directories:.1f} s")


def described(root: pathlib.Path) -> dict[str, tuple]:
    """Path → kind and permissions, owner, group, size, seconds of the time of change, target, of all that is below."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            regular, link = stat.S_ISREG(status.st_mode), stat.S_ISLNK(status.st_mode)
            found[os.path.relpath(path, root)] = (
                oct(status.st_mode), status.st_uid, status.st_gid, status.st_size if regular else None,
                # rclone keeps nothing of links but where they lead.
                None if link else int(status.st_mtime), os.readlink(path) if link else None,
            )
    return found


@pytest.fixture(scope="module")
def clusters(tmp_path_factory):
    """Where the root is at home, and two clusters that have it over the line."""
    folder = tmp_path_factory.mktemp("debian")
    root = debian.root()
    with started(folder, "home", "member", "other") as clusters:
        home, member, other = (clusters.all[name] for name in ("home", "member", "other"))
        bucket = shared_bucket(home, member, other)
        put(home, root, bucket, folder)
        yield root, bucket, member, other, [clusters.line(home, cluster) for cluster in (member, other)]


def test_programs_run_from_a_root_that_is_elsewhere(clusters, tmp_path):
    root, bucket, member, other, lines = clusters
    size = sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    expected = chroot(root, WORK)
    for line in lines:
        line.rate, line.delay = RATE, DELAY
    mounts = Mounts(tmp_path, member)
    try:
        seconds, crossed = [], []
        began = time.monotonic()
        with member.counting() as counted:
            at = mounts.mount(bucket)
            assert chroot(at, WORK) == expected
        seconds.append(time.monotonic() - began)
        crossed.append(counted().payload)
        for cache in (None, tmp_path / "another-host"):
            began = time.monotonic()
            with member.counting() as counted:
                again = mounts.mount(f"{bucket}@{mounts.record['number']}", cache=cache) if cache else at
                assert chroot(again, WORK) == expected
            seconds.append(time.monotonic() - began)
            crossed.append(counted().payload)
        began = time.monotonic()
        with other.counting() as counted:
            rclone(other, f":s3:{bucket}", tmp_path / "copy")
            for name in ("dev", "tmp"):
                (tmp_path / "copy" / name).mkdir(exist_ok=True)
            chroot(tmp_path / "copy", WORK)
        copied = time.monotonic() - began
        print(
            f"\na root of {size / MIB:.0f} MiB: mounted and run in {seconds[0]:.1f} s, {crossed[0] / MIB:.1f} MiB crossed;"
            f" again {seconds[1]:.1f} s, {crossed[1]} bytes; another host {seconds[2]:.1f} s, {crossed[2]} bytes;"
            f" copied first {copied:.1f} s, {counted().payload / MIB:.1f} MiB"
        )
        assert crossed[0] < size / 3
        assert crossed[1] < 64 * KIB and crossed[2] < 256 * KIB
        assert counted().payload > size / 2, "what is compared with has brought the tree"
    finally:
        for line in lines:
            line.rate, line.delay = None, 0.0
        mounts.end()


def test_the_root_is_as_it_was(clusters, tmp_path):
    root, bucket, member, *_ = clusters
    mounts = Mounts(tmp_path, member)
    try:
        at = mounts.mount(bucket)
        here, there = described(at), described(root)
        assert {path: (here.get(path), there.get(path)) for path in here | there if here.get(path) != there.get(path)} == {}
        # All of it at once: file by file is a question for each.
        done = mounts.run("prefetch", f"{bucket}@{mounts.record['number']}", "--json", timeout=250)
        assert done.returncode == 0, done.stderr
        # Of the packages, every file that has a checksum.
        assert chroot(at, "dpkg --verify") == chroot(root, "dpkg --verify")
        assert digests(at) == digests(root)
        assert mounts.counters(at)["damaged"] == mounts.counters(at)["failures"] == 0
    finally:
        mounts.end()


def test_a_root_to_write_to_above_it(clusters, tmp_path):
    """overlayfs on a mount: what is changed goes to a directory, and the mount stays as it is."""
    root, bucket, member, *_ = clusters
    mounts = Mounts(tmp_path, member)
    above = tmp_path / "above"
    above.mkdir()
    try:
        at = mounts.mount(bucket)
        run("mount", "-t", "tmpfs", "tmpfs", above)
        for name in ("upper", "work", "root"):
            (above / name).mkdir()
        layers = f"lowerdir={at},upperdir={above}/upper,workdir={above}/work"
        run("mount", "-t", "overlay", "-o", layers, "overlay", above / "root")
        said = chroot(
            above / "root",
            "useradd --create-home somebody; echo changed >> /etc/issue; rm -r /usr/share/doc; mv /etc/fstab /etc/moved;"
            " su somebody -c 'id -un; echo mine > ~/file'; stat -c %U /home/somebody/file; dpkg --remove --force-all tar >&2",
        )
        assert said.split() == ["somebody", "somebody"]
        assert not (above / "root/usr/share/doc").exists() and not (above / "root/bin/tar").exists()
        assert (above / "root/etc/issue").read_text() == (root / "etc/issue").read_text() + "changed\n"
        assert (at / "etc/issue").read_text() == (root / "etc/issue").read_text()
        assert (at / "usr/share/doc").is_dir() and not (at / "home/somebody").exists()
    finally:
        for place in (above / "root", above):
            subprocess.run(["umount", "--lazy", place], check=False, capture_output=True)
        mounts.end()
