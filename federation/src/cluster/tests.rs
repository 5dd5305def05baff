//! Clusters that know each other, in one process.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{TryStreamExt, stream};
use tokio::time::Instant;

use super::*;
use crate::blobs::MemoryBackend;
use crate::blocking::Inline;
use crate::catalog::{Catalog, MemoryCatalog};
use crate::clock::Clock;
use crate::ids::SeededIds;
use crate::master::{Actor, Description, Precondition, PutRequest, Relaying, Seams, Which};
use crate::peer::{Invitation, MemoryNetwork, Secret, Transport};
use crate::types::{BucketAt, ClusterId, ObjectPath, PeerAddress, Rights, Timestamp};

/// Time as the runtime has it.
struct Runtime(Instant);

impl Clock for Runtime {
    fn wall(&self) -> Timestamp {
        Timestamp(1_700_000_000_000).plus(self.0.elapsed())
    }

    fn boottime(&self) -> Duration {
        self.0.elapsed()
    }
}

fn id(index: u8) -> ClusterId {
    ClusterId([index; 32])
}

fn address(index: u8) -> PeerAddress {
    format!("c{index}.example:9001").parse().expect("lawful")
}

fn actor() -> Actor {
    Actor("tester".to_owned())
}

fn name(name: &str) -> BucketName {
    name.parse().expect("lawful")
}

async fn started(network: &MemoryNetwork, index: u8) -> Arc<Cluster> {
    let seams = Seams {
        catalog: Arc::new(MemoryCatalog::new()),
        backend: Arc::new(MemoryBackend::default()),
        blocking: Arc::new(Inline),
        clock: Arc::new(Runtime(Instant::now())),
        ids: Arc::new(SeededIds::new(u64::from(index))),
    };
    let master = Master::simulated(seams, Limits { disk_reserve: 0, ..Limits::default() }).await.expect("opens");
    let network = network.clone();
    let config = FederationConfig {
        cluster: id(index),
        name: format!("c{index}").parse().expect("lawful"),
        transport: Box::new(move |admission| {
            Arc::new(network.host(address(index), id(index), admission)) as Arc<dyn Transport>
        }),
        advertise: Some(address(index)),
        cache_bytes_max: 1 << 30,
        known_rows_max: 1000,
        relaying: Relaying::On,
    };
    Cluster::federated(Arc::new(master), config).await.expect("starts")
}

async fn put(cluster: &Cluster, key: &str, content: Vec<u8>) -> Result<()> {
    let length = content.len() as u64;
    let source = stream::iter([Ok::<_, std::io::Error>(Bytes::from(content))]);
    let body = cluster.blobs().store(source, (), Some(length), length).await.expect("stores").0;
    let (md5, checksum) = ([0; 16], None);
    let (description, precondition) = (Description::default(), Precondition::default());
    let request = PutRequest { body, md5, checksum, description, precondition };
    let path = ObjectPath::try_from(key.as_bytes()).expect("lawful");
    cluster.put(&actor(), &name("bucket"), &path, request).await.map(drop)
}

/// A home and a member that has read and written.
async fn pair(network: &MemoryNetwork) -> (Arc<Cluster>, Arc<Cluster>) {
    let (home, member) = (started(network, 1).await, started(network, 2).await);
    home.create_bucket(&actor(), &name("bucket"), "").await.expect("creates");
    let invited = home.federation().expect("federated").invite(home.master()).await.expect("invites");
    let secret = Secret::from_bytes(*invited.secret.expose());
    let invitation = Invitation { address: address(1), cluster: id(1), secret };
    let at_member = member.federation().expect("federated");
    let home_name = at_member.join(&invitation).await.expect("joins");
    home.share(&actor(), &name("bucket"), "c2", Some(Rights::ReadWrite)).await.expect("shares");
    member.link(&actor(), home_name.as_str(), &name("bucket"), &name("bucket")).await.expect("links");
    put(&home, "large", vec![7; 300_000]).await.expect("written at the home");
    put(&member, "small", vec![7; 300]).await.expect("written at the member");
    let (at, path) = (BucketAt::newest(name("bucket")), ObjectPath::try_from(&b"large"[..]).expect("lawful"));
    let opened = member.get(&at, &path, Which::Newest).await.expect("there");
    let chunks: Vec<Bytes> = opened.body.read(0..300_000).try_collect().await.expect("read");
    assert_eq!(chunks.concat(), vec![7; 300_000]);
    (home, member)
}

struct Held(Weak<Master>, Weak<dyn Catalog>);

impl Held {
    fn of(cluster: &Cluster) -> Held {
        Held(Arc::downgrade(cluster.master()), Arc::downgrade(cluster.master().writer().catalog()))
    }

    async fn is_gone(&self) -> bool {
        for _ in 0..300 {
            if self.0.upgrade().is_none() && self.1.upgrade().is_none() {
                return true;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        false
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_dropped_is_gone() {
    let network = MemoryNetwork::default();
    let (home, member) = pair(&network).await;
    let (of_home, of_member) = (Held::of(&home), Held::of(&member));
    drop(member);
    assert!(of_member.is_gone().await, "something holds a member that was dropped");
    drop(home);
    assert!(of_home.is_gone().await, "something holds a home that was dropped");
}

#[tokio::test(start_paused = true)]
async fn so_is_one_that_has_questions_left_for_others() {
    let network = MemoryNetwork::default();
    let (home, member) = pair(&network).await;
    network.silence(id(1), id(2));
    put(&member, "open", vec![7; 300]).await.expect_err("the home is silent");
    let held = Held::of(&member);
    drop(member);
    assert!(held.is_gone().await, "what goes on in the background holds a member that was dropped");
    drop(home);
}
