"""Bodies and trees that can be made again from a seed, so that nothing has to be kept to compare with."""

import hashlib
import os
import pathlib
import random
import shutil
import subprocess


def body(seed, size: int) -> bytes:
    """`size` bytes that belong to `seed` alone and do not compress."""
    return random.Random(f"{seed}").randbytes(size)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: pathlib.Path, seed, size: int) -> pathlib.Path:
    """A large file, made piece by piece."""
    with open(path, "wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(body((seed, at), min(1 << 20, size - at)))
    return path


def digest(path: pathlib.Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(root: pathlib.Path) -> dict[str, str]:
    """Path below `root` → SHA-256, of all files."""
    return {
        os.path.relpath(os.path.join(folder, name), root): digest(os.path.join(folder, name))
        for folder, _, names in os.walk(root)
        for name in names
    }


def source_tree(target: pathlib.Path, files: int) -> pathlib.Path:
    """`files` real files as a developer's machine has them, filled up with made ones where it has fewer.

    They come from places that every Debian with a Rust toolchain has. Files over 1 MiB and names that are not UTF-8
    stay out: large bodies have tests of their own, and S3 has no such names.
    """
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip()
    count = 0
    for origin in ("/usr/include", f"{sysroot}/lib/rustlib", "/usr/share", "/usr/lib/python3", f"{sysroot}/share"):
        for folder, folders, names in os.walk(origin):
            folders.sort()
            for name in sorted(names):
                if count == files:
                    return target
                path = os.path.join(folder, name)
                if not os.path.isfile(path) or os.path.islink(path) or os.path.getsize(path) > 1 << 20:
                    continue
                relative = os.path.relpath(path, "/").lstrip(".")
                try:
                    relative.encode()
                except UnicodeEncodeError:
                    continue
                copy = target / relative
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
                count += 1
    for number in range(count, files):
        path = target / "made" / f"{number % 97:02}" / f"{number:05} file+name%.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body(number, number % 9000))
    return target
