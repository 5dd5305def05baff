"""HTTPS: certificates made and given, HTTP/2, and what does not speak TLS."""

import shutil
import socket
import subprocess

import checks
from content import body
from raw import Raw
from server import Server, StartFailed, elton


def test_made_certificate_is_kept(tmp_path):
    """Clients that trust it trust the server after a restart, too."""
    with Server(tmp_path / "data", tls=True) as server:
        trusted = server.certificate.read_text()
        assert server.endpoint.startswith("https://")
        key_modes = [path.stat().st_mode & 0o077 for path in (server.data / "tls").iterdir() if "key" in path.name]
        assert key_modes == [0], "the key is for its owner only"
        with Raw(server) as raw:
            name = checks.new_bucket(raw, "tls")
            raw.put(name, "k", b"x")
        server.restart()
        assert server.certificate.read_text() == trusted
        with Raw(server) as raw:
            assert raw.get(name, "k").body == b"x"


def test_given_certificate(tmp_path):
    with Server(tmp_path / "first", tls=True):
        shutil.copytree(tmp_path / "first/tls", tmp_path / "own")
    files = ["--tls-cert", str(tmp_path / "own/cert.pem"), "--tls-key", str(tmp_path / "own/key.pem")]
    with Server(tmp_path / "data", args=files) as server:
        assert server.endpoint.startswith("https://") and not (server.data / "tls").exists()
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "--cacert", tmp_path / "own/ca.pem", f"{server.endpoint}/_elton/live"],
            capture_output=True,
            timeout=20,
        )
        assert done.returncode == 0, done.stderr
    (tmp_path / "own/cert.pem").write_text("no certificate")
    try:
        Server(tmp_path / "data", args=files).start().end()
        raise AssertionError("started with a certificate that is none")
    except StartFailed as failed:
        assert failed.status == 1 and "cert.pem" in failed.log and "panicked" not in failed.log


def test_a_certificate_for_other_names(tmp_path):
    """Who trusts it, and calls the server by a name that is not in it, is told what the server has to be told."""
    server = Server(tmp_path / "data", tls=True)
    server.host = "0.0.0.0"
    with server:
        env = {"ELTON_ENDPOINT": f"https://127.0.0.2:{server.port}"}
        refused = elton("bucket", "ls", server=server, env=env)
        assert refused.returncode == 1 and "--tls-name" in refused.stderr, refused
        server.stop()
        shutil.rmtree(server.data / "tls")
        server.args = ["--tls-name", "127.0.0.2"]
        server.start()
        done = elton("bucket", "ls", server=server, env=env)
        assert done.returncode == 0, done.stderr


def test_http2(https_server, tmp_path):
    """curl agrees on HTTP/2 and gets and puts over it."""
    data = body("http2", 3_000_000)
    (tmp_path / "up").write_bytes(data)

    def curl(url, *arguments):
        options = ["--http2", "--noproxy", "*", "--cacert", https_server.certificate, "-sS", "-w", "%{http_version}"]
        done = subprocess.run(
            ["curl", *options, *arguments, https_server.endpoint + url], capture_output=True, timeout=60
        )
        assert done.returncode == 0 and done.stdout == b"2", done

    with Raw(https_server) as raw:
        name = checks.new_bucket(raw, "http2")
        curl(raw.presign("PUT", raw.path(name, "k")), "-T", tmp_path / "up")
        curl(raw.presign("GET", raw.path(name, "k")), "-o", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == data


def test_no_tls_on_the_tls_port(https_server):
    """A client that speaks HTTP there is hung up on or told so; one that says nothing disturbs nobody."""
    with socket.create_connection(("127.0.0.1", https_server.port), timeout=20) as silent:
        with socket.create_connection(("127.0.0.1", https_server.port), timeout=20) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            while plain.recv(4096):
                pass
        with Raw(https_server) as raw:
            assert raw.request("GET", "/").status == 200
        silent.close()
