//! `epost up`: a local organisation, running, until Ctrl-C.

use super::folder::DataFolder;
use super::local::{Local, Wish};
use super::ports::local;
use super::progress::Progress;
use super::record::{NodeRecord, UpRecord, UserRecord};
use super::running::{READY_MAX, RunError, Running, Signals, check_environment, wait_for_earlier_run};
use super::table;
use std::io::{self, Write};
use std::path::Path;

/// Runs a local organisation in `path` until it is told to stop.
pub async fn up(path: &Path, wish: Wish) -> Result<(), RunError> {
    let mut signals = Signals::new()?;
    let mut folder = DataFolder::open(path)?;
    check_environment(folder.path())?;
    let local = Local::prepare(&mut folder, wish)?;
    UpRecord::remove(folder.path())?;
    wait_for_earlier_run(&local).await?;
    local.ports().check()?;
    let mut running = Running::start(local, Progress::new())?;
    let outcome = run(&mut running, folder.path(), &mut signals).await;
    if let Err(error) = UpRecord::remove(folder.path()) {
        running.progress.say(&error.to_string());
    }
    running.stop(&mut signals, outcome.is_ok()).await;
    outcome
}

/// Until a signal: gets everything ready, says so, and keeps `up.json` true.
async fn run(running: &mut Running, folder: &Path, signals: &mut Signals) -> Result<(), RunError> {
    let all = running.all();
    tokio::select! {
        ready = running.get_ready(&all, READY_MAX) => ready?,
        () = signals.next() => return Ok(()),
    }
    running.progress.end();
    record(running).write(folder)?;
    print(&announcement(&running.local, folder));
    loop {
        tokio::select! {
            () = running.restarted() => record(running).write(folder)?,
            () = signals.next() => return Ok(()),
        }
    }
}

fn record(running: &Running) -> UpRecord {
    let local_users = running.local.users.iter();
    let users = local_users.map(|user| UserRecord::new(&user.address, &user.password, user.ports));
    let nodes = running.local.nodes.iter().zip(running.states()).map(|(node, state)| NodeRecord {
        pid: state.pid,
        node_id: state.id.clone().unwrap_or_default(),
        dir: node.folder.clone(),
        status_url: format!("http://{}/status", local(node.ports.status)),
    });
    UpRecord { domain: running.local.domain.clone(), users: users.collect(), nodes: nodes.collect() }
}

/// What the user is told when all is ready.
fn announcement(local: &Local, folder: &Path) -> String {
    let pair = |starttls: u16, tls: u16| format!("127.0.0.1  {starttls} / {tls}");
    let rows: Vec<Vec<String>> = local
        .users
        .iter()
        .map(|user| {
            let ports = user.ports;
            vec![
                user.address.clone(),
                user.password.to_string(),
                pair(ports.imap_starttls, ports.imap_tls),
                pair(ports.smtp_starttls, ports.smtp_tls),
            ]
        })
        .collect();
    let headings = ["user name", "password", "IMAP       STARTTLS / TLS", "SMTP       STARTTLS / TLS"];
    format!(
        "\nePOST is running: {} nodes on this machine, mail domain {}.\n\n{}\n\
         Any mail client will do. It will ask once whether to trust the server's certificate.\n\
         Status: epost status --dir {dir}   For programs: {}\nCtrl-C stops everything; the mail stays in {dir}.\n",
        local.nodes.len(),
        local.domain,
        table::render(&headings, &rows),
        UpRecord::path(folder).display(),
        dir = folder.display(),
    )
}

/// To standard output, at once; a reader that went away does not end the ring.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    //! Goal: the user is told everything a mail client asks for, in line. Method: by hand.
    use super::*;
    use crate::cli::local::LocalUser;
    use crate::cli::ports::PortPlan;

    #[test]
    fn the_announcement() {
        let ports = PortPlan::standard(2, 5).users;
        let user = |address: &str, number: usize| LocalUser {
            address: address.into(),
            password: String::from("kabetu-sinore").into(),
            ports: ports[number],
        };
        let users = vec![user("alice@epost.test", 0), user("bob@epost.test", 1)];
        let text = announcement(&Local { domain: "epost.test".into(), users, nodes: Vec::new() }, Path::new("/data"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3], "user name         password       IMAP       STARTTLS / TLS  SMTP       STARTTLS / TLS");
        assert_eq!(lines[4], "alice@epost.test  kabetu-sinore  127.0.0.1  2143 / 2993     127.0.0.1  2587 / 2465");
        assert_eq!(lines[5], "bob@epost.test    kabetu-sinore  127.0.0.1  3143 / 3993     127.0.0.1  3587 / 3465");
        assert!(text.contains("/data/up.json"));
    }
}
