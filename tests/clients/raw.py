"""An S3 client without good manners: it signs as AWS documents, and lets a test spoil any step of it.

<https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
"""

import base64
import dataclasses
import datetime
import hashlib
import hmac
import http.client
import ssl
import urllib.parse
import xml.etree.ElementTree as ET
import zlib

from awscrt import checksums as crt

from server import ACCESS_KEY, SECRET_KEY

EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

CHECKSUMS = {
    "crc32": lambda data: zlib.crc32(data).to_bytes(4, "big"),
    "crc32c": lambda data: crt.crc32c(data).to_bytes(4, "big"),
    "crc64nvme": lambda data: crt.crc64nvme(data).to_bytes(8, "big"),
    "sha1": lambda data: hashlib.sha1(data).digest(),
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


def checksum(algorithm: str, data: bytes) -> str:
    return base64.b64encode(CHECKSUMS[algorithm](data)).decode()


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data).digest()).decode()


@dataclasses.dataclass(repr=False)
class Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def xml(self) -> ET.Element:
        root = ET.fromstring(self.body)
        for element in root.iter():
            element.tag = element.tag.rpartition("}")[2]
        return root

    @property
    def code(self) -> str | None:
        """The error's code."""
        return self.xml.findtext("Code") if self.body.lstrip().startswith(b"<") else None

    @property
    def message(self) -> str:
        return self.xml.findtext("Message") or ""

    @property
    def number(self) -> int:
        return int(self.headers["x-elton-version"])

    def __repr__(self):
        return f"{self.status} {self.body[:400]!r}"


def quote(text, safe="") -> str:
    """AWS's UriEncode: everything but the unreserved characters, in upper case."""
    return urllib.parse.quote(text, safe=safe + "-_.~")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


class Signer:
    """SigV4 with one pair of keys."""

    def __init__(self, access=ACCESS_KEY, secret=SECRET_KEY, region="us-east-1", service="s3"):
        self.access, self.secret, self.region, self.service = access, secret, region, service
        self._keys = {}

    def key(self, day: str) -> bytes:
        if day not in self._keys:
            key = _hmac(b"AWS4" + self.secret.encode(), day)
            for step in (self.region, self.service, "aws4_request"):
                key = _hmac(key, step)
            self._keys[day] = key
        return self._keys[day]

    def scope(self, stamp: str) -> str:
        return f"{stamp[:8]}/{self.region}/{self.service}/aws4_request"

    def signature(self, method, path, query, headers, payload, stamp) -> str:
        """`headers` are those that are signed, lower case."""
        canonical = "\n".join(
            [
                method,
                path,
                "&".join(f"{k}={v}" for k, v in sorted((quote(k), quote(v)) for k, v in query.items())),
                *(f"{name}:{' '.join(str(value).split())}" for name, value in sorted(headers.items())),
                "",
                ";".join(sorted(headers)),
                payload,
            ]
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, self.scope(stamp), digest])
        return _hmac(self.key(stamp[:8]), text).hex()

    def chunk_signature(self, previous: str, data: bytes, stamp: str) -> str:
        text = [
            "AWS4-HMAC-SHA256-PAYLOAD",
            stamp,
            self.scope(stamp),
            previous,
            EMPTY_SHA256,
            hashlib.sha256(data).hexdigest(),
        ]
        return _hmac(self.key(stamp[:8]), "\n".join(text)).hex()

    def trailer_signature(self, previous: str, trailer: str, stamp: str) -> str:
        digest = hashlib.sha256((trailer + "\n").encode()).hexdigest()
        text = ["AWS4-HMAC-SHA256-TRAILER", stamp, self.scope(stamp), previous, digest]
        return _hmac(self.key(stamp[:8]), "\n".join(text)).hex()


def timestamp(offset_seconds=0) -> str:
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=offset_seconds)
    return now.strftime("%Y%m%dT%H%M%SZ")


