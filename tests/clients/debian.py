"""A Debian root as debootstrap makes it, from where this machine's apt has its packages. Made once, kept under `target`."""

import fcntl
import pathlib
import platform
import shutil
import subprocess

from server import ROOT

KEPT = ROOT / "target/tests-debian"
# What is downloaded again, and what small images leave out: thousands of files that nobody looks at.
LEFT_OUT = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/man", "usr/share/locale", "usr/share/zoneinfo")
SECONDS_MAX = 280


def root() -> pathlib.Path:
    """The root: a few thousand files with the owners, modes and links that packages give them. Not to be changed."""
    KEPT.mkdir(parents=True, exist_ok=True)
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    kept = KEPT / release
    with open(KEPT / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            begun = KEPT / "begun"
            shutil.rmtree(begun, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", release, begun, mirror(release)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
            assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr}"
            for folder in LEFT_OUT:
                shutil.rmtree(begun / folder)
            # Buckets keep no device numbers.
            for node in (begun / "dev").iterdir():
                shutil.rmtree(node) if node.is_dir() and not node.is_symlink() else node.unlink()
            begun.rename(kept)
    return kept


def mirror(release: str) -> str:
    """Where apt has this release from."""
    only = ["Created-By: Packages", f"Release: {release}", "Component: main"]
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", *only]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found, f"apt has no source of {release} main: see `apt-get indextargets`"
    return found[0]
