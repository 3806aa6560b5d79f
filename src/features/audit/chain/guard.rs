//! Before the chain is drawn on: is its end the one that was left? Whoever seals after a manipulation would sign it.

use crate::infra::audit_key::Keyring;
use crate::infra::db::{Conn, DbError};

use super::rules::{Kind, START};
use super::{Signed, Trust, store};

/// Whether the chain may be drawn on from this head; else why not, in a sentence.
///
/// # Errors
/// The storage.
pub(super) async fn check(
    keyring: &Keyring,
    mut conn: Conn<'_>,
    head: Option<&Signed>,
) -> Result<Result<(), String>, DbError> {
    let Some(head) = head else {
        return Ok(Err("its head was removed".to_owned()));
    };
    let (_, last) = store::ends(conn.lend()).await?;
    if last.is_some_and(|last| last > head.seq) {
        return Ok(Err(format!("there are entries behind its head, {}", head.seq)));
    }
    if let Err(why) = signature(keyring, conn.lend(), head).await? {
        return Ok(Err(why));
    }
    let kept = store::newest_checkpoint(conn.lend(), Kind::Head).await?;
    if let Some(kept) = kept.filter(|kept| kept.signed.seq > head.seq) {
        return Ok(Err(format!("there is a checkpoint of entry {}, and its head is {}", kept.signed.seq, head.seq)));
    }
    let pruned = store::newest_checkpoint(conn.lend(), Kind::Pruned).await?;
    let pruned_through = pruned.as_ref().map_or(0, |pruned| pruned.signed.seq);
    let at_head = match (head.seq, pruned) {
        (0, _) => Some(START),
        (seq, Some(pruned)) if pruned.signed.seq == seq => Some(pruned.signed.hash),
        (seq, _) => store::hash_at(conn.lend(), seq).await?,
    };
    if at_head != Some(head.hash) {
        return Ok(Err(format!("its head, {}, isn't the entry of that number", head.seq)));
    }
    if let Some((seq, hash)) = keyring.remembered() {
        let is_there = seq <= pruned_through || store::hash_at(conn, seq).await? == Some(hash);
        if !is_there {
            return Ok(Err(format!(
                "entry {seq}, which this process remembers, isn't there: the database was rolled back, or rewritten"
            )));
        }
    }
    Ok(Ok(()))
}

/// Whether the head's signature lets this process sign the next one.
async fn signature(keyring: &Keyring, conn: Conn<'_>, head: &Signed) -> Result<Result<(), String>, DbError> {
    if head.seq == 0 {
        return Ok(Ok(()));
    }
    Ok(match head.trust(keyring.trusted(), Kind::Head) {
        Trust::Good if keyring.signer().is_none() => Err("this process has no key to sign with".to_owned()),
        Trust::UnknownKey(id) => Err(format!(
            "its head is signed by the key {id}, which this process doesn't trust (KEYWARD_AUDIT_PUBLIC_KEYS)"
        )),
        Trust::Bad => Err("the signature of its head isn't good".to_owned()),
        Trust::Unsigned if keyring.signer().is_some() && !store::keys(conn, 1).await?.is_empty() => {
            Err("its head isn't signed any more".to_owned())
        }
        // A trail that has never been signed is taken over as it is.
        Trust::Good | Trust::Unsigned => Ok(()),
    })
}