class Raw:
    """One kept-alive connection."""

    def __init__(self, server, signer=None, timeout=60):
        self.server = server
        self.endpoint = urllib.parse.urlsplit(server.endpoint)
        self.signer = signer or Signer()
        self.timeout = timeout
        self.certificate = server.certificate
        self.clock_offset = 0
        self._connection = None

    def connection(self) -> http.client.HTTPConnection:
        if self._connection is None:
            if self.endpoint.scheme == "https":
                context = ssl.create_default_context(cafile=self.certificate)
                self._connection = http.client.HTTPSConnection(
                    self.endpoint.netloc, timeout=self.timeout, context=context
                )
            else:
                self._connection = http.client.HTTPConnection(self.endpoint.netloc, timeout=self.timeout)
        return self._connection

    def close(self):
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @staticmethod
    def path(bucket=None, key=None) -> str:
        """The encoded path of a bucket or object; keys may be text or bytes."""
        return "/" + (bucket or "") + ("" if key is None else "/" + quote(key, safe="/"))

    def request(
        self,
        method,
        path,
        query=None,
        headers=None,
        body=b"",
        *,
        payload=None,
        sign=True,
        unsigned=None,
        stamp=None,
        spoil=None,
        declared=None,
        send=None,
        sent_path=None,
    ) -> Reply:
        """One request and its reply.

        `payload`: what x-amz-content-sha256 says (the body's hash). `unsigned`: headers sent beside the signed ones.
        `spoil(headers)`: a last change after signing. `declared`: a Content-Length other than the body's. `send`: how
        many bytes of the body are sent (all). `sent_path`: a spelling of the path other than the signed one.
        """
        query = query or {}
        headers = {name.lower(): value for name, value in (headers or {}).items()}
        stamp = stamp or timestamp(self.clock_offset)
        if sign:
            payload = payload or hashlib.sha256(body).hexdigest()
            headers |= {"host": self.endpoint.netloc, "x-amz-date": stamp, "x-amz-content-sha256": payload}
            signature = self.signer.signature(method, path, query, headers, payload, stamp)
            if payload in (STREAMING_SIGNED, STREAMING_SIGNED_TRAILER) and callable(body):
                body = body(self.signer, signature, stamp)
            headers["authorization"] = (
                f"AWS4-HMAC-SHA256 Credential={self.signer.access}/{self.signer.scope(stamp)},"
                f"SignedHeaders={';'.join(sorted(set(headers)))},Signature={signature}"
            )
        headers |= {name.lower(): value for name, value in (unsigned or {}).items()}
        if spoil:
            spoil(headers)
        url = (sent_path or path) + (
            "?" + "&".join(f"{quote(k)}={quote(v)}" for k, v in query.items()) if query else ""
        )
        return self.send(method, url, headers, body, declared=declared, send=send)

    def send(self, method, url, headers, body=b"", declared=None, send=None) -> Reply:
        """Sends what it is told to and reads one reply."""
        connection = self.connection()
        try:
            connection.putrequest(method, url, skip_host="host" in headers, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value.encode() if isinstance(value, str) else str(value))
            has_body = body or declared is not None or method in ("PUT", "POST")
            if has_body and "content-length" not in headers:
                connection.putheader("content-length", str(len(body) if declared is None else declared))
            try:
                connection.endheaders(body[:send] if send is not None else body or None)
                if send is not None:
                    # Nothing more is coming: a reply must arrive all the same, or the connection end.
                    connection.sock.shutdown(1)
            except (BrokenPipeError, ConnectionResetError):
                pass  # The server may answer before it read the body.
            reply = connection.getresponse()
            result = Reply(reply.status, reply.headers, reply.read())
        except BaseException:
            self.close()
            raise
        if send is not None or declared is not None:
            self.close()
        return result

    def presign(self, method, path, query=None, headers=None, expires=60, stamp=None) -> str:
        """The path and query of a presigned URL."""
        stamp = stamp or timestamp(self.clock_offset)
        signed = {"host": self.endpoint.netloc} | {n.lower(): v for n, v in (headers or {}).items()}
        query = (query or {}) | {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{self.signer.access}/{self.signer.scope(stamp)}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(expires),
            "X-Amz-SignedHeaders": ";".join(sorted(signed)),
        }
        query["X-Amz-Signature"] = self.signer.signature(method, path, query, signed, UNSIGNED, stamp)
        return path + "?" + "&".join(f"{quote(k)}={quote(v)}" for k, v in query.items())

    def presigned(self, method, path, query=None, headers=None, body=b"", *, extra=None, **options) -> Reply:
        """Uses a presigned URL; `extra` are headers that nobody signed."""
        url = self.presign(method, path, query, headers, **options)
        sent = {"host": self.endpoint.netloc} | {n.lower(): v for n, v in ((headers or {}) | (extra or {})).items()}
        return self.send(method, url, sent, body)

    # Shorthands for what most tests do.

    def put(self, bucket, key, body=b"", headers=None, **options) -> Reply:
        return self.request("PUT", self.path(bucket, key), headers=headers, body=body, **options)

    def get(self, bucket, key, query=None, headers=None, **options) -> Reply:
        return self.request("GET", self.path(bucket, key), query, headers, **options)

    def head(self, bucket, key, query=None, headers=None, **options) -> Reply:
        return self.request("HEAD", self.path(bucket, key), query, headers, **options)

    def delete(self, bucket, key, query=None, headers=None, **options) -> Reply:
        return self.request("DELETE", self.path(bucket, key), query, headers, **options)

    def multipart(self, bucket, key, parts) -> Reply:
        """A multipart upload from begin to completion; the reply is the completion's."""
        path = self.path(bucket, key)
        begun = self.request("POST", path, {"uploads": ""})
        assert begun.status == 200, begun
        upload = begun.xml.findtext("UploadId")
        listed = ""
        for number, part in enumerate(parts, 1):
            sent = self.request(
                "PUT", path, {"partNumber": str(number), "uploadId": upload}, body=part, payload=UNSIGNED
            )
            assert sent.status == 200, sent
            listed += f"<Part><PartNumber>{number}</PartNumber><ETag>{sent.headers['etag']}</ETag></Part>"
        body = f"<CompleteMultipartUpload>{listed}</CompleteMultipartUpload>".encode()
        return self.request("POST", path, {"uploadId": upload}, body=body)


