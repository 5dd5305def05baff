"""Every key that S3 allows is a key, and each its own."""

import re
import urllib.parse

import pytest
from botocore.exceptions import ClientError

from raw import quote

KEYS = [
    "a",
    "a/",
    "a/b",
    "a//b",
    "a!",
    "a/b/",
    "//",
    "/",
    "/leading",
    "trailing/",
    "trailing//",
    "with space",
    " leading space",
    "trailing space ",
    "plus+plus",
    "percent%",
    "percent%20",
    "%2F",
    "%",
    "a&b=c",
    "question?mark",
    "hash#hash",
    "semi;colon",
    "colon:colon",
    "at@at",
    "comma,",
    "dollar$",
    "quote'",
    'quote"',
    "back\\slash",
    "caret^",
    "back`tick",
    "pipe|",
    "{braces}",
    "[brackets]",
    "<angle>",
    "tilde~",
    "star*",
    "(round)",
    ".",
    "..",
    "../up",
    "a/../b",
    "a/./b",
    "./a",
    "dots...",
    "...",
    "=equals",
    "year=2026/month=11/day=20",
    "ümlaut",
    "u\u0308mlaut",
    "日本語/キー",
    "😀",
    "👩\u200d👩\u200d👧/family",
    "\u202eright-to-left",
    "e" * 1024,
    "é" * 512,
    "😀" * 256,
    "/".join("d" * 512),
    "x" * 300 + "/" + "y" * 300,
    "null",
    "undefined",
    "index.html",
    "_elton/v1/status",
    "_elton/live",
    "--at-1",
    "key--at-2",
]
# XML 1.0 cannot carry most of these: that is what encoding-type=url is for.
CONTROL_KEYS = [f"control-{chr(code)}-{code}" for code in (*range(1, 32), 127)] + [
    "line\nbreak",
    "tab\there",
    "cr\rlf\n",
    "\ufffe",
    "\uffff",
]


def test_keys_are_told_apart(s3, bucket):
    """Two spellings never meet: each key gives back its own body, and the listing names exactly them."""
    for key in KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode(), Metadata={"n": str(len(key))})
    for key in KEYS:
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), key
        assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] == len(key.encode())
    expected = sorted(KEYS, key=str.encode)
    for operation in ("list_objects", "list_objects_v2"):
        pages = s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
        assert [found["Key"] for page in pages for found in page.get("Contents", [])] == expected
    versions = s3.get_paginator("list_object_versions").paginate(Bucket=bucket, PaginationConfig={"PageSize": 7})
    assert [found["Key"] for page in versions for found in page.get("Versions", [])] == expected
    for key in KEYS[::2]:
        s3.delete_object(Bucket=bucket, Key=key)
    gone = set(KEYS[::2])
    left = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    assert left == [key for key in expected if key not in gone]
    errors = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in left]}).get("Errors")
    assert not errors
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_control_characters(s3, raw, bucket):
    """They are lawful in keys; a listing can show them with encoding-type=url, and is well-formed XML without."""
    for key in CONTROL_KEYS:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
        assert s3.get_object(Bucket=bucket, Key=key)["Body"].read() == key.encode(), repr(key)
    expected = sorted(CONTROL_KEYS, key=str.encode)
    for query in ({"list-type": "2"}, {}, {"versions": ""}):
        reply = raw.request("GET", raw.path(bucket), query | {"encoding-type": "url"})
        assert reply.status == 200, reply
        found = [urllib.parse.unquote(key.text, errors="strict") for key in reply.xml.iter("Key")]
        assert found == expected, query
        plain = raw.request("GET", raw.path(bucket), query)
        # Without it, AWS writes references (`&#x1;`), which XML 1.0 parsers refuse; saying so is as good. What is not
        # lawful at all are raw control characters, and an error that clients repeat for ever.
        assert plain.status == 200, (query, plain)
        assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]", plain.body), query
        # The escape in its place leads to the same object.
        listed = [key.text for key in plain.xml.iter("Key")]
        assert len(listed) == len(expected)
        for key, escaped in zip(expected, listed, strict=True):
            if "\r" not in key:
                assert raw.get(bucket, escaped).body == key.encode(), repr(escaped)
    for key in CONTROL_KEYS:
        s3.delete_object(Bucket=bucket, Key=key)


