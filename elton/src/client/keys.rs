//! Which keys a command signs with.

use gateway::credentials::RootCredentials;

use super::ClientError;
use crate::credentials_file;
use crate::data_dir::{DataDir, read_if_there};

/// Pairs of variables, in the order they are looked at.
const VARIABLES: [(&str, &str); 2] =
    [("ELTON_ACCESS_KEY", "ELTON_SECRET_KEY"), ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")];

/// Keys, and where they come from.
#[derive(Debug)]
pub struct Keys {
    /// The pair.
    pub credentials: RootCredentials,
    /// Where it comes from, for messages.
    pub origin: String,
}

/// The keys of the environment, else those of the data directory.
pub fn find(data: &DataDir, environment: impl Fn(&str) -> Option<String>) -> Result<Keys, ClientError> {
    let variable = |name: &str| environment(name).filter(|value| !value.is_empty());
    for (access, secret) in VARIABLES {
        let origin = format!("{access} and {secret}");
        match (variable(access), variable(secret)) {
            (Some(access_key), Some(secret_key)) => {
                let checked = credentials_file::check(&access_key, &secret_key);
                return match checked {
                    Ok(credentials) => Ok(Keys { credentials, origin }),
                    Err(error) => Err(ClientError::Keys { origin, reason: error.to_string() }),
                };
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => {
                return Err(ClientError::Keys { origin, reason: "only one of the two is set".to_owned() });
            }
        }
    }
    let path = data.credentials();
    let unusable = |reason: String| ClientError::Keys { origin: path.display().to_string(), reason };
    let text = read_if_there(&path).map_err(|error| unusable(error.to_string()))?;
    let text = text.ok_or_else(|| ClientError::NoKeys { credentials: path.clone() })?;
    let credentials = credentials_file::parse(&text).map_err(|error| unusable(error.to_string()))?;
    Ok(Keys { credentials, origin: path.display().to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(variables: &[(&str, &str)], data: &DataDir) -> Result<Keys, ClientError> {
        find(data, |name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn eltons_variables_go_over_awss_and_those_over_the_file() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let data = DataDir::new(Some(folder.path()));
        let aws = [("AWS_ACCESS_KEY_ID", "AWSKEY"), ("AWS_SECRET_ACCESS_KEY", "12345678")];
        let both = [aws[0], aws[1], ("ELTON_ACCESS_KEY", "ELTONKEY"), ("ELTON_SECRET_KEY", "12345678")];
        assert_eq!(find_in(&both, &data).expect("there").credentials.access_key(), "ELTONKEY");
        assert_eq!(find_in(&aws, &data).expect("there").credentials.access_key(), "AWSKEY");
        assert!(matches!(find_in(&[], &data), Err(ClientError::NoKeys { .. })));
        assert!(matches!(find_in(&aws[..1], &data), Err(ClientError::Keys { .. })));
        let kept = credentials_file::check("FILEKEY", "12345678").expect("lawful");
        std::fs::write(
            data.credentials(),
            credentials_file::render(&kept, &data.credentials(), "http://127.0.0.1:9000"),
        )
        .expect("written");
        assert_eq!(find_in(&[], &data).expect("there").credentials.access_key(), "FILEKEY");
    }
}
