//! Handshakes where one side cheats.

use super::*;
use crate::ids::SystemIds;

fn address() -> PeerAddress {
    "there.example:9001".parse().expect("an address")
}

fn everybody() -> Admission {
    Arc::new(|_| true)
}

async fn shake(
    dialler: &Handshakes,
    listener: &Listener,
    expect: ClusterId,
) -> (Result<(), TransportError>, io::Result<ClusterId>) {
    let (here, there) = tokio::io::duplex(64 * 1024);
    let address = address();
    let dialled = async { dialler.connect(here, &address, expect, Direction::Forward).await.map(drop) };
    let taken = async {
        let arrival = listener.accept(there).await?;
        let peer = arrival.peer;
        arrival.welcome().await?;
        Ok(peer)
    };
    tokio::join!(dialled, taken)
}

#[tokio::test]
async fn both_sides_prove_their_keys() {
    let (one, other) = (Identity::generate(&SystemIds), Identity::generate(&SystemIds));
    let listener = Handshakes::new(&other).listener(everybody());
    let (dialled, taken) = shake(&Handshakes::new(&one), &listener, other.cluster()).await;
    dialled.expect("the key that was expected");
    assert_eq!(taken.expect("admitted"), one.cluster());
}

/// What `identity` shows, proved with a key of somebody else's.
fn stolen(identity: &Identity) -> Handshakes {
    let public = identity.signing_key().public_key().expect("its public key").as_ref().to_vec();
    let thief = Identity::generate(&SystemIds);
    Handshakes::showing(identity.cluster(), CertificateDer::from(public), thief.signing_key())
}

#[tokio::test]
async fn a_listener_that_only_knows_the_public_key_is_refused() {
    let (one, other) = (Identity::generate(&SystemIds), Identity::generate(&SystemIds));
    let listener = stolen(&other).listener(everybody());
    let (dialled, taken) = shake(&Handshakes::new(&one), &listener, other.cluster()).await;
    assert!(matches!(dialled, Err(TransportError::Handshake { .. })), "{dialled:?}");
    assert!(taken.is_err());
}

#[tokio::test]
async fn a_dialler_that_only_knows_the_public_key_is_refused_and_not_asked_about() {
    let (one, other) = (Identity::generate(&SystemIds), Identity::generate(&SystemIds));
    let listener = Handshakes::new(&other).listener(Arc::new(|_| panic!("nobody proved a key")));
    let (dialled, taken) = shake(&stolen(&one), &listener, other.cluster()).await;
    assert!(matches!(dialled, Err(TransportError::Handshake { .. })), "{dialled:?}");
    assert!(taken.is_err());
}

/// A dialler with the TLS of browsers: it shows no key and knows no raw ones.
#[tokio::test]
async fn who_shows_no_key_is_refused() {
    let other = Identity::generate(&SystemIds);
    let listener = Handshakes::new(&other).listener(everybody());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = Arc::new(rustls::RootCertStore::empty());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("ring has TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (here, there) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from(SERVER_NAME).expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    let (dialled, taken) = tokio::join!(connector.connect(name, here), listener.accept(there));
    assert!(dialled.is_err());
    assert!(taken.is_err());
}
