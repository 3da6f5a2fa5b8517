//! An ftpd made of libunftp, as programs make one that serve FTP themselves: a runtime with
//! several threads carries all sessions. Arguments: the folder to serve, first and last passive
//! port, certificate and key (empty: in clear only), and the addresses to listen on.

use std::{env, net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use libunftp::{
    ServerBuilder,
    options::{ActivePassiveMode, TlsFlags},
};
use tokio::task::JoinSet;
use unftp_sbe_fs::Filesystem;

/// More than the sandbox's machine may have processors, so that sessions change threads.
const THREADS: usize = 4;

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("making a runtime")?;
    runtime.block_on(serve())
}

async fn serve() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let mut word = |what: &str| arguments.next().with_context(|| format!("no {what}"));
    let root = PathBuf::from(word("folder")?);
    let first: u16 = word("first port")?.parse().context("the first port")?;
    let last: u16 = word("last port")?.parse().context("the last port")?;
    let (certificate, key) = (word("certificate")?, word("key")?);
    // The storage is made anew for each session, when it is too late to say that it cannot be.
    Filesystem::new(&root).with_context(|| format!("opening {}", root.display()))?;
    let mut servers = JoinSet::new();
    for address in arguments {
        let root = root.clone();
        let storage = move || Filesystem::new(&root).expect("the folder was there at the start");
        let mut builder = ServerBuilder::new(Box::new(storage))
            .passive_ports(first..=last)
            .active_passive_mode(ActivePassiveMode::ActiveAndPassive);
        if !certificate.is_empty() {
            // TLS 1.3 is not among what it offers by itself.
            builder = builder
                .ftps(&certificate, &key)
                .ftps_tls_flags(TlsFlags::default() | TlsFlags::V1_3);
        }
        let server = builder.build().context("setting the server up")?;
        let address: SocketAddr = address.parse().context("an address")?;
        servers.spawn(async move {
            server
                .listen(address.to_string())
                .await
                .with_context(|| format!("listening on {address}"))
        });
    }
    // None of them ends but by an error.
    match servers.join_next().await {
        Some(ended) => ended.context("a server panicked")?,
        None => Ok(()),
    }
}
