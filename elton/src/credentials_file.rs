//! The file that keeps the root keys: in the format of AWS's shared credentials file, so that every S3 client can
//! read it as it is.

use std::path::Path;

use gateway::credentials::{RootCredentials, SecretKey};

const ACCESS_KEY: &str = "aws_access_key_id";
const SECRET_KEY: &str = "aws_secret_access_key";

/// The file's text for `keys`; `path` is where it will be, `endpoint` where the server answers.
#[must_use]
pub fn render(keys: &RootCredentials, path: &Path, endpoint: &str) -> String {
    let path = path.display();
    format!(
        "# The root keys of this Elton cluster: whoever has them may do everything. Keep this file to yourself.\n\
         # The elton commands read it by themselves (--data DIR). Other clients read it so:\n\
         #   export AWS_SHARED_CREDENTIALS_FILE={path} AWS_ENDPOINT_URL={endpoint}\n\
         #   aws s3 ls\n\
         # To change the keys, edit the two lines below and start the server again.\n\
         [default]\n\
         {ACCESS_KEY} = {}\n\
         {SECRET_KEY} = {}\n",
        keys.access_key(),
        keys.secret_key().expose(),
    )
}

/// Why a credentials file cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCredentials {
    /// A key is missing.
    #[error("it has no line `{0} = …`")]
    Missing(&'static str),
    /// The access key has characters that cannot be signed with, or a length that cannot be meant.
    #[error("an access key has 3 to 128 letters, digits and any of - _ . + = @")]
    AccessKey,
    /// The secret is too short to be one, or has white space in it.
    #[error("a secret key has 8 to 256 printable ASCII characters without spaces")]
    SecretKey,
}

/// Reads the first profile of a file.
pub fn parse(text: &str) -> Result<RootCredentials, InvalidCredentials> {
    let value = |name: &'static str| {
        text.lines()
            .filter(|line| !line.trim_start().starts_with(['#', ';']))
            .filter_map(|line| line.split_once('='))
            .find(|(known, _)| known.trim().eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .ok_or(InvalidCredentials::Missing(name))
    };
    check(value(ACCESS_KEY)?, value(SECRET_KEY)?)
}

/// A pair of keys, if it can be one.
pub fn check(access_key: &str, secret_key: &str) -> Result<RootCredentials, InvalidCredentials> {
    // A slash or comma would end the access key within an Authorization header.
    let lawful = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+=@".contains(&byte);
    if !(3..=128).contains(&access_key.len()) || !access_key.bytes().all(lawful) {
        return Err(InvalidCredentials::AccessKey);
    }
    if !(8..=256).contains(&secret_key.len()) || !secret_key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidCredentials::SecretKey);
    }
    Ok(RootCredentials::new(access_key, SecretKey::from(secret_key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read_back() {
        let keys = check("ELTONKEY", "secret/with+signs=").expect("lawful");
        let read = parse(&render(&keys, Path::new("/data/credentials"), "https://elton:9000")).expect("readable");
        assert_eq!(read.access_key(), "ELTONKEY");
        assert_eq!(read.secret_key().expose(), "secret/with+signs=");
        let text = render(&keys, Path::new("/data/credentials"), "https://elton:9000");
        assert!(text.contains("AWS_ENDPOINT_URL=https://elton:9000\n"), "{text}");
    }

    #[test]
    fn what_is_missing_or_impossible_is_named() {
        let failed = |text: &str| parse(text).map(|_| ()).expect_err("not usable");
        assert_eq!(failed("[default]\naws_access_key_id = abc\n"), InvalidCredentials::Missing(SECRET_KEY));
        assert_eq!(failed("aws_access_key_id=a/b\naws_secret_access_key=12345678"), InvalidCredentials::AccessKey);
        assert_eq!(failed("aws_access_key_id=abc\naws_secret_access_key=123"), InvalidCredentials::SecretKey);
    }
}