def pieces(data: bytes, size: int):
    return [data[at : at + size] for at in range(0, len(data), size)]


def signed_chunks(data: bytes, size=65536, trailer=None, spoil=None, end=True):
    """The body of a chunk-signed upload, to be given as `body`; `trailer` is `name:value`.

    `end=False` breaks off before the last (empty) chunk.

    `spoil(number, signature, chunk) -> (signature, chunk)` may falsify a chunk, the last (empty) one included, or,
    as number -1, the trailer.
    """
    spoil = spoil or (lambda _number, signature, chunk: (signature, chunk))

    def build(signer: Signer, seed: str, stamp: str) -> bytes:
        out, previous = b"", seed
        chunks = [*pieces(data, size), *([b""] if end else [])]
        for number, chunk in enumerate(chunks):
            previous = signer.chunk_signature(previous, chunk, stamp)
            signature, sent = spoil(number, previous, chunk)
            out += f"{len(sent):x};chunk-signature={signature}\r\n".encode()
            if sent:
                out += sent + b"\r\n"
        if not end:
            return out
        if trailer is not None:
            signature, sent = spoil(-1, signer.trailer_signature(previous, trailer, stamp), trailer)
            out += f"{sent}\r\nx-amz-trailer-signature:{signature}\r\n".encode()
        return out + b"\r\n"

    return build


def unsigned_chunks(data: bytes, trailer=None, size=65536, end=True) -> bytes:
    """The body of an unsigned chunked upload with a trailer; `end=False` breaks off before the last chunk."""
    out = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in pieces(data, size))
    if not end:
        return out
    return out + b"0\r\n" + (f"{trailer}\r\n".encode() if trailer else b"") + b"\r\n"
