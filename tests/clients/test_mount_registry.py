"""A cargo registry in another cluster's bucket: programs are compiled from its mount, and what they need crosses once."""

import os
import subprocess
import time

import pytest

from clusters import shared_bucket, started
from content import digests
from mounts import Mounts
from server import ROOT
from test_mount_debian import described, rclone

KIB = 1 << 10
MANIFEST = """
[package]
name = "counts"
version = "0.1.0"
edition = "2021"

[dependencies]
itoa = "*"
memchr = "*"
regex = { version = "*", default-features = false, features = ["std"] }
serde = "*"

[workspace]
"""
PROGRAM = r"""
use serde::de::{value::Error, Deserialize, IntoDeserializer};

fn main() {
    let text = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    let words = regex::Regex::new("[a-z]+").unwrap().find_iter(&text).count() as u64;
    let lines = memchr::memchr_iter(b'\n', text.as_bytes()).count();
    let words = u64::deserialize(IntoDeserializer::<Error>::into_deserializer(words)).unwrap();
    println!("{} words, {lines} lines", itoa::Buffer::new().format(words));
}
"""
TEXT = "one two, three\nfour: five\nsix\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A program with dependencies, and beside it `vendor`: their sources as cargo lays them out."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "src").mkdir()
    (folder / "Cargo.toml").write_text(MANIFEST)
    (folder / "src/main.rs").write_text(PROGRAM)
    # The versions that the build has downloaded already.
    (folder / "Cargo.lock").write_bytes((ROOT / "Cargo.lock").read_bytes())
    cargo(folder, "vendor", "--quiet", "vendor")
    # A registry of many hands: times and permissions that a mount has to tell apart.
    for number, path in enumerate(sorted(path for path in (folder / "vendor").rglob("*") if path.is_file())):
        path.chmod((0o644, 0o640, 0o755, 0o444)[number % 4])
        os.utime(path, (1_500_000_000 + number, 1_500_000_000 + number))
    return folder


@pytest.fixture(scope="module")
def registry(project, tmp_path_factory):
    """The cluster that mounts the registry which another one has."""
    with started(tmp_path_factory.mktemp("registry"), "home", "member") as clusters:
        home, member = clusters.all["home"], clusters.all["member"]
        bucket = shared_bucket(home, member, name="crates")
        rclone(home, project / "vendor", f":s3:{bucket}")
        mounts = Mounts(tmp_path_factory.mktemp("mounts"), member)
        try:
            yield member, mounts, bucket
        finally:
            mounts.end()


def cargo(project, *arguments, **env) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_") or name == "CARGO_HOME"}
    command = ["cargo", *map(str, arguments)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=200, env=kept | env)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def built(project, registry, folder) -> str:
    """What the program says, compiled by a cargo that has nothing but the registry."""
    source = f'source.crates-io.replace-with = "mounted"\nsource.mounted.directory = "{registry}"\n'
    home, target = folder / "cargo-home", folder / "target"
    home.mkdir()
    (home / "config.toml").write_text(source)
    began = time.monotonic()
    cargo(project, "build", "--offline", "--quiet", CARGO_HOME=str(home), CARGO_TARGET_DIR=str(target))
    print(f"\ncompiled in {time.monotonic() - began:.1f} s")
    text = folder / "text"
    text.write_text(TEXT)
    return subprocess.run([target / "debug/counts", text], capture_output=True, text=True, check=True).stdout


def test_a_program_is_compiled_from_a_mounted_registry(project, registry, tmp_path):
    member, mounts, bucket = registry
    size = sum(path.stat().st_size for path in (project / "vendor").rglob("*") if path.is_file())
    with member.counting() as crossed:
        at = mounts.mount(bucket)
        (tmp_path / "first").mkdir()
        assert built(project, at, tmp_path / "first") == "6 words, 3 lines\n"
    print(f"{crossed()}, for a registry of {size} bytes")
    assert 100 * KIB < crossed().payload_received < size, "what is not compiled is not read"
    # Another target directory: everything is compiled, and read, again.
    with member.counting() as crossed:
        (tmp_path / "second").mkdir()
        assert built(project, at, tmp_path / "second") == "6 words, 3 lines\n"
    assert crossed().payload < 16 * KIB, f"it was read before: {crossed()}"
    # Another host of the same cluster.
    with member.counting() as crossed:
        again = mounts.mount(f"{bucket}@{mounts.record['number']}", cache=tmp_path / "cold")
        (tmp_path / "third").mkdir()
        cargo(project, "metadata", "--offline", "--format-version", "1", "--config", f'source.mounted.directory = "{again}"',
              "--config", 'source.crates-io.replace-with = "mounted"', CARGO_HOME=str(tmp_path / "third"))  # fmt: skip
    assert crossed().payload < 64 * KIB, f"the cluster had it: {crossed()}"


def test_the_registry_is_what_was_put(project, registry):
    """Names, contents, permissions and times of all files."""
    _, mounts, bucket = registry
    at, source = mounts.mount(bucket), project / "vendor"
    assert digests(at) == digests(source)
    files = lambda root: {path: seen for path, seen in described(root).items() if seen[3] is not None}
    assert files(at) == files(source)
    assert len(files(at)) > 300