def test_control_characters_in_every_answer(raw, bucket):
    """What was done is never answered with an error: not by an upload, a completion or DeleteObjects."""
    path = raw.path(bucket, "c\x01")
    created = raw.request("POST", path, {"uploads": ""})
    assert created.status == 200, created
    upload = created.xml.findtext("UploadId")
    assert raw.request("GET", raw.path(bucket), {"uploads": ""}).status == 200
    assert raw.request("GET", path, {"uploadId": upload}).status == 200
    assert raw.request("DELETE", path, {"uploadId": upload}).status == 204
    for query in ({"prefix": "\0"}, {"delimiter": "\0"}, {"marker": "\1"}, {"list-type": "2", "start-after": "\1"}):
        assert raw.request("GET", raw.path(bucket), query).status == 200, query
    assert raw.request("GET", raw.path(bucket), {"max-keys": "\1"}).status == 400
    for named in ("c\x01", "c&#1;", "c&#x1;", "c\uf700\uf701"):
        raw.put(bucket, "c\x01", b"x")
        document = f"<Delete><Object><Key>{named}</Key></Object></Delete>".encode()
        reply = raw.request("POST", raw.path(bucket), {"delete": ""}, body=document)
        assert reply.status == 200 and b"Error" not in reply.body, (named, reply)
        assert raw.head(bucket, "c\x01").status == 404, repr(named)


def test_listing_fields_are_encoded(raw, s3, bucket):
    """encoding-type=url covers keys, prefixes, delimiters and markers alike."""
    for key in ("a b/ü+1/x", "a b/ü+2/y", "a b/z"):
        s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    query = {"prefix": "a b/", "delimiter": "+", "encoding-type": "url"}
    xml = raw.request("GET", raw.path(bucket), query | {"marker": "a b/ "}).xml
    assert xml.findtext("EncodingType") == "url"
    unquote = urllib.parse.unquote_plus
    for field in ("Prefix", "Delimiter", "Marker", "CommonPrefixes/Prefix", "Contents/Key"):
        assert " " not in xml.findtext(field) and "ü" not in xml.findtext(field), field
    assert unquote(xml.findtext("Prefix")) == "a b/" and unquote(xml.findtext("Delimiter")) == "+"
    assert [unquote(p.findtext("Prefix")) for p in xml.findall("CommonPrefixes")] == ["a b/ü+"]
    assert unquote(xml.findtext("Contents/Key")) == "a b/z"


@pytest.mark.parametrize("key, code", [("x" * 1025, "KeyTooLongError"), ("é" * 513, "KeyTooLongError")])
def test_keys_that_are_too_long(s3, bucket, key, code):
    with pytest.raises(ClientError) as refused:
        s3.put_object(Bucket=bucket, Key=key, Body=b"")
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_key_that_is_not_utf8(raw, bucket):
    reply = raw.request("PUT", raw.path(bucket, b"\xff\xfe"))
    assert 400 <= reply.status < 500, reply


def test_key_as_object_and_prefix(s3, bucket):
    """`a`, `a/` and `a/b` live side by side; deleting one leaves the others."""
    for key in ("a", "a/", "a/b", "a/b/c"):
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())
    s3.delete_object(Bucket=bucket, Key="a/")
    page = s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [found["Key"] for found in page["Contents"]] == ["a"]
    assert [found["Prefix"] for found in page["CommonPrefixes"]] == ["a/"]
    s3.delete_object(Bucket=bucket, Key="a")
    assert s3.get_object(Bucket=bucket, Key="a/b")["Body"].read() == b"a/b"
    assert s3.get_object(Bucket=bucket, Key="a/b/c")["Body"].read() == b"a/b/c"


@pytest.mark.parametrize("unescaped", ["=", "=:@", "!'()*", "=:@!'()*,;$&"])
def test_any_spelling_of_the_url(raw, bucket, unescaped):
    """Clients differ in what they leave unescaped, and in whether they sign what they sent or as AWS documents it."""
    key = "year=2026/a:b@c!d(e)'f*g,h;i&j$k+l"
    assert raw.put(bucket, key, b"found").status == 200
    spelling = f"/{bucket}/{quote(key, safe='/' + unescaped)}"
    for signed in (raw.path(bucket, key), spelling):
        reply = raw.request("GET", signed, sent_path=spelling)
        assert reply.status == 200 and reply.body == b"found", (signed, reply)
