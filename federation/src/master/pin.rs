//! Pins: claims of mounts, volumes and clones on a number, which stays a snapshot until they end.

use std::time::Duration;

use super::home::{Home, bucket};
use super::lens::resolve;
use super::{Limit, Limits, Master};
use crate::catalog::rows::{PinRow, Record};
use crate::catalog::{KeyRange, Rows, Table, keys};
use crate::error::{Error, Result};
use crate::types::{BucketAt, BucketName, MemberId, Number, PinId, Timestamp};

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PinInfo {
    /// Its id.
    pub pin: PinId,
    /// What it keeps.
    pub number: Number,
    /// When it ends unless it is renewed, by the clock of the bucket's home.
    pub expires: Timestamp,
}

impl Master {
    /// Keeps a state of a bucket for a while: from now on its number does not go with the floor. `member` is the cluster
    /// that asks, if it is another.
    pub async fn pin(
        &self,
        at: &BucketAt,
        member: Option<MemberId>,
        holder: &str,
        lasting: Duration,
    ) -> Result<PinInfo> {
        self.admit()?;
        self.check_lasting(lasting)?;
        Limits::check(Limit::PinHolderBytes, holder.len(), self.limits.pin_holder_bytes_max)?;
        let (at, holder, pin) = (at.clone(), holder.to_owned(), self.ids.pin());
        let (expires, maximum) = (self.clock.wall().plus(lasting), self.limits.bucket_pins_max);
        self.writer
            .transact(move |txn| {
                let home = Home::open(txn, &at.bucket)?;
                let number = match &at.snapshot {
                    None => home.row.last,
                    Some(snapshot) => resolve(home.txn, home.id, &home.row, snapshot)?,
                };
                let count = home.txn.range(Table::Pins, KeyRange::prefix(&keys::bucket(home.id)))?.count();
                Limits::check(Limit::BucketPins, count + 1, maximum)?;
                home.txn.put(keys::pin(home.id, pin), &PinRow { number, expires: Some(expires), holder, member });
                Ok(PinInfo { pin, number, expires })
            })
            .await
    }

    /// Lets a pin last from now on. One that expired counts until the collector has removed it.
    pub async fn renew_pin(
        &self,
        name: &BucketName,
        member: Option<MemberId>,
        pin: PinId,
        lasting: Duration,
    ) -> Result<PinInfo> {
        self.check_lasting(lasting)?;
        let (name, expires) = (name.clone(), self.clock.wall().plus(lasting));
        self.writer
            .transact(move |txn| {
                let (id, _) = bucket(txn, &name)?;
                let key = keys::pin(id, pin);
                let mut row = find(txn, &name, &key, member, pin)?;
                row.expires = Some(expires);
                txn.put(key, &row);
                Ok(PinInfo { pin, number: row.number, expires })
            })
            .await
    }

    /// Ends a pin.
    pub async fn unpin(&self, name: &BucketName, member: Option<MemberId>, pin: PinId) -> Result<()> {
        let name = name.clone();
        self.writer
            .transact(move |txn| {
                let mut home = Home::open(txn, &name)?;
                let key = keys::pin(home.id, pin);
                find(home.txn, &name, &key, member, pin)?;
                home.txn.remove(Table::Pins, key);
                // What only it kept may go.
                home.row.released = true;
                home.save();
                Ok(())
            })
            .await
    }

    fn check_lasting(&self, lasting: Duration) -> Result<()> {
        if lasting.is_zero() {
            return Err(Error::InvalidRequest { reason: "a pin lasts for a second at least".to_owned() });
        }
        Limits::check(Limit::PinSeconds, lasting.as_secs(), self.limits.pin_max.as_secs())
    }
}

/// The row of a pin of this asker: nobody ends or prolongs another's.
fn find(
    rows: &(impl Rows + ?Sized),
    name: &BucketName,
    key: &[u8],
    member: Option<MemberId>,
    pin: PinId,
) -> Result<PinRow> {
    let row = PinRow::load(rows, key)?.filter(|row| row.member == member && row.expires.is_some());
    row.ok_or_else(|| Error::NoSuchPin { bucket: name.clone(), pin })
}
