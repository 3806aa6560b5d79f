//! The newest head, remembered outside of the database, so that an older state of the whole database is noticed.

use std::path::Path;

use crate::infra::audit_key::Keyring;

use super::{Signed, SignedView};

/// Reads what an earlier process remembered.
pub(super) async fn read(keyring: &Keyring) {
    let Some(path) = keyring.head_file() else { return };
    match load(path).await {
        Ok(Some(head)) => keyring.remember(head.seq, head.hash),
        Ok(None) => {}
        Err(cause) => {
            tracing::warn!(file = %path.display(), cause, "can't read the remembered head of the audit trail");
        }
    }
}

async fn load(path: &Path) -> Result<Option<Signed>, String> {
    let text = match tokio::fs::read(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let view: SignedView = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    view.read().map(Some).ok_or_else(|| "it holds no place of a chain".to_owned())
}

/// Remembers a head. The file is written as a whole, but not forced to the disk: after a crash it may be an older one.
pub(super) async fn write(keyring: &Keyring, head: &Signed) {
    keyring.remember(head.seq, head.hash);
    let Some(path) = keyring.head_file() else { return };
    // Another process may have been here with a newer one.
    if matches!(load(path).await, Ok(Some(there)) if there.seq >= head.seq) {
        return;
    }
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let text = serde_json::to_vec(&head.view()).unwrap_or_default();
    let written = async {
        tokio::fs::write(&temporary, text).await?;
        tokio::fs::rename(&temporary, path).await
    };
    if let Err(cause) = written.await {
        tracing::debug!(file = %path.display(), %cause, "can't remember the head of the audit trail");
    }
}
