//! How long a node runs: until a signal, or until whoever started it is gone.

use tokio::signal::unix::{SignalKind, signal};

/// Waits for SIGTERM, for Ctrl-C or, with `EPOST_LIFELINE=1` in the environment, for the end of standard input: a
/// parent that holds the other end takes its nodes with it, however it dies.
pub async fn told_to_stop() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            // Without a handler the signal ends the process at once, which the store survives.
            Err(_) => std::future::pending().await,
        }
    };
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = terminate => {}
        () = interrupt => {}
        () = lifeline() => {}
    }
}

async fn lifeline() {
    if std::env::var_os("EPOST_LIFELINE").is_none_or(|value| value != "1") {
        return std::future::pending().await;
    }
    let (cut, was_cut) = tokio::sync::oneshot::channel();
    // A thread of its own and none of the runtime's: reading standard input cannot be called off.
    let reader = std::thread::Builder::new().name("lifeline".into()).spawn(move || {
        // An end is an end, whether in order or by an error.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = cut.send(());
    });
    match reader {
        Ok(_) => drop(was_cut.await),
        Err(_) => std::future::pending().await,
    }
}
