//! Signs requests with Signature Version 4.

use bytes::Bytes;
use gateway::credentials::RootCredentials;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use s3s_sigv4::{
    AmzDate, Payload, calculate_signature, create_canonical_request_with_raw_uri_path, create_string_to_sign,
};
use sha2::{Digest as _, Sha256};

use super::Path;

const SERVICE: &str = "s3";

/// Signs for one region at one time.
pub struct Signer<'a> {
    /// With these keys.
    pub keys: &'a RootCredentials,
    /// For this region.
    pub region: &'a str,
    /// At this time.
    pub time: jiff::Timestamp,
}

impl Signer<'_> {
    /// A signed request.
    pub fn request(&self, method: &Method, host: &str, path: &Path, body: Vec<u8>) -> Request<Full<Bytes>> {
        let payload = hex(&Sha256::digest(&body));
        let date = self.time.strftime("%Y%m%dT%H%M%SZ").to_string();
        let headers = [("host", host), ("x-amz-content-sha256", &payload), ("x-amz-date", &date)];
        let encoded = encode(&path.path, Slash::Kept);
        let authorization = self.authorization(method, &encoded, &path.query, &headers, &payload, &date);
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method.clone();
        *request.uri_mut() = target(&encoded, &path.query).parse().expect("percent-encoded text is a lawful target");
        let printable = |text: &str| HeaderValue::from_str(text).expect("signed headers are printable ASCII");
        let signed = request.headers_mut();
        signed.insert(HOST, printable(host));
        signed.insert("x-amz-content-sha256", printable(&payload));
        signed.insert("x-amz-date", printable(&date));
        signed.insert(AUTHORIZATION, printable(&authorization));
        signed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request
    }

    fn authorization(
        &self,
        method: &Method,
        encoded_path: &str,
        query: &[(&str, String)],
        headers: &[(&str, &str)],
        payload: &str,
        date: &str,
    ) -> String {
        let amz_date = AmzDate::parse(date).expect("it was written in this format");
        let payload = Payload::SingleChunk(payload);
        let canonical =
            create_canonical_request_with_raw_uri_path(method.as_str(), encoded_path, query, headers, payload);
        let to_sign = create_string_to_sign(&canonical, &amz_date, self.region, SERVICE);
        let secret = self.keys.secret_key().expose();
        let signature = calculate_signature(&to_sign, secret, &amz_date, self.region, SERVICE);
        let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{}/{SERVICE}/aws4_request, SignedHeaders={}, Signature={signature}",
            self.keys.access_key(),
            amz_date.fmt_date(),
            self.region,
            names.join(";"),
        )
    }
}

fn target(encoded_path: &str, query: &[(&str, String)]) -> String {
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{name}={}", encode(value, Slash::Encoded))).collect();
    if pairs.is_empty() { encoded_path.to_owned() } else { format!("{encoded_path}?{}", pairs.join("&")) }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slash {
    Kept,
    Encoded,
}

/// Percent-encodes as Signature Version 4 does.
fn encode(text: &str, slash: Slash) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            b'/' if slash == Slash::Kept => encoded.push('/'),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
        encoded
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use gateway::credentials::SecretKey;

    use super::*;

    /// The keys, time and region of the examples that AWS publishes for S3:
    /// <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
    fn example(headers: &[(&str, &str)], path: &str, query: &[(&str, String)]) -> String {
        let keys =
            RootCredentials::new("AKIAIOSFODNN7EXAMPLE", SecretKey::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"));
        let time = "2013-05-24T00:00:00Z".parse().expect("a time");
        let signer = Signer { keys: &keys, region: "us-east-1", time };
        let empty = hex(&Sha256::digest(b""));
        let authorization = signer.authorization(&Method::GET, path, query, headers, &empty, "20130524T000000Z");
        authorization.rsplit('=').next().expect("it has a signature").to_owned()
    }

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn awss_example_of_get_object() {
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let signature = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert_eq!(example(&headers, "/test.txt", &[]), signature);
    }

    #[test]
    fn awss_example_of_list_objects() {
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
        ];
        let query = [("max-keys", "2".to_owned()), ("prefix", "J".to_owned())];
        let signature = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";
        assert_eq!(example(&headers, "/", &query), signature);
    }

    #[test]
    fn targets_are_encoded() {
        let query = [("prefix", "a/b c+é".to_owned()), ("max", "2".to_owned())];
        assert_eq!(target("/x", &query), "/x?prefix=a%2Fb%20c%2B%C3%A9&max=2");
        assert_eq!(encode("/v1/2026-11-20T10:00Z", Slash::Kept), "/v1/2026-11-20T10%3A00Z");
    }
}
