//! The token endpoint of a rehearsal: applications get their tokens there as from Microsoft Entra, and log in with them at the other endpoint.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::folder::Folder;
use super::{QUIET, say};
use crate::secret::Secret;
use crate::sim::{App, AppProof, Identity, Issuer, TokenEndpoint, TokenRequest};

/// It runs as long as this lives.
pub(super) struct Tokens {
    endpoint: TokenEndpoint,
    issuer: Issuer,
    /// Client id, and the file with the secret.
    apps: Vec<(String, PathBuf)>,
}

/// Reads `CLIENT_ID=SECRET`.
pub(super) fn app(text: &str) -> Result<App, String> {
    let form = "write CLIENT_ID=SECRET, such as 00000000-0000-0000-0000-000000000001=rehearsal";
    let (id, secret) = text.split_once('=').ok_or(form)?;
    // It becomes the name of a file too.
    if id.is_empty() || secret.is_empty() || !id.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-') {
        return Err(format!("{form}: the id has letters, digits and hyphens"));
    }
    Ok(App::new(id, AppProof::Secret(Secret::new(secret.to_owned()))))
}

/// Waits until a token was asked for; for ever where there is no endpoint.
pub(super) async fn asked(tokens: Option<&Tokens>) {
    match tokens {
        // Time without news is no fault.
        Some(tokens) => drop(tokens.endpoint.wait_until(|seen| !seen.requests.is_empty(), QUIET).await),
        None => std::future::pending().await,
    }
}

impl Tokens {
    /// Starts the endpoint, and leaves the applications' secrets in the folder.
    pub async fn start(apps: &[App], listen: SocketAddr, identity: Identity, folder: &Folder) -> io::Result<Self> {
        let issuer = Issuer::new(apps.to_vec());
        let endpoint = TokenEndpoint::start_at(issuer.clone(), listen, identity).await;
        let endpoint = endpoint.map_err(|why| io::Error::new(why.kind(), format!("{listen}: {why}")))?;
        let written = apps.iter().filter_map(|app| match &app.proof {
            AppProof::Secret(secret) => Some(folder.secret(&app.client_id, secret).map(|file| (app.client_id.clone(), file))),
            AppProof::Certificate(_) => None,
        });
        Ok(Self { endpoint, issuer, apps: written.collect::<io::Result<_>>()? })
    }

    /// Who knows the tokens.
    pub fn issuer(&self) -> Issuer {
        self.issuer.clone()
    }

    /// What to write into a configuration.
    pub fn introduction(&self, folder: &Folder) -> String {
        let mut text = format!("token endpoint          {}\n", self.endpoint.url());
        for (number, (id, secret)) in self.apps.iter().enumerate() {
            let name = if number == 0 { "rehearsal".to_owned() } else { format!("rehearsal-{}", number + 1) };
            text += &format!(
                "an application          [[app]]\n                        name = {name:?}\n                        client_id = {id:?}\n                        \
                 client_secret_file = {:?}\n                        token_url = {:?}\n                        tls_ca_file = {:?}\n\n\
                 its accounts            [[account]]\n                        address = ...\n                        app = {name:?}\n\n",
                secret.display().to_string(),
                self.endpoint.url(),
                folder.ca().display().to_string(),
            );
        }
        text
    }

    /// Tells who has asked since the last time, and what came of it.
    pub fn tell(&self) {
        for TokenRequest { client_id, outcome } in self.endpoint.drain() {
            let who = if client_id.is_empty() { "somebody" } else { &client_id };
            match outcome.as_str() {
                "issued" => say(&format!("token issued to {who}\n")),
                why => say(&format!("token refused to {who}: {why}\n")),
            }
        }
    }
}
