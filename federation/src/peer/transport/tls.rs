//! Handshakes between clusters, over any stream of bytes: TLS 1.3 with raw public keys (RFC 7250) that both sides pin.
//!
//! There are no certificates, names or validity times, so no clock and no authority can cut clusters off from each
//! other. Sessions are never resumed: every connection proves the keys anew, and a removed peer stays out.

use std::io;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::version::TLS13;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use rustls::{client::AlwaysResolvesClientRawPublicKeys, server::AlwaysResolvesServerRawPublicKeys};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream, client, server};

use super::{Admission, Direction, TransportError};
use crate::peer::who::{Identity, fingerprint};
use crate::types::{ClusterId, PeerAddress};

mod verify;

pub(super) use verify::KeyRefused;
use verify::{AdmittedKeys, PinnedKey};

/// What the listener says once it has admitted the dialler. In TLS 1.3 the dialler is done before its key was looked
/// at; without this byte it would take a refusal for a connection that broke.
const WELCOME: u8 = b'+';

/// The name in the handshake, where certificates would need one. It is not sent.
const SERVER_NAME: &str = "elton";

impl Direction {
    const ALL: [Direction; 2] = [Direction::Forward, Direction::Reverse];

    /// The protocol by which the handshake names the direction (ALPN).
    fn protocol(self) -> &'static [u8] {
        match self {
            Direction::Forward => b"elton/1",
            Direction::Reverse => b"elton-reverse/1",
        }
    }
}

/// What TLS said, where it was TLS that failed.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Makes handshakes as one cluster.
#[derive(Debug)]
pub(super) struct Handshakes {
    own: ClusterId,
    key: Arc<CertifiedKey>,
    provider: Arc<CryptoProvider>,
}

impl Handshakes {
    pub(super) fn new(identity: &Identity) -> Self {
        let signing = identity.signing_key();
        let public = signing.public_key().expect("an Ed25519 key knows its public key");
        let shown = CertificateDer::from(public.as_ref().to_vec());
        Self::showing(identity.cluster(), shown, signing)
    }

    fn showing(own: ClusterId, shown: CertificateDer<'static>, signing: Arc<dyn SigningKey>) -> Self {
        let key = Arc::new(CertifiedKey::new(vec![shown], signing));
        Handshakes { own, key, provider: Arc::new(rustls::crypto::ring::default_provider()) }
    }

    /// The dialler's side. Has no deadline of its own.
    pub(super) async fn connect<S>(
        &self,
        stream: S,
        address: &PeerAddress,
        expect: ClusterId,
        direction: Direction,
    ) -> Result<client::TlsStream<S>, TransportError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(Arc::new(self.client(expect, direction)));
        let name = ServerName::try_from(SERVER_NAME).expect("a DNS name");
        let welcomed = async {
            let mut stream = connector.connect(name, stream).await?;
            let mut word = [0];
            stream.read_exact(&mut word).await?;
            if word == [WELCOME] { Ok(stream) } else { Err(io::Error::other("no welcome after the handshake")) }
        };
        welcomed.await.map_err(|error| self.explain(error, address, expect))
    }

    fn explain(&self, error: io::Error, address: &PeerAddress, expected: ClusterId) -> TransportError {
        let address = address.clone();
        match (KeyRefused::of(&error), tls_error(&error)) {
            (Some(&KeyRefused::Unexpected(found)), _) => TransportError::WrongKey { address, expected, found },
            // How `KeyRefused::NotAdmitted` arrives here.
            (_, Some(rustls::Error::AlertReceived(AlertDescription::CertificateUnknown))) => {
                TransportError::Refused { address, own: self.own }
            }
            _ => TransportError::Handshake { address, source: error },
        }
    }

    fn client(&self, expect: ClusterId, direction: Direction) -> ClientConfig {
        let verifier = Arc::new(PinnedKey::new(&self.provider, expect));
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = vec![direction.protocol().to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config
    }

    /// The listener, which admits whom `admission` says.
    pub(super) fn listener(&self, admission: Admission) -> Listener {
        let verifier = Arc::new(AdmittedKeys::new(&self.provider, admission));
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("ring has TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(self.key.clone())));
        config.alpn_protocols = Direction::ALL.map(|direction| direction.protocol().to_vec()).into();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Listener(TlsAcceptor::from(Arc::new(config)))
    }
}

/// The listener's side of handshakes.
#[derive(Clone)]
pub(super) struct Listener(TlsAcceptor);

/// A dialler that proved its key and waits for the welcome.
pub(super) struct Arrival<S> {
    stream: server::TlsStream<S>,
    /// Who it is.
    pub(super) peer: ClusterId,
    /// Who asks.
    pub(super) direction: Direction,
}

impl Listener {
    /// Takes a dialler's proof. Has no deadline of its own.
    pub(super) async fn accept<S>(&self, stream: S) -> io::Result<Arrival<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.0.accept(stream).await?;
        let tls = stream.get_ref().1;
        let key = tls.peer_certificates().and_then(|keys| keys.first());
        let peer = key.map(|key| fingerprint(key)).ok_or_else(|| io::Error::other("the dialler showed no key"))?;
        let direction = Direction::ALL
            .into_iter()
            .find(|direction| tls.alpn_protocol() == Some(direction.protocol()))
            .ok_or_else(|| io::Error::other("the dialler named no protocol"))?;
        Ok(Arrival { stream, peer, direction })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Arrival<S> {
    /// Tells the dialler that it is admitted.
    pub(super) async fn welcome(mut self) -> io::Result<TlsStream<S>> {
        self.stream.write_all(&[WELCOME]).await?;
        self.stream.flush().await?;
        Ok(TlsStream::Server(self.stream))
    }
}

#[cfg(test)]
mod tests;
