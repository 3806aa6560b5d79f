//! Password hashing: argon2id, off the async threads, with a bound on how many run and how many wait.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Argon2, Params};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use prometheus::IntGauge;
use tokio::sync::Semaphore;

use crate::base::rng::Rng;
use crate::base::secret::Secret;
use crate::infra::telemetry::current;

/// How many callers may wait for each hash that runs. At 17 ms a hash the last of them waits about half a second.
const WAITING_PER_PERMIT: usize = 32;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many callers wait already.
    #[error("too many passwords are being checked")]
    Busy,
    /// The algorithm refused: a defect, or a damaged hash in the database.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

/// Hashes and checks passwords with the parameters that OWASP's password storage cheat sheet recommends for argon2id:
/// 19 MiB, two passes, one lane.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    rng: Arc<dyn Rng>,
    /// Slots of those who run or wait.
    admitted: Arc<Semaphore>,
    /// Slots of those who run.
    running: Arc<Semaphore>,
    /// Slots for judging new passwords: apart, so that judging can't keep anybody from logging in.
    judged: Arc<Semaphore>,
    judging: Arc<Semaphore>,
    waiting: IntGauge,
    /// The hash of a password that nobody has, so that an unknown name costs what a wrong password does.
    nobody: String,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passwords")
    }
}

impl Passwords {
    /// `parallelism` hashes at once (0: one a core). `waiting` shows how many run or wait.
    #[must_use]
    pub fn new(parallelism: usize, rng: Arc<dyn Rng>, waiting: IntGauge) -> Self {
        let parallelism = match parallelism {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        };
        let nobody = unknowable(&*rng);
        Self(Arc::new(Inner {
            rng,
            admitted: Arc::new(Semaphore::new(parallelism * (1 + WAITING_PER_PERMIT))),
            running: Arc::new(Semaphore::new(parallelism)),
            judged: Arc::new(Semaphore::new(1 + WAITING_PER_PERMIT)),
            judging: Arc::new(Semaphore::new(1)),
            waiting,
            nobody,
        }))
    }

    /// The hash of a password, with a salt of its own, as a PHC string.
    ///
    /// # Errors
    /// Too many callers wait.
    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        let rng = Arc::clone(&self.0.rng);
        self.run(move || hash(password.expose().as_bytes(), &*rng)).await
    }

    /// Whether the password belongs to the hash. Without a hash it takes the same time and is false.
    ///
    /// # Errors
    /// Too many callers wait, or the hash is damaged.
    pub async fn verify(&self, password: Secret, hash: Option<String>) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.0.nobody.clone());
        self.run(move || {
            let hash = PasswordHash::new(&hash).map_err(|e| PasswordError::Failed(e.to_string()))?;
            Ok(Argon2::default().verify_password(password.expose().as_bytes(), &hash).is_ok() && known)
        })
        .await
    }

    /// Judges a new password, off the async threads, one at a time.
    ///
    /// # Errors
    /// Too many callers wait.
    pub async fn judge(&self, judgement: impl FnOnce() -> bool + Send + 'static) -> Result<bool, PasswordError> {
        bounded(&self.0.judged, &self.0.judging, &self.0.waiting, move || Ok(judgement())).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        bounded(&self.0.admitted, &self.0.running, &self.0.waiting, work).await
    }
}

/// Runs work under a bound on how many run or wait, and one on how many run.
async fn bounded<T: Send + 'static>(
    admitted: &Arc<Semaphore>,
    running: &Arc<Semaphore>,
    waiting: &IntGauge,
    work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
) -> Result<T, PasswordError> {
    let admitted = Arc::clone(admitted).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
    let waiting = Waiting::enter(waiting);
    let running = Arc::clone(running).acquire_owned().await.map_err(|_| PasswordError::Busy)?;
    // The slots go along with the work: it can't be stopped, even if its caller goes away.
    tokio::task::spawn_blocking(current::carried_to_thread(move || {
        let _held = (admitted, running, waiting);
        work()
    }))
    .await
    .map_err(|error| PasswordError::Failed(error.to_string()))?
}

struct Waiting(IntGauge);

impl Waiting {
    fn enter(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A hash that no password has, since its output is random. Checking against it costs what any check costs; making it
/// costs nothing, where hashing some password would double the memory that the process needs to start.
fn unknowable(rng: &dyn Rng) -> String {
    let mut random = [0; 16 + Params::DEFAULT_OUTPUT_LEN];
    rng.fill(&mut random);
    let (salt, output) = random.split_at(16);
    let (m, t, p) = (Params::DEFAULT_M_COST, Params::DEFAULT_T_COST, Params::DEFAULT_P_COST);
    let (salt, output) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(output));
    format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${output}")
}

fn hash(password: &[u8], rng: &dyn Rng) -> Result<String, PasswordError> {
    let mut salt = [0; 16];
    rng.fill(&mut salt);
    Argon2::default()
        .hash_password_with_salt(password, &salt)
        .map(|hash: PasswordHash| hash.to_string())
        .map_err(|error| PasswordError::Failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SystemRng;

    fn passwords(parallelism: usize) -> Passwords {
        Passwords::new(parallelism, Arc::new(SystemRng), IntGauge::new("waiting", "test").unwrap())
    }

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test]
    async fn a_hash_belongs_to_its_password_alone() {
        let passwords = passwords(1);
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash(secret("correct horse")).await.unwrap(), "salted");
        assert!(passwords.verify(secret("correct horse"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(secret("correct horsf"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(secret(""), None).await.unwrap());
        let work = |hash: &str| hash.rsplit_once('$').unwrap().0.rsplit_once('$').unwrap().0.to_owned();
        assert_eq!(work(&passwords.0.nobody), work(&passwords.hash(secret("x")).await.unwrap()), "as much work");
        assert!(matches!(
            passwords.verify(secret("x"), Some("damaged".to_owned())).await,
            Err(PasswordError::Failed(_))
        ));
    }

    #[tokio::test]
    async fn past_the_bound_callers_are_turned_away() {
        let passwords = passwords(1);
        let (release, held) = std::sync::mpsc::channel::<()>();
        let blocked = {
            let p = passwords.clone();
            tokio::spawn(async move {
                p.run(move || {
                    let _ = held.recv();
                    Ok(())
                })
                .await
            })
        };
        while passwords.0.running.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let waiting: Vec<_> = (0..WAITING_PER_PERMIT)
            .map(|_| {
                let p = passwords.clone();
                tokio::spawn(async move { p.run(|| Ok(())).await })
            })
            .collect();
        while passwords.0.admitted.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.run(|| Ok(())).await, Err(PasswordError::Busy)));
        release.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        for waiter in waiting {
            waiter.await.unwrap().unwrap();
        }
        assert_eq!(passwords.0.waiting.get(), 0);
    }
}
